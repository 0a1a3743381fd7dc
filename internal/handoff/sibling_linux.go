package handoff

import (
	"fmt"
	"os"
	"syscall"
	"time"
	"unsafe"

	"golang.org/x/sys/unix"
)

// A sibling is a child whose parent is our own, the service manager. systemd waits
// for a main process only if it is a child of its own from the start: at a stop it
// kills any other one without giving it the time to drain.
type sibling struct {
	pidfd  int
	status syscall.WaitStatus
	known  bool // status is
}

// underManager reports whether a service manager has started this process, or has
// become its parent.
func underManager() bool {
	return os.Getenv("INVOCATION_ID") != "" &&
		(os.Getppid() == 1 || os.Getenv("SYSTEMD_EXEC_PID") == fmt.Sprint(os.Getpid()))
}

// forkSibling is forkExec for a sibling. The kernel refuses it to the first process
// of a container.
func forkSibling(argv0 string, argv []string, attr *syscall.ProcAttr) (pid int, s *sibling, err error) {
	s = &sibling{pidfd: -1}
	attr.Sys = &syscall.SysProcAttr{Cloneflags: syscall.CLONE_PARENT, PidFD: &s.pidfd}
	pid, err = syscall.ForkExec(argv0, argv, attr)
	if err == nil && s.pidfd < 0 { // no pidfds here
		if s.pidfd, err = unix.PidfdOpen(pid, 0); err != nil {
			_ = unix.Kill(pid, unix.SIGKILL) // nobody could watch it
		}
	}
	return pid, s, err
}

// wait returns when the process has exited. How it did is known after its parent
// has reaped it, on Linux 6.15 and later.
func (s *sibling) wait() {
	for {
		n, err := unix.Poll([]unix.PollFd{{Fd: int32(s.pidfd), Events: unix.POLLIN}}, -1)
		if n > 0 || err != nil && err != unix.EINTR {
			break
		}
	}
	for range 20 {
		if s.status, s.known = exitInfo(s.pidfd); s.known {
			return
		}
		time.Sleep(5 * time.Millisecond)
	}
}

// exitInfo asks the kernel how the process of a pidfd has ended, by PIDFD_GET_INFO
// with PIDFD_INFO_EXIT.
func exitInfo(pidfd int) (status syscall.WaitStatus, ok bool) {
	const (
		getInfo  = 0xc040ff0b
		infoExit = 1 << 3
	)
	info := struct {
		mask, cgroup uint64
		ids          [11]uint32
		exit         int32
	}{mask: infoExit}
	_, _, errno := unix.Syscall(unix.SYS_IOCTL, uintptr(pidfd), getInfo, uintptr(unsafe.Pointer(&info)))
	return syscall.WaitStatus(info.exit), errno == 0 && info.mask&infoExit != 0
}

func (s *sibling) signal(sig syscall.Signal) error {
	return os.NewSyscallError("pidfd_send_signal", unix.PidfdSendSignal(s.pidfd, sig, nil, 0))
}

// struck reports whether sig may have been the end of the process.
func (s *sibling) struck(sig syscall.Signal) bool {
	return !s.known || s.status.Signaled() && s.status.Signal() == sig
}

func (s *sibling) close() { _ = unix.Close(s.pidfd) }

func (s *sibling) String() string {
	switch {
	case !s.known:
		return "how it ended only the service manager knows"
	case s.status.Signaled():
		return "signal: " + s.status.Signal().String()
	}
	return fmt.Sprintf("exit status %d", s.status.ExitStatus())
}
