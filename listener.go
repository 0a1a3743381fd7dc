package grace

import (
	"context"
	"errors"
	"maps"
	"net"
	"os"
	"slices"
	"sync"
	"sync/atomic"
	"syscall"
	"time"

	"github.com/facebookgo/grace/internal/accept"
	"github.com/facebookgo/grace/internal/handoff"
)

// ErrAlreadyClosed is returned by Accept of a [Listener] once Close has begun, and by
// ReadFrom of a [PacketConn] when nothing more is to be read.
var ErrAlreadyClosed = errors.New("grace: already closed")

// A Listener can be drained and passed on to another process. [NewListener]
// makes one of a net.TCPListener or net.UnixListener.
type Listener interface {
	net.Listener

	// File returns a duplicate of the listener's descriptor, which the caller
	// closes. Closing it does not affect the listener. Its Fd method, and with
	// it os/exec, would set the listener to blocking mode; use SyscallConn.
	File() (*os.File, error)
}

// A Drainer is what [NewListener] returns: a Listener that tells what accepts on it
// when it drains, and drains for so long only.
type Drainer interface {
	Listener

	// SyscallConn gives access to the descriptor. What is done with it must leave
	// the non-blocking mode alone.
	syscall.Conn

	// SetDeadline is that of net.TCPListener: Accept returns an error that wraps
	// os.ErrDeadlineExceeded at t; the zero time means never. It holds across a
	// standby: if it passes meanwhile, Accept returns when the listener was taken
	// back. A listener that has no deadlines returns os.ErrNoDeadline.
	SetDeadline(t time.Time) error

	// Context is done when Close or Shutdown is called, and not before: the standby
	// may end with this process accepting again. The cause is ErrDraining.
	Context() context.Context

	// Shutdown is Close with a deadline. When ctx ends it closes the connections
	// that are left, so that their handlers come back, and returns the cause at
	// once.
	Shutdown(ctx context.Context) error
}

// NewListener wraps l so that Close returns only when all connections that were
// accepted through it have been closed. What it returns is a [Drainer], and what
// Accept returns is a [Conn].
//
// Close tells the handlers: the contexts of the listener and its connections are
// done. Then it stops accepting. Connections that wait in the kernel's queue at
// that moment are accepted before, unless another process of the service goes on
// accepting. Accept returns [ErrAlreadyClosed] from then on. Connections that are
// idle, as [Conn] describes, are closed after DefaultIdleGrace; all others are
// waited for. Close may be called several times and from several goroutines; each
// call waits.
//
// The connections are *net.TCPConn or *net.UnixConn with another Close method:
// all their other methods are there, and the kernel copies between them, and to and
// from files, where it does so for those types; but not between a unix connection
// of ours and a net.TCPConn of another origin. They count until the first call of
// Close.
func NewListener(l Listener) Listener {
	if l, ok := l.(*listener); ok {
		return l
	}
	closeInner := func(net.Listener) error { return handoff.This().Close(socket(l)) }
	drainer := &listener{
		Listener: l,
		accept:   accept.New(l, closeInner),
		made:     shared.drains.Load(),
		conns:    make(map[*counted]struct{}),
		none:     make(chan struct{}),
	}
	drainer.ctx, drainer.cancel = context.WithCancelCause(context.Background())
	return drainer
}

type listener struct {
	Listener // as given to NewListener
	accept   *accept.Listener
	made     int64 // engine.drains at that time

	ctx       context.Context // done when draining has begun
	cancel    context.CancelCauseFunc
	draining  atomic.Bool
	idleGrace time.Duration // set before draining is

	mu        sync.Mutex
	closing   bool // Accept returns ErrAlreadyClosed
	killed    bool // connections are closed as they come
	accepting int  // Accept calls that may add a connection
	conns     map[*counted]struct{}
	none      chan struct{} // closed when there is no connection, and can be none
}

func (l *listener) Accept() (net.Conn, error) {
	// Count first: once Close waits for the connections, no more may appear.
	if !l.begin() {
		return nil, ErrAlreadyClosed
	}
	c, err := l.accept.Accept()
	if err != nil {
		l.end(nil)
		if errors.Is(err, net.ErrClosed) {
			return nil, ErrAlreadyClosed
		}
		return nil, err
	}
	conn, counted := l.wrap(c)
	l.end(counted)
	return conn, nil
}

func (l *listener) holds() any                { return socket(l.Listener) }
func (l *listener) since() int64              { return l.made }
func (l *listener) pause(ctx context.Context) { l.accept.Pause(ctx, 0) }
func (l *listener) resume()                   { l.accept.Resume() }
func (l *listener) gone() <-chan struct{}     { return l.none }

func (l *listener) begin() bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	if !l.closing {
		l.accepting++
	}
	return !l.closing
}

// end is the end of an Accept that has accepted c, which may be nil.
func (l *listener) end(c *counted) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.accepting--
	if c != nil {
		l.conns[c] = struct{}{}
		if l.killed {
			c.kill()
		}
	}
	l.tellNone()
}

// remove notes that a connection was closed.
func (l *listener) remove(c *counted) {
	l.mu.Lock()
	defer l.mu.Unlock()
	delete(l.conns, c)
	l.tellNone()
}

// tellNone is called when something has changed. mu is held.
func (l *listener) tellNone() {
	if !l.closing || l.accepting+len(l.conns) != 0 {
		return
	}
	select {
	case <-l.none:
	default:
		close(l.none)
	}
}

// all returns the connections. mu must not be held when they are closed.
func (l *listener) all() []*counted {
	l.mu.Lock()
	defer l.mu.Unlock()
	return slices.Collect(maps.Keys(l.conns))
}

// open is how many connections there are.
func (l *listener) open() int {
	l.mu.Lock()
	defer l.mu.Unlock()
	return len(l.conns)
}

func (l *listener) Close() error { return l.Shutdown(context.Background()) }

func (l *listener) Context() context.Context { return l.ctx }

func (l *listener) Shutdown(ctx context.Context) error { return l.shutdown(ctx, DefaultIdleGrace) }

// shutdown is Shutdown with a time of grace for what is idle. That of the first
// call counts.
func (l *listener) shutdown(ctx context.Context, idleGrace time.Duration) error {
	l.tell(idleGrace)
	finished := make(chan error, 1)
	go func() { finished <- l.finish() }()
	var err error
	select {
	case err = <-finished:
	case <-ctx.Done():
		l.kill()
		return context.Cause(ctx)
	}
	select {
	case <-l.none:
		return err
	case <-ctx.Done():
		l.kill()
		return context.Cause(ctx)
	}
}

// tell begins the drain: handlers learn of it, and what is idle has its time of
// grace from now on.
func (l *listener) tell(idleGrace time.Duration) {
	l.mu.Lock()
	first := !l.draining.Load()
	if first {
		l.idleGrace = idleGrace
		l.draining.Store(true)
	}
	l.mu.Unlock()
	if !first {
		return
	}
	l.cancel(ErrDraining)
	for _, c := range l.all() {
		if c.idle.Load() {
			c.expireIn(idleGrace)
		}
	}
}

// finish ends accepting.
func (l *listener) finish() error {
	err := l.accept.Finish(handoff.This().LastHolder(socket(l.Listener)))
	l.mu.Lock()
	defer l.mu.Unlock()
	l.closing = true
	l.tellNone()
	return err
}

// kill closes the connections that are left, and those that are still accepted.
func (l *listener) kill() {
	l.mu.Lock()
	l.killed = true
	l.mu.Unlock()
	for _, c := range l.all() {
		c.kill()
	}
}

// SetDeadline implements Drainer.
func (l *listener) SetDeadline(t time.Time) error { return l.accept.SetDeadline(t) }

// SyscallConn implements syscall.Conn.
func (l *listener) SyscallConn() (syscall.RawConn, error) {
	return socket(l.Listener).(syscall.Conn).SyscallConn()
}

// socket is the listener whose descriptor is passed on for l.
func socket(l Listener) net.Listener {
	if l, ok := l.(*listener); ok {
		return socket(l.Listener)
	}
	if _, ok := l.(syscall.Conn); ok {
		return l
	}
	return filer{l}
}

// filer gives access to the descriptor of a Listener that has only File.
type filer struct{ Listener }

func (l filer) SyscallConn() (syscall.RawConn, error) { return rawFile(l), nil }

type rawFile filer

func (r rawFile) Control(f func(fd uintptr)) error {
	file, err := r.File()
	if err != nil {
		return err
	}
	defer file.Close()
	raw, err := file.SyscallConn()
	if err != nil {
		return err
	}
	return raw.Control(f)
}

func (r rawFile) Read(func(fd uintptr) bool) error  { return errors.ErrUnsupported }
func (r rawFile) Write(func(fd uintptr) bool) error { return errors.ErrUnsupported }
