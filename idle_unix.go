//go:build unix

package grace

import (
	"net"
	"syscall"

	"golang.org/x/sys/unix"
)

// unread reports whether bytes have come that were not read yet.
func unread(c net.Conn) bool {
	socket, ok := c.(syscall.Conn)
	if !ok {
		return false
	}
	raw, err := socket.SyscallConn()
	if err != nil {
		return false
	}
	n := 0
	err = raw.Control(func(fd uintptr) {
		n, _, _ = unix.Recvfrom(int(fd), make([]byte, 1), unix.MSG_PEEK|unix.MSG_DONTWAIT)
	})
	return err == nil && n > 0
}

// hangUp lets the reading side come to its end, after what has come already, and
// reports whether it does. BSD systems drop what comes in that very moment.
func hangUp(c net.Conn) bool {
	h, ok := c.(interface{ CloseRead() error })
	return ok && h.CloseRead() == nil
}
