package handoff

import (
	"errors"
	"net"
	"syscall"
)

// Descriptor is a connection that was accepted elsewhere and is not one of package net
// yet. That costs nothing but the descriptor, which is close-on-exec. It has one owner at
// a time, who closes it or makes a connection of it; its methods must not be called
// together. It is a syscall.Conn, so that Pass can send it on.
type Descriptor struct{ fd int } // -1 when it is not ours any more

// NewDescriptor takes fd over, which nobody else may close.
func NewDescriptor(fd int) *Descriptor { return &Descriptor{fd} }

// Close closes it, once: the number may then be that of another file.
func (d *Descriptor) Close() {
	if d.fd >= 0 {
		closeFD(d.fd)
		d.fd = -1
	}
}

// SyscallConn returns d, of which nothing can be read and to which nothing can be
// written.
func (d *Descriptor) SyscallConn() (syscall.RawConn, error) { return d, nil }

// Control calls f with the descriptor, or returns net.ErrClosed.
func (d *Descriptor) Control(f func(fd uintptr)) error {
	if d.fd < 0 {
		return net.ErrClosed
	}
	f(uintptr(d.fd))
	return nil
}

// Read implements syscall.RawConn.
func (*Descriptor) Read(func(fd uintptr) bool) error { return errors.ErrUnsupported }

// Write implements syscall.RawConn.
func (*Descriptor) Write(func(fd uintptr) bool) error { return errors.ErrUnsupported }

// Conns makes connections of descriptors, which are then closed. What can't be made one
// is nil, and err is why, for each of them. On Linux such a descriptor stays open, so that
// it can be tried again.
func Conns(descriptors []*Descriptor) (conns []net.Conn, err error) {
	m := newMaker()
	defer m.close()
	conns = make([]net.Conn, len(descriptors))
	for i, d := range descriptors {
		if conn, failed := m.conn(d); failed == nil {
			conns[i] = conn
		} else {
			err = errors.Join(err, failed)
		}
	}
	return conns, err
}
