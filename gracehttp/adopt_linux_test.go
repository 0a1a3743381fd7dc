package gracehttp_test

import (
	"testing"

	"golang.org/x/sys/unix"
)

// adopt makes this process the parent of those whose parent dies.
func adopt(t *testing.T) {
	t.Helper()
	set := func(on uintptr) {
		if err := unix.Prctl(unix.PR_SET_CHILD_SUBREAPER, on, 0, 0, 0); err != nil {
			t.Fatal(err)
		}
	}
	set(1)
	t.Cleanup(func() { set(0) })
}
