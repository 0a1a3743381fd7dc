package testbin

import (
	"testing"

	"golang.org/x/sys/unix"
)

// Limit sets a resource limit of a running process, as setrlimit(2) does. The
// hard limit stays.
func Limit(t *testing.T, pid, resource, value int) {
	t.Helper()
	var limit unix.Rlimit
	err := unix.Prlimit(pid, resource, nil, &limit)
	if err == nil {
		limit.Cur = uint64(value)
		err = unix.Prlimit(pid, resource, &limit, nil)
	}
	if err != nil {
		t.Fatalf("limit %d of pid %d: %v", resource, pid, err)
	}
}
