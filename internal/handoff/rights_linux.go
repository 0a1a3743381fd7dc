package handoff

import (
	"net"
	"os"

	"golang.org/x/sys/unix"
)

// maxRights is how many descriptors go with one message: as many as Linux lets.
const maxRights = 253

// maker makes many connections of descriptors. net.FileConn duplicates the descriptor
// of a file; one file for each would go through the poller of the Go runtime and be
// collected as garbage. So there is one file, in whose place they are put in turn.
type maker struct {
	place *os.File // nil if there is none; blocking, so that the poller does not have it
}

func newMaker() *maker {
	fd, err := unix.Socket(unix.AF_UNIX, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return &maker{} // no descriptor is left
	}
	return &maker{os.NewFile(uintptr(fd), "connection")}
}

// conn makes a connection of fd, which it takes over. It stays open until the next
// one is made, or close is called, even if the connection is closed.
func (m *maker) conn(fd int) (net.Conn, error) {
	if m.place == nil {
		return connOf(fd)
	}
	err := unix.Dup3(fd, int(m.place.Fd()), unix.O_CLOEXEC)
	closeFD(fd)
	if err != nil {
		return nil, os.NewSyscallError("dup3", err)
	}
	return net.FileConn(m.place)
}

func (m *maker) close() {
	if m.place != nil {
		_ = m.place.Close()
	}
}
