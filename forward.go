package grace

import (
	"errors"
	"net"
	"net/netip"
	"os"
	"sync"
	"syscall"
	"time"

	"github.com/facebookgo/grace/internal/handoff"
)

// Protocols with connections over datagrams. The new process reads the socket, and
// gets packets of connections that the old one has. Those it passes on, and the old
// one reads them as if they had come from the socket.

// Forward makes this process pass packets of connections that it does not have to the
// process before it, for as long as that lives: it stands by, or drains and finishes
// its connections. mine reports whether a packet belongs to this process; it must know
// that from the packet alone, for instance by a byte of the connection ID that stands
// for the generation ([Generation]), and must be quick. What belongs to nobody any more
// is read here. The process before must have called Forward, too.
//
// It must be called before the first read and before CloseParent, for a UDP socket of
// gracenet, and on Linux; elsewhere it returns an error that wraps
// errors.ErrUnsupported. From then on:
//
//   - Reading goes on during the drain, until Close: of packets that the next process
//     forwards, or of all if none follows. Context tells that the drain has begun; then
//     no new connections should be accepted, and Close be called when the last one has
//     ended.
//   - Packets are copied once more. They are dropped, as the network does, while 256
//     of them wait for a process before that takes none.
//   - A chain of processes that all drain forwards along the chain. If one in the
//     middle has ended, those before it get nothing any more.
//
// Where KeepPID is on, the process that is executed anew does not forward.
func (c *PacketConn) Forward(mine func(packet []byte, from netip.AddrPort) bool) error {
	udp, ok := c.conn.(*net.UDPConn)
	if !ok {
		return errNotUDP
	}
	f := &forward{
		conn:  c,
		udp:   udp,
		mine:  mine,
		queue: make(chan *packet, 64),
		moved: make(chan struct{}),
		out:   make(chan *packet, 256),
		gone:  make(chan struct{}),
		done:  make(chan struct{}),
	}
	h := handoff.This()
	if err := h.OfferLink(udp, f.serveChild); err != nil {
		return err
	}
	if f.parent = h.Link(udp); f.parent == nil {
		close(f.gone)
	} else {
		go f.send() // ends with the process before, or with Close
	}
	c.forward = f
	return nil
}

// Generation is 1 for a process that took over from no other, and one more than that
// of its parent for a child.
func Generation() int { return handoff.This().Generation() }

// forward is what a PacketConn with Forward reads from.
type forward struct {
	conn *PacketConn
	udp  *net.UDPConn
	mine func([]byte, netip.AddrPort) bool

	pumping sync.Once
	unused  sync.Pool     // of *packet, or each packet would allocate
	queue   chan *packet  // to be read
	done    chan struct{} // closed by end

	parent net.Conn      // to the process before; nil if there is none
	out    chan *packet  // for it, with the address of the sender in data
	gone   chan struct{} // closed when it has gone

	mu       sync.Mutex
	deadline time.Time
	moved    chan struct{} // closed when deadline changes
}

// packet is a packet that waits to be read.
type packet struct {
	data []byte
	from netip.AddrPort
}

// maxPacket is the largest packet of UDP.
const maxPacket = 1 << 16

// read is ReadFrom.
func (f *forward) read(b []byte) (int, netip.AddrPort, error) {
	f.pumping.Do(func() { go f.pump() }) // ends with the gate, or with Close
	for {
		f.mu.Lock()
		deadline, moved := f.deadline, f.moved
		f.mu.Unlock()
		var timeout <-chan time.Time
		if !deadline.IsZero() {
			d := time.Until(deadline)
			if d <= 0 {
				return 0, netip.AddrPort{}, os.ErrDeadlineExceeded
			}
			timer := time.NewTimer(d)
			defer timer.Stop()
			timeout = timer.C
		}
		select {
		case p := <-f.queue:
			n, from := copy(b, p.data), p.from
			f.unused.Put(p)
			return n, from, nil
		case <-f.done:
			return 0, netip.AddrPort{}, ErrAlreadyClosed
		case <-timeout:
		case <-moved:
		}
	}
}

func (f *forward) setDeadline(t time.Time) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.deadline = t
	close(f.moved)
	f.moved = make(chan struct{})
}

// end is Close.
func (f *forward) end() {
	close(f.done)
	if f.parent != nil {
		_ = f.parent.Close() // send may wait in Write
	}
}

// pump reads the socket.
func (f *forward) pump() {
	b := make([]byte, maxPacket)
	for {
		if !f.conn.enter() {
			return
		}
		n, from, err := f.udp.ReadFromUDPAddrPort(b)
		if f.conn.gate.Leave(err) {
			continue
		}
		if errors.Is(err, net.ErrClosed) {
			return
		}
		if err == nil { // others are about packets that were sent
			f.dispatch(b[:n], from)
		}
	}
}

// serveChild reads what a child forwards, until its end.
func (f *forward) serveChild(link net.Conn) {
	defer link.Close()
	stop := make(chan struct{})
	defer close(stop)
	go func() { // ends with the link, or with us
		select {
		case <-f.done:
			_ = link.Close()
		case <-stop:
		}
	}()
	b := make([]byte, maxHeader+maxPacket)
	for {
		n, err := link.Read(b)
		if err != nil || n == 0 {
			return
		}
		if data, from, ok := parseForwarded(b[:n]); ok {
			f.dispatch(data, from)
		}
	}
}

// dispatch gives a packet to whom it belongs.
func (f *forward) dispatch(data []byte, from netip.AddrPort) {
	if f.mine(data, from) || !f.pass(data, from) {
		f.keep(data, from)
	}
}

// newPacket returns a packet without data.
func (f *forward) newPacket() *packet {
	if p, ok := f.unused.Get().(*packet); ok {
		p.data = p.data[:0]
		return p
	}
	return new(packet)
}

// keep lets a packet be read here.
func (f *forward) keep(data []byte, from netip.AddrPort) {
	p := f.newPacket()
	p.data, p.from = append(p.data, data...), from
	select {
	case f.queue <- p:
	case <-f.done:
	}
}

// pass gives a packet to the process before, and reports whether there is one. It does
// not wait: a process that takes nothing any more must not hold up the others.
func (f *forward) pass(data []byte, from netip.AddrPort) bool {
	select {
	case <-f.gone:
		return false
	default:
	}
	p := f.newPacket()
	p.data = appendForwarded(p.data, data, from)
	select {
	case f.out <- p:
	default: // dropped
		f.unused.Put(p)
	}
	return true
}

// send sends what pass gives.
func (f *forward) send() {
	defer f.parent.Close()
	for {
		select {
		case p := <-f.out:
			_, err := f.parent.Write(p.data)
			if err != nil && !errors.Is(err, syscall.EMSGSIZE) {
				close(f.gone)
				f.takeBack(p)
				return
			}
			f.unused.Put(p)
		case <-f.done:
			return
		}
	}
}

// takeBack reads here what was for a process that has gone, from p on.
func (f *forward) takeBack(p *packet) {
	for {
		if data, from, ok := parseForwarded(p.data); ok {
			f.keep(data, from)
		}
		select {
		case p = <-f.out:
		default:
			return
		}
	}
}

// A forwarded packet is the length of the sender's address in one byte, the address
// as netip.AddrPort marshals it, and the data.

const maxHeader = 1 + 255

func appendForwarded(b, data []byte, from netip.AddrPort) []byte {
	b = append(b, 0)
	b, _ = from.AppendBinary(b)
	b[0] = byte(len(b) - 1)
	return append(b, data...)
}

func parseForwarded(b []byte) (data []byte, from netip.AddrPort, ok bool) {
	if len(b) == 0 || len(b) < 1+int(b[0]) {
		return nil, from, false
	}
	data = b[1+int(b[0]):]
	return data, from, from.UnmarshalBinary(b[1:1+int(b[0])]) == nil
}
