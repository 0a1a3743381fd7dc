package gracehttp

import (
	"crypto/tls"
	"net"
	"net/http"
	"sync"
	"sync/atomic"
	"time"

	"github.com/facebookgo/grace/internal/accept"
)

// tracker knows the connections of an app.
type tracker struct {
	closing atomic.Bool   // answers carry "Connection: close"
	open    atomic.Int64  // connections, hijacked ones only if they are waited for
	moved   atomic.Int64  // connections that the child has taken
	conns   sync.Map      // net.Conn to *tracked: those that are open
	none    chan struct{} // gets a value when open becomes 0
	abort   chan struct{} // closed when nothing is to be waited for any more
}

// tracked is one connection.
type tracked struct {
	server *server
	conn   net.Conn
	watch  *watch       // nil if the connection is as it was accepted
	state  atomic.Int32 // an http.ConnState
	idle   atomic.Int64 // when it became idle, if it did so while closing, in nanoseconds since 1970
	enters atomic.Bool  // it became active while closing, and no handler has begun since
}

type trackedKey struct{}

// connState follows the connections that ConnContext has made known.
func (s *server) connState(next func(net.Conn, http.ConnState)) func(net.Conn, http.ConnState) {
	t := &s.app.tracker
	return func(conn net.Conn, state http.ConnState) {
		var c *tracked
		if known, ok := t.conns.Load(conn); ok {
			c = known.(*tracked)
			c.setState(state, t.closing.Load())
		}
		if next != nil {
			next(conn, state)
		}
		if c == nil || state != http.StateClosed && state != http.StateHijacked {
			return
		}
		if state == http.StateHijacked && s.app.waitHijacked && c.watch != nil {
			c.watch.whenClosed(func() { t.forget(c) })
			return
		}
		t.forget(c)
	}
}

// add makes a connection known, if it is not.
func (t *tracker) add(s *server, conn net.Conn) *tracked {
	c, known := t.conns.LoadOrStore(conn, &tracked{server: s, conn: conn, watch: watchOf(conn)})
	if !known {
		t.enter()
	}
	return c.(*tracked)
}

// setState follows a state of net/http.
func (c *tracked) setState(state http.ConnState, closing bool) {
	if closing && state == http.StateIdle {
		c.idle.Store(time.Now().UnixNano())
	}
	c.enters.Store(closing && state == http.StateActive) // before halfway can miss it
	c.state.Store(int32(state))
	if c.watch != nil {
		c.watch.setState(state)
	}
}

// begins is called when a handler begins while closing. c may be nil, for a request that
// has not come from net/http.
func (c *tracked) begins() {
	if c != nil {
		c.enters.Store(false)
	}
}

// keeps reports whether the answer to the request that is served now must not close the
// connection. c may be nil.
func (c *tracked) keeps() bool {
	return c != nil && c.watch != nil && c.watch.keeps(c.server.heir.Load() != nil)
}

func (t *tracker) forget(c *tracked) {
	t.conns.Delete(c.conn)
	t.leave()
}

// enter counts a connection.
func (t *tracker) enter() { t.open.Add(1) }

// leave is the end of one that was counted.
func (t *tracker) leave() {
	if t.open.Add(-1) == 0 {
		select {
		case t.none <- struct{}{}:
		default:
		}
	}
}

// drop closes a connection that the server does not know.
func (t *tracker) drop(conn net.Conn) {
	_ = conn.Close()
	if c, known := t.conns.Load(conn); known {
		t.forget(c.(*tracked))
	}
}

// Connections implements grace.Counter: hijacked ones only if they are waited for.
func (a *app) Connections() int { return int(a.tracker.open.Load()) }

// wait waits until there is no connection, for timeout at most, and reports
// whether that is so.
func (t *tracker) wait(timeout time.Duration) bool {
	timer := time.NewTimer(timeout)
	defer timer.Stop()
	for t.open.Load() != 0 {
		select {
		case <-t.none:
		case <-timer.C:
			return t.open.Load() == 0
		case <-t.abort:
			return false
		}
	}
	return true
}

// all is an iterator over the connections.
func (t *tracker) all(yield func(*tracked) bool) {
	t.conns.Range(func(_, c any) bool { return yield(c.(*tracked)) })
}

// unsettled reports whether there is a connection that is to be handed over, one
// on which there is a request that no handler has begun with, or one that has not been
// idle for the time of grace: its last answer may have promised to keep it.
func (t *tracker) unsettled(grace time.Duration) bool {
	since := time.Now().Add(-grace).UnixNano()
	for c := range t.all {
		switch {
		case c.watch != nil && c.server.heir.Load() != nil && c.watch.mayMove(),
			c.idle.Load() > since && http.ConnState(c.state.Load()) == http.StateIdle,
			c.halfway(),
			c.enters.Load(): // or has just done so
			return true
		}
	}
	return false
}

// end makes the connections end that wait for a request and can do that by themselves,
// and reports whether it has found any.
func (t *tracker) end() (found bool) {
	for c := range t.all {
		found = c.waits() && c.watch.end() || found
	}
	return found
}

// ending reports whether there is a connection that is about to end by itself.
func (t *tracker) ending() bool {
	for c := range t.all {
		if c.watch.ending() {
			return true
		}
	}
	return false
}

// closeUnused closes the connections that have not sent a request.
// http.Server.Shutdown would wait five seconds for it.
func (t *tracker) closeUnused() {
	for c := range t.all {
		if http.ConnState(c.state.Load()) == http.StateNew && !c.watch.end() && c.unused() {
			_ = c.socket().Close()
		}
	}
}

// closeHijacked closes the hijacked connections that are waited for.
func (t *tracker) closeHijacked() {
	for c := range t.all {
		if http.ConnState(c.state.Load()) == http.StateHijacked {
			_ = c.socket().Close()
		}
	}
}

// socket is the connection below TLS.
func (c *tracked) socket() net.Conn {
	if t, ok := c.conn.(*tls.Conn); ok {
		return t.NetConn()
	}
	return c.conn
}

// waits reports whether the server serves no request.
func (c *tracked) waits() bool {
	state := http.ConnState(c.state.Load())
	return state == http.StateNew || state == http.StateIdle
}

// halfway reports whether a part of a request has come, as far as that is known.
func (c *tracked) halfway() bool {
	if halfway, known := c.watch.halfway(); known {
		return halfway
	}
	if !c.waits() {
		return false
	}
	if http.ConnState(c.state.Load()) == http.StateIdle && c.mayBeHTTP2() {
		return false // frames that are no request are not answered
	}
	if received, known := c.received(); known && received {
		return true
	}
	return accept.Queued(c.socket()) // what the server has read already is not seen
}

// unused reports whether no request has begun, if that is known.
func (c *tracked) unused() bool {
	received, known := c.received()
	return known && !received
}

// received reports whether something has come that was not answered, if that is
// known. In TLS 1.3 the end of the handshake is of that kind, and many clients keep
// connections for later, so before the first request it counts for settleTimeout.
func (c *tracked) received() (received, known bool) {
	received, ago, known := receivedAfterSent(c.socket())
	_, secure := c.conn.(*tls.Conn)
	if secure && http.ConnState(c.state.Load()) == http.StateNew && ago > settleTimeout {
		received = false
	}
	return received, known
}

// mayBeHTTP2 is for connections after their handshake.
func (c *tracked) mayBeHTTP2() bool {
	if t, ok := c.conn.(*tls.Conn); ok {
		return t.ConnectionState().NegotiatedProtocol == "h2"
	}
	return c.server.http.Protocols != nil && c.server.http.Protocols.UnencryptedHTTP2()
}
