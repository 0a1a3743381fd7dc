// Package accept can stop accepting connections on a listener and take it up
// again, without closing it in between. Its Gate does the same for other calls.
package accept

import (
	"net"
	"time"
)

// Listener is a listener that can be paused. It hands out the connections as
// they come, without a wrapper.
type Listener struct {
	net.Listener // the one that is served
	Gate
}

// New makes a Listener of l, which is closed by closeInner. Without SetDeadline, which
// net.TCPListener and net.UnixListener have, it can't be paused.
func New(l net.Listener, closeInner func(net.Listener) error) *Listener {
	var setDeadline func(time.Time) error
	if d, ok := l.(interface{ SetDeadline(time.Time) error }); ok {
		setDeadline = d.SetDeadline
	}
	return &Listener{
		Listener: l,
		Gate:     NewGate(setDeadline, func() bool { return Queued(l) }, func() error { return closeInner(l) }),
	}
}

// Accept waits for the next connection. It returns net.ErrClosed after Close,
// and blocks while the listener is paused.
func (l *Listener) Accept() (net.Conn, error) {
	for {
		if !l.Enter() {
			return nil, net.ErrClosed
		}
		c, err := l.Listener.Accept()
		if !l.Leave(err) {
			return c, err
		}
	}
}

// Close closes the listener. Calls after the first return the same.
func (l *Listener) Close() error { return l.Gate.Close() }
