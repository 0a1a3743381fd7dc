//go:build unix && !linux

package handoff

// isGrace is the test of the original protocol: whatever is not init has
// started us on purpose.
func isGrace(pid int) bool { return pid != 1 }

func terminateParent(ppid int) error { return killParent(ppid) }
