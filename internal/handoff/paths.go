package handoff

import (
	"errors"
	"net"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"time"
)

// The paths of unix sockets: the last process of the family removes them, and no other.

// unlinker is a listener whose Close can remove a path: net.UnixListener.
type unlinker interface{ SetUnlinkOnClose(bool) }

// Close closes l. Exactly one process of the family removes the path of a unix
// socket: the last one.
func (p *Process) Close(l net.Listener) error {
	p.mu.Lock()
	p.listen()
	if s := p.find(l); s != nil {
		p.setUnlink(s)
		s.closed = true
	}
	p.mu.Unlock()
	return l.Close()
}

// hasPath reports whether a stands in the file system.
func hasPath(a net.Addr) bool {
	u, ok := a.(*net.UnixAddr)
	return ok && !strings.HasPrefix(u.Name, "@") && u.Name != ""
}

// setUnlink says who removes the paths of sockets: this process if it is the
// last one. It leaves alone those that Close is at work on, since
// SetUnlinkOnClose must not be called meanwhile. mu is held.
//
// Close asks as well. This is for listeners that the program closes without us.
func (p *Process) setUnlink(sockets ...*socket) {
	for _, s := range sockets {
		u, ok := s.conn.(unlinker)
		if !ok || s.closed {
			continue
		}
		if isOpen(s.conn) {
			u.SetUnlinkOnClose(!s.foreign && !s.crossed && p.last(s))
		}
	}
}

// notePath learns which file stands for a unixgram socket. Which one that was when
// an inherited one was made, the parent has said. mu is held.
func (p *Process) notePath(s *socket) {
	if s.kind != kindDatagram || s.foreign || !hasPath(s.addr()) {
		return
	}
	path := s.addr().String()
	s.path, _ = filepath.Abs(path) // now, or where the program has gone again
	if s.made {
		s.pathID, _ = socketAt(s.path)
	} else if !s.atPath() {
		s.path = p.Absolute(path)
	}
	if s.pathID != (fileID{}) {
		p.paths = append(p.paths, s)
	}
}

// cross notes that a child may close s as the last that has it, or as one of two. Then
// End removes the path, and not Close. mu is held.
func (p *Process) cross(s *socket) {
	s.crossed = true
	if s.kind != kindListener || s.foreign || !hasPath(s.addr()) {
		return
	}
	path := s.addr().String()
	for _, s.path = range []string{path, p.Absolute(path)} {
		s.path, _ = filepath.Abs(s.path)
		if id, ok := socketAt(s.path); ok {
			s.pathID = id
			p.paths = append(p.paths, s)
			return
		}
	}
}

// End removes the paths that Close has left to it, if this process was the last that
// had the sockets: those of unixgram sockets, since package net removes only those of
// listeners, and of sockets that are crossed.
func (p *Process) End() {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.listen()
	for _, s := range p.paths {
		if p.last(s) && s.atPath() && (isOpen(s.conn) && !s.crossed || abandoned(net.UnixAddr{Net: s.addr().Network(), Name: s.path})) {
			_ = os.Remove(s.path)
		}
	}
	p.paths = nil
}

// abandoned reports whether no process has the socket at a any more.
func abandoned(a net.UnixAddr) bool {
	c, err := net.Dial(a.Net, a.Name)
	if err == nil {
		_ = c.Close()
	}
	return errors.Is(err, syscall.ECONNREFUSED)
}

// atPath reports whether s is what is at its path: by now that may be another socket.
// The file of one that is closed may be another with the same number.
func (s *socket) atPath() bool {
	id, ok := socketAt(s.path)
	return ok && id == s.pathID
}

// pathOf is the address of a unix socket with a path that this family of processes
// has made, or the zero value. mu is held.
func (p *Process) pathOf(in *inherited) (none net.UnixAddr) {
	if in.kind == kindFile || in.foreign {
		return none
	}
	typ, err := checkSocket(in.fd)
	if err != nil {
		return none
	}
	addr, ok := socketAddr(in.fd, typ).(*net.UnixAddr)
	if !ok || !hasPath(addr) {
		return none
	}
	addr.Name = p.Absolute(addr.Name)
	if id, ok := socketAt(addr.Name); !ok || in.kind == kindDatagram && id != in.pathID {
		return none // by now something else is there
	}
	return *addr
}

// unusedPaths returns the paths of sockets that nobody here has asked for, once. mu is
// held.
func (p *Process) unusedPaths() []net.UnixAddr {
	unused := p.unused
	p.unused = nil
	return unused
}

// removeAbandoned removes paths when the parent has gone. It has removed them itself,
// unless it was killed or did not learn of it. One that was killed may have its sockets
// for a moment longer than its end of the control socket.
func removeAbandoned(paths []net.UnixAddr) {
	for wait := time.Millisecond; len(paths) != 0 && wait < time.Second; wait *= 2 {
		paths = slices.DeleteFunc(paths, func(a net.UnixAddr) bool {
			gone := abandoned(a)
			if gone {
				_ = os.Remove(a.Name)
			}
			return gone
		})
		if len(paths) != 0 {
			time.Sleep(wait)
		}
	}
}
