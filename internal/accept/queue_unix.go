//go:build unix

package accept

import (
	"syscall"

	"golang.org/x/sys/unix"
)

// Queued reports whether something waits in the kernel for l, a socket of package net.
func Queued(l any) bool {
	c, ok := l.(syscall.Conn)
	if !ok {
		return false
	}
	raw, err := c.SyscallConn()
	if err != nil {
		return false
	}
	n := 0
	err = raw.Control(func(fd uintptr) {
		n, _ = unix.Poll([]unix.PollFd{{Fd: int32(fd), Events: unix.POLLIN}}, 0)
	})
	return err == nil && n > 0
}
