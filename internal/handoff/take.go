package handoff

import (
	"io"
	"net"
	"os"
	"slices"
	"strings"
	"syscall"
)

// How the program gets what this process was passed.

// Err returns what is wrong with what was passed to this process.
func (p *Process) Err() error {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.claim()
	return p.err
}

// Take returns the inherited listener for what is asked, or nil if there is
// none. It is given away once, and from then on it is passed on.
func (p *Process) Take(network, asked string, addr net.Addr) (net.Listener, error) {
	c, err := p.takeFor(kindListener, askedKeys(network, asked, addr), renamed(network, asked))
	l, _ := c.(net.Listener)
	return l, err
}

// renamed makes a socket one that was asked for in these words, if it has no name of a
// service manager.
func renamed(network, asked string) func(*socket) {
	return func(s *socket) {
		if !s.foreign {
			s.name, s.network = escapeName(asked), network
		}
	}
}

// TakePacket is Take for a datagram socket.
func (p *Process) TakePacket(network, asked string, addr net.Addr) (net.PacketConn, error) {
	c, err := p.takeFor(kindDatagram, askedKeys(network, asked, addr), renamed(network, asked))
	l, _ := c.(net.PacketConn)
	return l, err
}

// TakeNamed returns the next inherited listener that has this name, or nil.
func (p *Process) TakeNamed(name string) (net.Listener, error) {
	c, err := p.takeFor(kindListener, nameKeys(name), nil)
	l, _ := c.(net.Listener)
	return l, err
}

// TakePacketNamed is TakeNamed for a datagram socket.
func (p *Process) TakePacketNamed(name string) (net.PacketConn, error) {
	c, err := p.takeFor(kindDatagram, nameKeys(name), nil)
	l, _ := c.(net.PacketConn)
	return l, err
}

// TakeFile returns the next inherited file that has this name, or nil.
func (p *Process) TakeFile(name string) (*os.File, error) {
	c, err := p.takeFor(kindFile, nameKeys(name), nil)
	f, _ := c.(*os.File)
	return f, err
}

// nameKeys are the keys for a name, as it is or as an address is made one.
func nameKeys(name string) []string {
	return []string{namedKey(name), namedKey(escapeName(name))}
}

// takeFor takes the first that is found under the keys, or returns nil.
func (p *Process) takeFor(k kind, keys []string, rename func(*socket)) (any, error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.claim()
	if p.byName == nil {
		p.byName = make(map[string][]*inherited, len(p.inherited))
		for _, in := range p.inherited {
			for _, key := range in.names() {
				p.byName[key] = append(p.byName[key], in)
			}
		}
	}
	for _, key := range keys {
		index := p.byName
		if strings.HasPrefix(key, boundPrefix) {
			index = p.indexAddresses()
		}
		found := index[key]
		for i, in := range found {
			if in.kind == k && in.available() {
				if i == 0 {
					index[key] = found[1:] // or a group of sockets costs the square of it
				}
				return p.take(in, rename)
			}
		}
	}
	return nil, nil
}

// indexAddresses finds out the addresses of what is left: nothing was found by what
// was asked for. mu is held.
func (p *Process) indexAddresses() map[string][]*inherited {
	if p.byAddr == nil {
		p.byAddr = make(map[string][]*inherited)
		for _, in := range p.inherited {
			if in.kind == kindFile || in.taken {
				continue
			}
			if typ, err := checkSocket(in.fd); err == nil {
				in.addr = socketAddr(in.fd, typ)
			}
			key := in.address()
			p.byAddr[key] = append(p.byAddr[key], in)
		}
	}
	return p.byAddr
}

// maxNames is how many names an error lists.
const maxNames = 20

// Names lists the names of what is still to be asked for, each once, and says what they
// are if that is not a listener. Where there are many it lists the first.
func (p *Process) Names() []string {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.claim()
	var names []string
	for _, in := range p.inherited {
		name := in.name + in.kind.note()
		if in.name == "" || !in.available() || slices.Contains(names, name) {
			continue
		}
		if len(names) == maxNames {
			return append(names, "...")
		}
		names = append(names, name)
	}
	return names
}

// TakeAll returns the inherited listeners that were passed by Process.Wait or
// Process.Restart, in that order; all that there are, if the parent told nothing
// about them.
func (p *Process) TakeAll() ([]net.Listener, error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.claim()
	var all, listed []*inherited
	for _, in := range p.inherited {
		if in.kind == kindListener && in.available() {
			all = append(all, in)
			if in.listed {
				listed = append(listed, in)
			}
		}
	}
	if len(listed) != 0 {
		slices.SortStableFunc(listed, func(a, b *inherited) int { return a.order - b.order })
		all = listed
	}
	var ls []net.Listener
	for _, in := range all {
		c, err := p.take(in, nil)
		if err != nil {
			for _, l := range ls {
				_ = l.Close()
			}
			return nil, err
		}
		ls = append(ls, c.(net.Listener))
	}
	return ls, nil
}

// available reports whether in is still to be had: not taken through us, nor by
// other code of this process that reads LISTEN_FDS.
func (in *inherited) available() bool {
	if in.taken {
		return false
	}
	id, err := identify(in.fd)
	return err == nil && id == in.id
}

// taken is what every inherited file is opened as.
type taken interface {
	syscall.Conn
	io.Closer
}

// take opens in: a net.Listener, a net.PacketConn or an *os.File. mu is held.
func (p *Process) take(in *inherited, rename func(*socket)) (c taken, err error) {
	in.taken = true
	p.untaken--
	switch in.kind { // each duplicates the descriptor
	case kindListener:
		var l net.Listener
		if l, err = net.FileListener(in.file); err == nil {
			c = l.(taken)
		}
	case kindDatagram:
		var l net.PacketConn
		if l, err = net.FilePacketConn(in.file); err == nil {
			c = l.(taken)
		}
	default:
		var fd int
		if fd, err = dup(in.file); err == nil {
			c = os.NewFile(uintptr(fd), in.name)
		}
	}
	_ = in.file.Close()
	if err != nil {
		return nil, inheritError(in.fd, err)
	}
	s := in.socket
	if rename != nil {
		rename(&s)
	}
	s.conn, s.passed = c, in.state
	in.active = &s
	p.add(&s)
	p.wakeClaimed()
	return c, nil
}

// Claimed is closed when every inherited socket has been asked for.
func (p *Process) Claimed() <-chan struct{} {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.claim()
	c := make(chan struct{})
	p.waiting = append(p.waiting, c)
	p.wakeClaimed()
	return c
}

// wakeClaimed closes the channels of Claimed if nothing is left. mu is held.
func (p *Process) wakeClaimed() {
	if p.untaken > 0 {
		return
	}
	for _, c := range p.waiting {
		close(c)
	}
	p.waiting = nil
}
