//go:build unix && !linux

package gracehttp

import "golang.org/x/sys/unix"

// readable reports whether a read of fd, which is non-blocking, would return something:
// bytes, the end, or an error.
func readable(fd uintptr) bool {
	var p [1]byte
	_, _, err := unix.Recvfrom(int(fd), p[:], unix.MSG_PEEK)
	return err != unix.EAGAIN && err != unix.EINTR
}
