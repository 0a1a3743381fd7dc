package grace

import (
	"context"
	"errors"
	"net"
	"net/netip"
	"os"
	"sync"
	"syscall"
	"time"

	"github.com/facebookgo/grace/internal/accept"
	"github.com/facebookgo/grace/internal/handoff"
)

// A PacketConn is a datagram socket that is passed on: one of gracenet, in
// [Process.PacketConns]. Both processes have the same socket, so that nothing that
// waits in it is lost; but only one of them reads at a time. The old process reads
// until the new one has called CloseParent, and again if that dies during the standby.
// The new one begins when the old one has stopped. What a process has read it can
// answer for as long as it lives, since both may write. If it stops and nobody follows,
// what has come by then is read before the end.
//
// It has the methods of net.PacketConn, and those of net.UDPConn that allocate
// nothing. Protocols with connections, such as QUIC, need [PacketConn.Forward].
type PacketConn struct {
	conn net.PacketConn
	made int64 // engine.drains at that time
	gate accept.Gate
	turn <-chan struct{} // closed when no process before this one reads

	ctx    context.Context // done when draining has begun
	cancel context.CancelCauseFunc

	close  sync.Once
	closed chan struct{} // closed by Close

	forward *forward // nil if packets are not forwarded
}

// NewPacketConn wraps c. It must not be read from in any other way.
func NewPacketConn(c net.PacketConn) *PacketConn {
	p := &PacketConn{conn: c, made: shared.drains.Load(), closed: make(chan struct{}), turn: handoff.This().Turn(c)}
	wake := func() error { return c.SetReadDeadline(time.Unix(1, 0)) } // writing goes on
	p.gate = accept.NewGate(c.SetReadDeadline, func() bool { return accept.Queued(c) }, wake)
	p.ctx, p.cancel = context.WithCancelCause(context.Background())
	return p
}

// Context is done when draining has begun: when the standby is over, or this process
// was told to stop. The cause is [ErrDraining].
func (c *PacketConn) Context() context.Context { return c.ctx }

// ReadFrom is that of net.PacketConn. It waits while this process stands by, or is not
// ready yet. After the drain has begun it returns what has come already, if no other process follows, and
// [ErrAlreadyClosed] from then on: time to finish what was begun, and to call Close,
// which Wait waits for.
func (c *PacketConn) ReadFrom(b []byte) (n int, from net.Addr, err error) {
	if c.forward != nil {
		n, addr, err := c.forward.read(b)
		if err != nil {
			return 0, nil, err
		}
		return n, net.UDPAddrFromAddrPort(addr), nil
	}
	for {
		if !c.enter() {
			return 0, nil, ErrAlreadyClosed
		}
		n, from, err = c.conn.ReadFrom(b)
		if !c.gate.Leave(err) {
			return n, from, c.readError(err)
		}
	}
}

// ReadFromUDPAddrPort is ReadFrom for UDP, without an allocation.
func (c *PacketConn) ReadFromUDPAddrPort(b []byte) (n int, from netip.AddrPort, err error) {
	if c.forward != nil {
		return c.forward.read(b)
	}
	udp, ok := c.conn.(*net.UDPConn)
	if !ok {
		return 0, netip.AddrPort{}, errNotUDP
	}
	for {
		if !c.enter() {
			return 0, netip.AddrPort{}, ErrAlreadyClosed
		}
		n, from, err = udp.ReadFromUDPAddrPort(b)
		if !c.gate.Leave(err) {
			return n, from, c.readError(err)
		}
	}
}

// enter waits until this process may read. It returns false if it may not any more.
func (c *PacketConn) enter() bool {
	select {
	case <-c.turn:
	default:
		select {
		case <-c.turn:
		case <-c.ctx.Done():
		case <-c.closed:
		}
	}
	return c.gate.Enter()
}

var errNotUDP = errors.New("grace: this is no UDP socket")

func (c *PacketConn) readError(err error) error {
	if errors.Is(err, net.ErrClosed) {
		return ErrAlreadyClosed
	}
	return err
}

// WriteTo is that of net.PacketConn. It works until Close, whatever has become of
// reading.
func (c *PacketConn) WriteTo(b []byte, to net.Addr) (int, error) { return c.conn.WriteTo(b, to) }

// WriteToUDPAddrPort is WriteTo for UDP, without an allocation.
func (c *PacketConn) WriteToUDPAddrPort(b []byte, to netip.AddrPort) (int, error) {
	udp, ok := c.conn.(*net.UDPConn)
	if !ok {
		return 0, errNotUDP
	}
	return udp.WriteToUDPAddrPort(b, to)
}

// Close ends this process's part in the socket. What waits in it is for the process
// that follows.
func (c *PacketConn) Close() error {
	_ = c.gate.Close() // whose readers end as those of a drained one do
	err := net.ErrClosed
	c.close.Do(func() {
		err = c.conn.Close()
		close(c.closed)
		if c.forward != nil {
			c.forward.end()
		}
	})
	return err
}

// LocalAddr is that of net.PacketConn.
func (c *PacketConn) LocalAddr() net.Addr { return c.conn.LocalAddr() }

// SetReadDeadline is that of net.PacketConn. Without Forward it has no effect while
// ReadFrom waits because another process reads.
func (c *PacketConn) SetReadDeadline(t time.Time) error {
	if c.forward != nil {
		c.forward.setDeadline(t)
		return nil
	}
	return c.gate.SetDeadline(t)
}

// SetWriteDeadline is that of net.PacketConn.
func (c *PacketConn) SetWriteDeadline(t time.Time) error { return c.conn.SetWriteDeadline(t) }

// SetDeadline is that of net.PacketConn.
func (c *PacketConn) SetDeadline(t time.Time) error {
	return errors.Join(c.SetReadDeadline(t), c.SetWriteDeadline(t))
}

// SetReadBuffer is that of net.UDPConn.
func (c *PacketConn) SetReadBuffer(bytes int) error {
	if b, ok := c.conn.(interface{ SetReadBuffer(int) error }); ok {
		return b.SetReadBuffer(bytes)
	}
	return errors.ErrUnsupported
}

// SetWriteBuffer is that of net.UDPConn.
func (c *PacketConn) SetWriteBuffer(bytes int) error {
	if b, ok := c.conn.(interface{ SetWriteBuffer(int) error }); ok {
		return b.SetWriteBuffer(bytes)
	}
	return errors.ErrUnsupported
}

// SyscallConn gives access to the descriptor, for the options of the socket. It must
// not be read from, since nothing would hold that back, and must stay non-blocking.
func (c *PacketConn) SyscallConn() (syscall.RawConn, error) {
	if s, ok := c.conn.(syscall.Conn); ok {
		return s.SyscallConn()
	}
	return nil, errors.ErrUnsupported
}

// File returns a duplicate of the descriptor, as [Listener] describes.
func (c *PacketConn) File() (*os.File, error) {
	if f, ok := c.conn.(interface{ File() (*os.File, error) }); ok {
		return f.File()
	}
	return nil, errors.ErrUnsupported
}

func (c *PacketConn) holds() any { return c.conn }

func (c *PacketConn) since() int64 { return c.made }

// pause implements drained. Who reads in several goroutines may have read in each.
func (c *PacketConn) pause(ctx context.Context) { c.gate.Pause(ctx, 0) }

func (c *PacketConn) resume() { c.gate.Resume() }

func (c *PacketConn) gone() <-chan struct{} { return c.closed }

func (c *PacketConn) open() int { return 0 } // nobody knows

func (c *PacketConn) kill() { _ = c.Close() }

// shutdown ends reading, and waits for Close.
func (c *PacketConn) shutdown(ctx context.Context, _ time.Duration) error {
	c.cancel(ErrDraining)
	last := handoff.This().LastHolder(c.conn)
	if c.forward == nil || !last { // or else connections go on
		_ = c.gate.Finish(last)
	}
	select {
	case <-c.closed:
		return nil
	case <-ctx.Done():
		return context.Cause(ctx)
	}
}
