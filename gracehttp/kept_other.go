//go:build !linux

package gracehttp

import (
	"sync"
	"syscall"
	"time"

	"github.com/facebookgo/grace/internal/handoff"
)

// keeper keeps connections of a server that were handed over, until their next request
// begins. For each a small goroutine waits, instead of one of net/http with its buffers.
type keeper struct {
	server *server

	mu      sync.Mutex
	kept    map[*tracked]struct{}
	refuses bool // nothing more is kept
	closed  bool
}

func newKeeper(s *server) *keeper { return &keeper{server: s, kept: make(map[*tracked]struct{})} }

// keep reports which of descriptors it keeps, and takes over.
func (k *keeper) keep(descriptors []*handoff.Descriptor) (taken []bool) {
	taken = make([]bool, len(descriptors))
	if !k.server.handed.begin(k.server.serveHanded) { // so that the server closes k
		return taken
	}
	k.mu.Lock()
	defer k.mu.Unlock()
	if k.closed || k.refuses {
		return taken
	}
	conns, _ := handoff.Conns(descriptors)
	for i, conn := range conns {
		if conn == nil {
			continue
		}
		taken[i] = true
		conn = k.server.dress(conn)
		w := watchOf(conn)
		if w == nil {
			if taken[i] = k.server.handed.put(conn, k.server.serveHanded); !taken[i] {
				_ = conn.Close()
			}
			continue
		}
		if d := k.server.idleTimeout(); d > 0 {
			_ = w.setReadDeadline(time.Now().Add(d)) // as net/http does, which sets another when it reads
		}
		c := k.server.app.tracker.add(k.server, conn)
		k.kept[c] = struct{}{}
		// The connection is not forgotten before this ends, like those of net/http.
		go k.wait(c)
	}
	return taken
}

func (k *keeper) wait(c *tracked) {
	ready := c.watch.wait()
	k.mu.Lock()
	defer k.mu.Unlock()
	delete(k.kept, c)
	if !ready || !k.server.handed.put(c.conn, k.server.serveHanded) {
		k.server.app.tracker.drop(c.conn)
	}
}

// wait is for a connection that the server does not know yet. It returns true when the
// server is to read: something has come, or the other side has ended. It returns false
// when the connection has gone, was closed, or has reached the deadline.
func (w *watch) wait() bool {
	raw, err := w.socket.SyscallConn()
	if err != nil {
		return false
	}
	for w.enter() {
		err := raw.Read(readable)
		if !w.leave(nil, err) {
			return err == nil
		}
	}
	return false
}

// pass gives send what is kept, and keeps what that does not report as taken. It does not
// wait for that.
func (k *keeper) pass(send func([]syscall.Conn) (taken []bool)) {
	k.mu.Lock()
	defer k.mu.Unlock()
	for c := range k.kept {
		c.watch.ask(func() bool { return send([]syscall.Conn{c.watch.socket})[0] })
	}
}

// passing reports false: what is kept is known to the tracker.
func (k *keeper) passing() bool { return false }

// join has nothing to wait for: what waits counts as open, one by one.
func (k *keeper) join() {}

// refuse ends keep for connections that come from now on.
func (k *keeper) refuse() {
	k.mu.Lock()
	defer k.mu.Unlock()
	k.refuses = true
}

// close closes what is kept.
func (k *keeper) close() {
	k.mu.Lock()
	defer k.mu.Unlock()
	k.closed = true
	for c := range k.kept {
		_ = c.conn.Close()
	}
}
