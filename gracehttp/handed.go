package gracehttp

import (
	"net"
	"sync"
)

// handedOver is a listener for connections that another process has accepted.
//
// One that is watched is kept back until its next request begins. Until then it costs
// little: a small goroutine waits, instead of one of net/http with its buffers. The
// server would also take it for one that it has just accepted, and close it after
// ReadHeaderTimeout.
type handedOver struct {
	addr net.Addr
	drop func(net.Conn) // closes one that nobody serves

	mu      sync.Mutex
	conns   []net.Conn
	kept    map[net.Conn]struct{} // waited for by goroutines of keep
	refuses bool                  // nothing more is kept
	changed chan struct{}         // gets a value when conns or closed changes
	closed  bool
	served  chan struct{} // closed when serve has returned; nil before it is called
}

func newHandedOver(addr net.Addr) *handedOver {
	return &handedOver{
		addr:    addr,
		drop:    func(c net.Conn) { _ = c.Close() },
		changed: make(chan struct{}, 1),
	}
}

// put makes Accept return c, and reports whether it will. The first call starts
// serve, which accepts; finish waits for it.
func (l *handedOver) put(c net.Conn, serve func()) bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	delete(l.kept, c)
	if l.closed {
		return false
	}
	l.conns = append(l.conns, c)
	l.start(serve)
	l.wake()
	return true
}

// start starts serve once. mu is held.
func (l *handedOver) start(serve func()) {
	if l.served != nil {
		return
	}
	l.served = make(chan struct{})
	go func() {
		defer close(l.served)
		serve()
	}()
}

// keep does what put does, but when wait has returned true. If that returns false, c is
// dropped. Close closes c, which must make wait return.
func (l *handedOver) keep(c net.Conn, serve func(), wait func() bool) bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.closed || l.refuses {
		return false
	}
	if l.kept == nil {
		l.kept = make(map[net.Conn]struct{})
	}
	l.kept[c] = struct{}{}
	l.start(serve) // so that the server closes l when it is closed
	// The connection is not forgotten before this ends, like those of net/http.
	go func() {
		if wait() && l.put(c, serve) {
			return
		}
		l.mu.Lock()
		delete(l.kept, c)
		l.mu.Unlock()
		l.drop(c)
	}()
	return true
}

// refuse ends keep for connections that come from now on.
func (l *handedOver) refuse() {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.refuses = true
}

// wake tells Accept to look again. mu is held.
func (l *handedOver) wake() {
	select {
	case l.changed <- struct{}{}:
	default:
	}
}

// Accept returns what was put before Close, and then net.ErrClosed.
func (l *handedOver) Accept() (net.Conn, error) {
	for {
		if c, closed := l.next(); c != nil {
			return c, nil
		} else if closed {
			return nil, net.ErrClosed
		}
		<-l.changed
	}
}

func (l *handedOver) next() (c net.Conn, closed bool) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if len(l.conns) == 0 {
		l.conns = nil
		return nil, l.closed
	}
	c = l.conns[0]
	l.conns = l.conns[1:]
	return c, false
}

// Close closes what is kept, too.
func (l *handedOver) Close() error {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.closed = true
	for c := range l.kept {
		_ = c.Close()
	}
	l.wake()
	return nil
}

// finish closes l and returns when the server knows all that was put.
func (l *handedOver) finish() {
	_ = l.Close()
	l.mu.Lock()
	served := l.served
	l.mu.Unlock()
	if served == nil {
		return
	}
	<-served
	// The program may have closed the server before.
	for c, _ := l.next(); c != nil; c, _ = l.next() {
		l.drop(c)
	}
}

func (l *handedOver) Addr() net.Addr { return l.addr }
