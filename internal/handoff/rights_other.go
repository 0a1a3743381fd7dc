//go:build !linux

package handoff

import "net"

// maxRights is how many descriptors go with one message.
const maxRights = 64

// maker makes many connections of descriptors.
type maker struct{}

func newMaker() *maker { return &maker{} }

// conn makes a connection of d, which it takes over.
func (*maker) conn(d *Descriptor) (net.Conn, error) {
	fd := d.fd
	d.fd = -1
	return connOf(fd)
}

func (*maker) close() {}
