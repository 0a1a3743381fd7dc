package gracehttp

import (
	"net"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

// receivedAfterSent reports whether the peer has sent something that was not
// answered yet: more than nothing if nothing was sent to it, and otherwise
// something since the last time. The last of what it has sent came so long ago. It
// is known for TCP only, and the times are those of the kernel's tick, of 1 to
// 10 ms: what has come in the same tick counts as answered.
func receivedAfterSent(c net.Conn) (received bool, ago time.Duration, known bool) {
	tcp, ok := c.(interface {
		syscall.Conn
		SetLinger(int) error // of TCP only
	})
	if !ok {
		return false, 0, false
	}
	raw, err := tcp.SyscallConn()
	if err != nil {
		return false, 0, false
	}
	_ = raw.Control(func(fd uintptr) {
		info, err := unix.GetsockoptTCPInfo(int(fd), unix.IPPROTO_TCP, unix.TCP_INFO)
		if err != nil {
			return
		}
		known = true
		ago = time.Duration(info.Last_data_recv) * time.Millisecond
		received = info.Bytes_received != 0 && (info.Bytes_sent == 0 || info.Last_data_recv < info.Last_data_sent)
	})
	return received, ago, known
}
