package handoff

import (
	"net"
	"slices"
	"syscall"
)

// Socket is a listening socket that this process serves and passes on.
type Socket struct {
	Name    string // as it stands in LISTEN_FDNAMES
	Network string // as it was asked for; empty if only the manager knows
	Foreign bool   // not made by this family of processes: its path is never removed

	made    bool                // made by this process: no parent has it
	listed  bool                // belongs to Process.Inherit
	holders int                 // children alive that may serve it
	closed  bool                // by Process.Close
	take    func(net.Conn) bool // of TakeConns; nil if there is none
	state   func() string       // of SetState; nil if there is none
	conn    syscall.Conn
	id      fileID
}

// Add makes l, which was asked for as network and asked, part of what is passed
// on.
func (p *Process) Add(l net.Listener, network, asked string) {
	conn, ok := l.(syscall.Conn)
	if !ok {
		return
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	p.add(&Socket{Name: escapeName(asked), Network: network, made: true, conn: conn})
}

// add appends s to the active sockets. Closed ones are removed now and then, so
// that a program that opens and closes listeners does not grow. mu is held.
func (p *Process) add(s *Socket) {
	if len(p.active) > 2*p.pruned+64 {
		p.prune()
	}
	p.active = append(p.active, s)
}

// prune removes the sockets that the program has closed, and learns which file
// each of the others is. mu is held.
func (p *Process) prune() {
	p.active = slices.DeleteFunc(p.active, func(s *Socket) bool {
		id, ok := open(s.conn)
		s.id = id
		return !ok
	})
	p.pruned = len(p.active)
}

// List makes ls the first of the sockets that are passed on, in this order: what
// the child gets from Process.Inherit. Those that are not known yet are added.
func (p *Process) List(ls []net.Listener) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.prune()
	var first []*Socket
	for _, l := range ls {
		conn, ok := l.(syscall.Conn)
		if !ok {
			continue
		}
		id, ok := open(conn)
		if !ok {
			continue // closed: it stops no restart
		}
		known := func(s *Socket) bool { return same(s.conn, conn) || s.id == id && id != fileID{} }
		if slices.ContainsFunc(first, known) {
			continue
		}
		s := &Socket{Name: escapeName(l.Addr().String()), Network: networkName(l.Addr().Network()), made: true, conn: conn, id: id}
		if i := slices.IndexFunc(p.active, known); i >= 0 {
			s = p.active[i]
			p.active = slices.Delete(p.active, i, i+1)
		}
		s.listed = true
		first = append(first, s)
	}
	p.active = append(first, p.active...)
}

// Mend makes the sockets non-blocking, as this process needs them. A child shares
// that with us, and may have changed it: os.File.Fd does, and with it os/exec.
// An Accept that has come upon a blocking socket is woken.
func (p *Process) Mend() {
	p.mu.Lock()
	defer p.mu.Unlock()
	blocked := false
	for _, s := range p.active {
		blocked = setNonblock(s.conn) || blocked
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
