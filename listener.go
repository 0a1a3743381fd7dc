package grace

import (
	"errors"
	"net"
	"os"
	"sync"
	"sync/atomic"
	"syscall"

	"github.com/facebookgo/grace/internal/accept"
	"github.com/facebookgo/grace/internal/handoff"
)

// ErrAlreadyClosed is returned by Accept of a [Listener] once Close has begun.
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

// NewListener wraps l so that Close returns only when all connections that were
// accepted through it have been closed.
//
// Close stops accepting first. Connections that wait in the kernel's queue at
// that moment are accepted before, unless another process of the service goes on
// accepting. Accept returns [ErrAlreadyClosed] from then on. Close may be called
// several times and from several goroutines; each call waits.
//
// The connections are *net.TCPConn or *net.UnixConn with another Close method:
// all their other methods are there. They count until the first call of Close.
func NewListener(l Listener) Listener {
	if l, ok := l.(*listener); ok {
		return l
	}
	closeInner := func(net.Listener) error { return handoff.This().Close(socket(l)) }
	return &listener{Listener: l, accept: accept.New(l, closeInner)}
}

type listener struct {
	Listener // as given to NewListener
	accept   *accept.Listener

	mu      sync.Mutex
	closing bool
	conns   sync.WaitGroup
	open    atomic.Int64 // connections
}

func (l *listener) Accept() (net.Conn, error) {
	// Count first: once Close waits for the connections, no more may appear.
	if !l.begin() {
		return nil, ErrAlreadyClosed
	}
	c, err := l.accept.Accept()
	if err != nil {
		l.conns.Done()
		if errors.Is(err, net.ErrClosed) {
			return nil, ErrAlreadyClosed
		}
		return nil, err
	}
	l.open.Add(1)
	switch c := c.(type) {
	case *net.TCPConn:
		return &tcpConn{c, closer{done: l.closed}}, nil
	case *net.UnixConn:
		return &unixConn{c, closer{done: l.closed}}, nil
	}
	return &otherConn{c, closer{done: l.closed}}, nil
}

// closed notes that a connection was closed.
func (l *listener) closed() {
	l.open.Add(-1)
	l.conns.Done()
}

func (l *listener) begin() bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.closing {
		return false
	}
	l.conns.Add(1)
	return true
}

func (l *listener) Close() error {
	err := l.accept.Finish(handoff.This().LastHolder(socket(l.Listener)))
	l.mu.Lock()
	l.closing = true
	l.mu.Unlock()
	l.conns.Wait()
	return err
}

// closer calls done at the first Close of a connection.
type closer struct {
	once sync.Once
	done func()
}

func (c *closer) close() { c.once.Do(c.done) }

type tcpConn struct {
	*net.TCPConn
	counted closer
}

func (c *tcpConn) Close() error {
	defer c.counted.close()
	return c.TCPConn.Close()
}

type unixConn struct {
	*net.UnixConn
	counted closer
}

func (c *unixConn) Close() error {
	defer c.counted.close()
	return c.UnixConn.Close()
}

type otherConn struct {
	net.Conn
	counted closer
}

func (c *otherConn) Close() error {
	defer c.counted.close()
	return c.Conn.Close()
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
