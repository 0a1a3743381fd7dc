package grace

import (
	"fmt"
	"os"

	"golang.org/x/sys/unix"
)

// withStderr calls f with the descriptor of standard error.
func withStderr(f func(fd int)) {
	if os.Stderr == nil {
		return
	}
	raw, err := os.Stderr.SyscallConn()
	if err != nil {
		return
	}
	_ = raw.Control(func(fd uintptr) { f(int(fd)) })
}

// markStderr notes how far standard error has been written, if it is a file.
func markStderr() (m mark) {
	withStderr(func(fd int) {
		var st unix.Stat_t
		if err := unix.Fstat(fd, &st); err == nil && st.Mode&unix.S_IFMT == unix.S_IFREG {
			m = mark{fmt.Sprintf("/proc/self/fd/%d", fd), st.Size}
		}
	})
	return m
}

// stderrID is what JOURNAL_STREAM is if standard error is the journal.
func stderrID() (id string) {
	withStderr(func(fd int) {
		var st unix.Stat_t
		if err := unix.Fstat(fd, &st); err == nil {
			id = fmt.Sprintf("%d:%d", st.Dev, st.Ino)
		}
	})
	return id
}
