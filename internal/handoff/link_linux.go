package handoff

import (
	"os"

	"golang.org/x/sys/unix"
)

var errNoLinks error

// packetPair returns the two ends of a link, close-on-exec.
func packetPair() (ours, theirs int, err error) {
	fds, err := unix.Socketpair(unix.AF_UNIX, unix.SOCK_SEQPACKET|unix.SOCK_CLOEXEC|unix.SOCK_NONBLOCK, 0)
	if err != nil {
		return -1, -1, os.NewSyscallError("socketpair", err)
	}
	return fds[0], fds[1], nil
}
