package gracehttp

import (
	"net"

	"golang.org/x/sys/unix"
)

// nothingReceived reports whether the peer has not sent a byte so far.
func nothingReceived(c *net.TCPConn) bool {
	raw, err := c.SyscallConn()
	if err != nil {
		return false
	}
	nothing := false
	_ = raw.Control(func(fd uintptr) {
		info, err := unix.GetsockoptTCPInfo(int(fd), unix.IPPROTO_TCP, unix.TCP_INFO)
		nothing = err == nil && info.Bytes_received == 0
	})
	return nothing
}
