package handoff

import (
	"errors"
	"fmt"
	"io/fs"
	"net"
	"os"
	"reflect"
	"slices"
	"strings"
	"syscall"
)

// kind is what a descriptor is opened as.
type kind uint8

const (
	kindListener kind = iota // a stream or seqpacket socket that listens
	kindDatagram             // a datagram socket
	kindFile                 // anything else, which is found by its name alone
)

// note is what an error adds to the name of something that is no listener.
func (k kind) note() string {
	switch k {
	case kindDatagram:
		return " (a datagram socket)"
	case kindFile:
		return " (a file)"
	}
	return ""
}

// fileID tells whether two descriptors are the same socket, or two paths the same
// file.
type fileID struct{ dev, ino uint64 }

// socket is a socket that this process serves and passes on, or another file that
// it passes on.
type socket struct {
	name    string // as it stands in LISTEN_FDNAMES
	network string // as it was asked for; empty if only the manager knows
	foreign bool   // not made by this family of processes: its path is never removed

	kind    kind
	path    string                     // which nobody but Process.End removes: of a unixgram socket, or of one that is crossed
	pathID  fileID                     // what was at path when the socket was made, or crossed
	made    bool                       // made by this process: no parent has it
	listed  bool                       // belongs to Process.Inherit
	holders int                        // children alive that may serve it
	crossed bool                       // a child that has it may be the last that does, or this process
	closed  bool                       // by Process.Close
	take    func([]*Descriptor) []bool // of TakeConns; nil if there is none
	state   func() string              // of SetState; nil if there is none
	passed  string                     // what the parent has passed along
	link    int                        // descriptor of the link to the parent; 0 for none

	serveLink func(net.Conn) // of OfferLink; nil if there is none
	conn      syscall.Conn
}

// Add makes a listener or a packet connection, which was asked for as network and
// asked, part of what is passed on.
func (p *Process) Add(l any, network, asked string) {
	conn, ok := l.(syscall.Conn)
	if !ok {
		return
	}
	s := &socket{name: escapeName(asked), network: network, made: true, conn: conn}
	if _, ok := l.(net.PacketConn); ok {
		s.kind = kindDatagram
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	p.add(s)
}

// maxFileName keeps the environment small, and is the limit of FDNAME.
const maxFileName = 255

// AddFile makes f part of what is passed on, under a name that no other file has.
func (p *Process) AddFile(name string, f *os.File) error {
	switch {
	case name == "" || len(name) > maxFileName:
		return fmt.Errorf("the name has %d bytes, and must have 1 to %d", len(name), maxFileName)
	case passedName(name) != name || strings.Contains(name, ":"):
		return errors.New("the name must be printable ASCII without space and colon, as LISTEN_FDNAMES has it")
	case f == nil:
		return os.ErrInvalid
	}
	if !isOpen(f) {
		return os.ErrClosed
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	for _, s := range p.active {
		if s.kind == kindFile && s.name == name && isOpen(s.conn) {
			return fs.ErrExist
		}
	}
	p.add(&socket{name: name, kind: kindFile, made: true, conn: f})
	return nil
}

// add appends s to the active sockets. Closed ones are removed now and then, so
// that a program that opens and closes listeners does not grow. mu is held.
func (p *Process) add(s *socket) {
	if len(p.active) > 4*p.pruned+64 {
		p.prune()
	}
	p.active = append(p.active, s)
	p.note(s)
	p.notePath(s)
}

// note lets find find s. mu is held.
func (p *Process) note(s *socket) {
	if p.byConn == nil {
		p.byConn = make(map[any]*socket)
	}
	if isKey(s.conn) {
		p.byConn[s.conn] = s
	}
}

// addr is where s listens, or gets its datagrams.
func (s *socket) addr() net.Addr {
	switch c := s.conn.(type) {
	case net.Listener:
		return c.Addr()
	case net.PacketConn:
		return c.LocalAddr()
	}
	return nil
}

// isOpen reports whether c is open.
func isOpen(c syscall.Conn) bool {
	raw, err := c.SyscallConn()
	return err == nil && raw.Control(func(uintptr) {}) == nil
}

// isKey reports whether v can be a key. A program may have listeners of types
// that can't; those are told apart by their sockets.
func isKey(v any) bool { return reflect.ValueOf(v).Comparable() }

// find returns the active socket of l, or nil. mu is held.
func (p *Process) find(l any) *socket {
	if l == nil || !isKey(l) {
		return nil
	}
	return p.byConn[l]
}

// prune removes the sockets that the program has closed. mu is held.
func (p *Process) prune() {
	p.active = slices.DeleteFunc(p.active, func(s *socket) bool {
		open := isOpen(s.conn)
		if !open && p.find(s.conn) == s {
			delete(p.byConn, s.conn)
		}
		return !open
	})
	p.pruned = len(p.active)
	p.paths = slices.DeleteFunc(p.paths, func(s *socket) bool { return !isOpen(s.conn) && !s.atPath() })
}

// List makes ls the first of the sockets that are passed on, in this order: what
// the child gets from Process.Inherit. Those that are not known yet are added.
func (p *Process) List(ls []net.Listener) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.prune()
	byID := make(map[fileID]*socket)
	for _, s := range p.active {
		if id, ok := open(s.conn); ok && id != (fileID{}) && byID[id] == nil {
			byID[id] = s
		}
	}
	var first []*socket
	isFirst := make(map[*socket]bool)
	for _, l := range ls {
		conn, ok := l.(syscall.Conn)
		if !ok {
			continue
		}
		id, ok := open(conn)
		if !ok {
			continue // closed: it stops no restart
		}
		s := p.find(conn)
		if s == nil {
			s = byID[id]
		}
		if s == nil {
			s = &socket{name: escapeName(l.Addr().String()), network: networkName(l.Addr().Network()), made: true, conn: conn}
			p.note(s)
			if id != (fileID{}) {
				byID[id] = s
			}
		}
		if isFirst[s] {
			continue
		}
		s.listed = true
		isFirst[s] = true
		first = append(first, s)
	}
	p.active = append(first, slices.DeleteFunc(p.active, func(s *socket) bool { return isFirst[s] })...)
}

// Mend makes the sockets non-blocking, as this process needs them. A child shares
// that with us, and may have changed it: os.File.Fd does, and with it os/exec.
// An Accept that has come upon a blocking socket is woken.
func (p *Process) Mend() {
	p.mu.Lock()
	defer p.mu.Unlock()
	blocked := false
	for _, s := range p.active {
		if s.kind != kindFile { // whose mode is the program's business
			blocked = setNonblock(s.conn) || blocked
		}
	}
	if blocked {
		interruptThreads()
	}
}

// networkName is network if it can stand in a marker, as those of package net
// can. A program may have listeners of its own.
func networkName(network string) string {
	for i := range len(network) {
		if c := network[i]; (c < 'a' || c > 'z') && (c < '0' || c > '9') {
			return ""
		}
	}
	return network
}
