package handoff

import (
	"bytes"
	"errors"
	"os"
	"strconv"

	"golang.org/x/sys/unix"
)

// isGrace reports whether the process pid runs the program that we are: a parent
// that speaks the original protocol passes its own os.Args on. A shell, a
// wrapper script or a service manager has another argv[0].
func isGrace(pid int) bool {
	cmdline, err := os.ReadFile("/proc/" + strconv.Itoa(pid) + "/cmdline")
	if err != nil || len(os.Args) == 0 {
		return false
	}
	argv0, _, _ := bytes.Cut(cmdline, []byte{0})
	return string(argv0) == os.Args[0]
}

// interruptThreads makes system calls of this process that block begin anew,
// such as an accept that should not have. SIGURG is what the Go runtime uses for
// itself to interrupt a thread; one more has no effect.
func interruptThreads() {
	threads, err := os.ReadDir("/proc/self/task")
	if err != nil {
		return
	}
	for _, t := range threads {
		if tid, err := strconv.Atoi(t.Name()); err == nil {
			_ = unix.Tgkill(os.Getpid(), tid, unix.SIGURG)
		}
	}
}

// terminateParent sends SIGTERM to our parent if it is still the process that
// started us. The pidfd rules out that the pid has been given to another one
// between the check and the signal.
func terminateParent(ppid int) error {
	fd, err := unix.PidfdOpen(ppid, 0)
	switch {
	case errors.Is(err, unix.ESRCH):
		return nil
	case err != nil: // before Linux 5.3, or forbidden by a filter
		return killParent(ppid)
	}
	defer unix.Close(fd)
	if os.Getppid() != ppid {
		return nil
	}
	err = unix.PidfdSendSignal(fd, unix.SIGTERM, nil, 0)
	if errors.Is(err, unix.ESRCH) {
		return nil
	}
	return os.NewSyscallError("pidfd_send_signal", err)
}

// awaitExit returns when our child pid has exited, and does not reap it.
func awaitExit(pid int) {
	for {
		err := unix.Waitid(unix.P_PID, pid, nil, unix.WEXITED|unix.WNOWAIT, nil)
		if err != unix.EINTR {
			return
		}
	}
}

// anonymousFile returns a file that has no name. It needs no directory to write to.
func anonymousFile() (*os.File, error) {
	fd, err := unix.MemfdCreate("grace", unix.MFD_CLOEXEC)
	if err != nil { // before Linux 3.17, or forbidden by a filter
		return temporaryFile()
	}
	return os.NewFile(uintptr(fd), "grace"), nil
}
