package grace

import (
	"context"
	"errors"
	"io"
	"net"
	"sync"
	"sync/atomic"
	"time"
)

// How a connection learns of the drain, and how an idle one comes to its end.

// ErrDraining is the cause of the end of [Conn.Context], [Drainer.Context] and
// [PacketConn.Context].
var ErrDraining = errors.New("grace: draining")

// A Conn is what Accept of a listener of [NewListener] returns. Below TLS it is
// what NetConn of a tls.Conn returns.
type Conn interface {
	net.Conn

	// Context is done when draining has begun: when Close or Shutdown of the
	// listener is called, which Wait does when the standby is over or this process
	// was told to stop. It is not done during the standby, since that may end with
	// the death of the child. The cause is ErrDraining. It is done when the
	// connection is closed, too, with the cause net.ErrClosed.
	//
	// A handler should come to an end then: say goodbye, if the protocol has a way
	// to, and close the connection when it has answered what it got before.
	Context() context.Context

	// SetIdle tells whether the handler waits for the next request, with nothing
	// of it received yet, so that the connection may be closed. It allocates
	// nothing before draining begins. The first byte that Read returns ends
	// idleness as SetIdle(false) does, and so does io.Copy from the connection.
	//
	// During the drain a connection that stays idle for the time of grace (see
	// Process.IdleGrace) gets an end of file on the reading side, as if the peer had
	// closed it. Bytes that had come by then are read before that, and can be
	// answered. One whose handler does not close it within a second is closed.
	//
	// A request can still be lost if the peer sends it after that and before it
	// learns that the connection is closed, as with any server that closes idle
	// connections. A protocol with a goodbye avoids it: the handler sends it when
	// Context is done, and goes on answering until the peer, who sends nothing new
	// after the goodbye, closes the connection. That takes a round trip, which the
	// time of grace must exceed.
	SetIdle(idle bool)
}

// counted is what the types of connections have in common.
type counted struct {
	listener *listener
	socket   net.Conn // without Close of ours
	idle     atomic.Bool

	mu     sync.Mutex
	closed bool // counts no more
	hungUp bool // the reading side has ended
	ctx    context.Context
	cancel context.CancelCauseFunc // both nil until somebody asks
	timer  *time.Timer             // nil unless the connection was idle while draining
}

func (c *counted) Context() context.Context {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.ctx == nil {
		c.ctx, c.cancel = context.WithCancelCause(c.listener.ctx)
		if c.closed {
			c.cancel(net.ErrClosed)
		}
	}
	return c.ctx
}

func (c *counted) SetIdle(idle bool) {
	if !idle {
		c.busy()
		return
	}
	// The drain looks in the opposite order: one of the two sees the other.
	if !c.idle.Swap(true) && c.listener.draining.Load() {
		c.expireIn(c.listener.idleGrace)
	}
}

func (c *counted) busy() {
	if c.idle.Load() { // cheaper than to store
		c.idle.Store(false)
	}
}

// received is for what a reading method returns.
func (c *counted) received(n int) {
	if n > 0 {
		c.busy()
	}
}

const (
	// lookAgain is when to look after an idle connection in which bytes wait.
	lookAgain = 10 * time.Millisecond
	// comeBack is how long handlers have to close a connection that has ended.
	comeBack = time.Second
)

// expireIn ends the connection if it is idle after d.
func (c *counted) expireIn(d time.Duration) {
	c.mu.Lock()
	defer c.mu.Unlock()
	switch {
	case c.closed:
	case c.timer == nil:
		c.timer = time.AfterFunc(d, c.expire)
	default:
		c.timer.Reset(d)
	}
}

// expire ends the connection if it is idle, without cutting a request that has
// come: the kernel delivers what is in its queue before the end of file.
func (c *counted) expire() {
	if !c.idle.Load() {
		return // SetIdle starts the time anew
	}
	if unread(c.socket) {
		c.expireIn(lookAgain) // the handler is about to read it
		return
	}
	c.mu.Lock()
	again := c.hungUp
	c.hungUp = true
	c.mu.Unlock()
	if !again && hangUp(c.socket) {
		c.expireIn(comeBack)
		return
	}
	_ = c.socket.Close()
	c.forget()
}

// kill closes the connection. It counts until the handler closes it, too.
func (c *counted) kill() { _ = c.socket.Close() }

// forget is for the first Close.
func (c *counted) forget() {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.closed {
		return
	}
	c.closed = true
	if c.timer != nil {
		c.timer.Stop()
	}
	if c.cancel != nil {
		c.cancel(net.ErrClosed)
	}
	c.listener.remove(c)
}

// wrap makes a connection of l of one that was accepted.
func (l *listener) wrap(c net.Conn) (net.Conn, *counted) {
	switch c := c.(type) {
	case *net.TCPConn:
		t := &tcpConn{TCPConn: c, counted: counted{listener: l, socket: c}}
		return t, &t.counted
	case *net.UnixConn:
		u := &unixConn{UnixConn: c, counted: counted{listener: l, socket: c}}
		return u, &u.counted
	}
	o := &otherConn{Conn: c, counted: counted{listener: l, socket: c}}
	return o, &o.counted
}

type tcpConn struct {
	*net.TCPConn
	counted
}

func (c *tcpConn) Close() error {
	defer c.forget()
	return c.TCPConn.Close()
}

func (c *tcpConn) Read(b []byte) (int, error) {
	n, err := c.TCPConn.Read(b)
	c.received(n)
	return n, err
}

// ReadFrom lets package net know what it copies from, so that the kernel does the
// copying.
func (c *tcpConn) ReadFrom(r io.Reader) (int64, error) {
	limited, ok := r.(*io.LimitedReader)
	if !ok {
		return c.TCPConn.ReadFrom(bare(r))
	}
	r, limited.R = limited.R, bare(limited.R)
	defer func() { limited.R = r }()
	return c.TCPConn.ReadFrom(limited)
}

// WriteTo does so with what it copies to.
func (c *tcpConn) WriteTo(w io.Writer) (int64, error) {
	c.busy()
	if u, ok := w.(*unixConn); ok {
		w = u.UnixConn
	}
	return c.TCPConn.WriteTo(w)
}

// bare is the connection of package net that is in r, or else r.
func bare(r io.Reader) io.Reader {
	switch c := r.(type) {
	case *tcpConn:
		c.busy()
		return c.TCPConn
	case *unixConn:
		c.busy()
		return c.UnixConn
	}
	return r
}

type unixConn struct {
	*net.UnixConn
	counted
}

func (c *unixConn) Close() error {
	defer c.forget()
	return c.UnixConn.Close()
}

func (c *unixConn) Read(b []byte) (int, error) {
	n, err := c.UnixConn.Read(b)
	c.received(n)
	return n, err
}

func (c *unixConn) ReadMsgUnix(b, oob []byte) (n, oobn, flags int, addr *net.UnixAddr, err error) {
	n, oobn, flags, addr, err = c.UnixConn.ReadMsgUnix(b, oob)
	c.received(n)
	return n, oobn, flags, addr, err
}

type otherConn struct {
	net.Conn
	counted
}

func (c *otherConn) Close() error {
	defer c.forget()
	return c.Conn.Close()
}

func (c *otherConn) Read(b []byte) (int, error) {
	n, err := c.Conn.Read(b)
	c.received(n)
	return n, err
}
