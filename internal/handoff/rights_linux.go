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
	place *os.File // blocking, so that the poller does not have it
	fd    int      // of place
	err   error    // why there is no place
}

func newMaker() *maker {
	fd, err := unix.Socket(unix.AF_UNIX, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return &maker{err: os.NewSyscallError("socket", err)} // no descriptor is left
	}
	return &maker{place: os.NewFile(uintptr(fd), "connection"), fd: fd}
}

// conn makes a connection of d and closes d, if it does not fail. The connection stays
// open until the next one is made, or close is called, even if it is closed.
func (m *maker) conn(d *Descriptor) (net.Conn, error) {
	if m.err != nil {
		return nil, m.err
	}
	if err := unix.Dup3(d.fd, m.fd, unix.O_CLOEXEC); err != nil {
		return nil, os.NewSyscallError("dup3", err)
	}
	conn, err := net.FileConn(m.place)
	if err == nil {
		d.Close()
	}
	return conn, err
}

func (m *maker) close() {
	if m.place != nil {
		_ = m.place.Close()
	}
}
