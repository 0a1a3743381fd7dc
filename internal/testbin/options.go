//go:build unix

package testbin

import (
	"os"
	"os/exec"
	"syscall"
)

// Option changes how the first process is started.
type Option func(*Service, *exec.Cmd)

// Env adds variables to the environment.
func Env(kv ...string) Option {
	return func(_ *Service, cmd *exec.Cmd) { cmd.Env = append(cmd.Env, kv...) }
}

// Files passes files as descriptors 3 and up.
func Files(files ...*os.File) Option {
	return func(_ *Service, cmd *exec.Cmd) { cmd.ExtraFiles = files }
}

// Argv0 starts the program under another name: "./server" in its directory.
func Argv0(name string) Option {
	return func(_ *Service, cmd *exec.Cmd) { cmd.Path, cmd.Args[0] = name, name }
}

// OwnListenPID sets LISTEN_PID to the pid of the process, as service managers do.
func OwnListenPID() Option { return ownPID("LISTEN_PID") }

// OwnWatchdogPID does so with WATCHDOG_PID.
func OwnWatchdogPID() Option { return ownPID("WATCHDOG_PID") }

func ownPID(name string) Option {
	return func(_ *Service, cmd *exec.Cmd) {
		cmd.Args = []string{"sh", "-c", name + `=$$ exec "$0"`, cmd.Path}
		cmd.Path = "/bin/sh"
	}
}

// OwnGroup makes the first process the leader of a process group.
func OwnGroup() Option {
	return func(_ *Service, cmd *exec.Cmd) { cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true} }
}

// Under starts the program by another one, which gets its path as argument.
func Under(wrapper string) Option {
	return func(_ *Service, cmd *exec.Cmd) {
		cmd.Args = []string{wrapper, cmd.Path}
		cmd.Path = wrapper
	}
}

// Dir starts the program in another directory.
func Dir(dir string) Option {
	return func(_ *Service, cmd *exec.Cmd) { cmd.Dir = dir }
}

// Stderr makes a file the standard error of all processes.
func Stderr(f *os.File) Option {
	return func(_ *Service, cmd *exec.Cmd) { cmd.Stderr = f }
}
