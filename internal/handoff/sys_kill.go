//go:build unix

package handoff

import (
	"errors"
	"os"

	"golang.org/x/sys/unix"
)

// killParent is terminateParent where there are no pidfds.
func killParent(ppid int) error {
	if os.Getppid() != ppid {
		return nil
	}
	err := unix.Kill(ppid, unix.SIGTERM)
	if errors.Is(err, unix.ESRCH) {
		return nil
	}
	return os.NewSyscallError("kill", err)
}
