//go:build unix && !linux

package handoff

import (
	"os"
	"syscall"
)

// isGrace is the test of the original protocol: whatever is not init has
// started us on purpose.
func isGrace(pid int) bool { return pid != 1 }

// interruptThreads does nothing where a signal can't be sent to a thread. What
// blocks goes on with the next connection.
func interruptThreads() {}

func terminateParent(ppid int) error { return killParent(ppid) }

// awaitExit does not wait: nobody needs a child that is not reaped.
func awaitExit(int) {}

// forkSibling is for systemd.
func forkSibling(string, []string, *syscall.ProcAttr) (int, *sibling, error) {
	return 0, nil, syscall.EINVAL
}

func anonymousFile() (*os.File, error) { return temporaryFile() }
