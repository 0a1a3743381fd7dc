package handoff

import (
	"errors"
	"fmt"
	"net"
	"strconv"
)

// A link goes from a child to its parent, for one datagram socket: packets of
// connections that the parent has come to the child. It is one end of a seqpacket
// socketpair, which is passed like a file, and keeps the packets apart.

// OfferLink makes serve get our end of a link at each start of a child that has l. It is
// called on a goroutine of its own.
func (p *Process) OfferLink(l any, serve func(net.Conn)) error {
	if errNoLinks != nil {
		return fmt.Errorf("forward packets: %w", errNoLinks)
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	s := p.find(l)
	if s == nil {
		return errors.New("forward packets: the socket is not passed on")
	}
	s.serveLink = serve
	return nil
}

// Link returns the link to the parent for l, or nil. It must be called before Ready,
// and once.
func (p *Process) Link(l any) net.Conn {
	p.mu.Lock()
	defer p.mu.Unlock()
	s := p.find(l)
	if s == nil || s.link == 0 {
		return nil
	}
	fd := s.link
	s.link = 0
	c, err := connOf(fd)
	if err != nil {
		return nil
	}
	return c
}

// claimLinks gives the links to their sockets: their names are the positions. mu is
// held, or nobody else is there yet.
func (p *Process) claimLinks(links []meta) {
	for _, m := range links {
		setCloseOnExec(m.fd)
		position, err := strconv.Atoi(m.name)
		if err != nil || position < 0 || position >= len(p.inherited) || p.inherited[position].link != 0 {
			closeFD(m.fd)
			continue
		}
		p.inherited[position].link = m.fd
	}
}

func closeLinks(links []meta) {
	for _, m := range links {
		closeFD(m.fd)
	}
}

// dropLinks closes the links that nobody has asked for. mu is held.
func (p *Process) dropLinks() {
	for _, in := range p.inherited {
		link := &in.link
		if in.active != nil {
			link = &in.active.link
		}
		if *link != 0 {
			closeFD(*link)
			*link = 0
		}
	}
}

// link is one link at the start of a child.
type link struct {
	ours, theirs int
	position     int
	serve        func(net.Conn)
}

// links makes a link for each socket of the child that wants one.
func (c *Child) links() (links []link, err error) {
	c.parent.mu.Lock()
	defer c.parent.mu.Unlock()
	for i, s := range c.sockets {
		if s.serveLink == nil {
			continue
		}
		l := link{position: i, serve: s.serveLink}
		if l.ours, l.theirs, err = packetPair(); err != nil {
			return links, fmt.Errorf("make link: %w", err)
		}
		links = append(links, l)
	}
	return links, nil
}

// begin serves our end, which it takes over.
func (l *link) begin() {
	conn, err := connOf(l.ours)
	l.ours = -1
	if err == nil {
		go l.serve(conn) // ends with the child
	}
}
