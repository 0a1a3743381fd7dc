package gracehttp

import (
	"net"
	"sync"
)

// handedOver is a listener for connections that another process has accepted.
//
// One that is watched is kept back until its next request begins: that costs less, and
// the server would take it for one that it has just accepted, and close it after
// ReadHeaderTimeout.
type handedOver struct {
	addr net.Addr
	drop func(net.Conn) // closes one that nobody serves
	kept closer         // what is kept back

	mu      sync.Mutex
	conns   []net.Conn
	changed chan struct{} // gets a value when conns or closed changes
	closed  bool
	served  chan struct{} // closed when serve has returned; nil before it is called
}

// closer is a keeper.
type closer interface{ close() }

// nothing is kept.
type nothing struct{}

func (nothing) close() {}

func newHandedOver(addr net.Addr) *handedOver {
	return &handedOver{
		addr:    addr,
		drop:    func(c net.Conn) { _ = c.Close() },
		kept:    nothing{},
		changed: make(chan struct{}, 1),
	}
}

// put makes Accept return c, and reports whether it will. The first call starts
// serve, which accepts; finish waits for it.
func (l *handedOver) put(c net.Conn, serve func()) bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.closed {
		return false
	}
	l.conns = append(l.conns, c)
	l.start(serve)
	l.wake()
	return true
}

// begin starts serve as put does, and reports whether l is open.
func (l *handedOver) begin(serve func()) bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	if !l.closed {
		l.start(serve)
	}
	return !l.closed
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
	l.closed = true
	l.wake()
	l.mu.Unlock()
	l.kept.close()
	return nil
}

// finish closes l and returns when the server knows all that was put.
func (l *handedOver) finish() {
	l.kept.close() // which may put more
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
