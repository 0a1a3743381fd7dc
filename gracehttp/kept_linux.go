package gracehttp

import (
	"cmp"
	"errors"
	"log"
	"maps"
	"net"
	"os"
	"slices"
	"sync"
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	"github.com/facebookgo/grace/internal/handoff"
)

// keeper keeps connections of a server that were handed over, until their next request
// begins. Most of them may never see one, or go on to the next process before that, so
// one costs no more than its descriptor and an entry of an epoll instance: a connection
// of package net is made of it when something has come. One goroutine waits for that,
// from the first connection that is kept until close.
type keeper struct {
	server *server
	stop   chan struct{} // closed by close
	done   chan struct{} // closed when run has returned

	mu      sync.Mutex
	kept    map[int32]*kept // by number
	last    int32           // number that was given
	queue   []*kept         // those with a deadline, which comes in this order; some may be gone
	epoll   *os.File        // nil until the first is kept; the Go runtime waits for it, not a thread
	raw     syscall.RawConn // of epoll
	refuses bool            // nothing more is kept
	closed  bool
	passed  chan struct{} // closed when the goroutine of pass has returned; nil before pass
}

// kept is one connection.
type kept struct {
	descriptor *handoff.Descriptor
	number     int32 // a descriptor's number may be that of another connection later
	busy       bool  // the descriptor is of who has set this, otherwise of the keeper
	ready      bool  // something has come while busy
	late       bool  // the deadline has come while busy
	gone       bool  // not kept any more
	deadline   time.Time
}

func newKeeper(s *server) *keeper {
	return &keeper{
		server: s,
		stop:   make(chan struct{}),
		done:   make(chan struct{}),
		kept:   make(map[int32]*kept),
	}
}

// keep reports which of descriptors it keeps, and takes over.
func (k *keeper) keep(descriptors []*handoff.Descriptor) (taken []bool) {
	taken = make([]bool, len(descriptors))
	if !k.server.handed.begin(k.server.serveHanded) { // so that the server closes k
		return taken
	}
	k.mu.Lock()
	defer k.mu.Unlock()
	if k.closed || k.refuses || !k.open() {
		return taken
	}
	var deadline time.Time
	if d := k.server.idleTimeout(); d > 0 {
		deadline = time.Now().Add(d)
	}
	first := len(k.queue) == 0
	for i, d := range descriptors {
		c := &kept{descriptor: d, number: k.last + 1, deadline: deadline}
		if k.control(unix.EPOLL_CTL_ADD, c) != nil {
			continue
		}
		taken[i] = true
		k.last++
		k.kept[c.number] = c
		k.server.app.tracker.enter()
		if !deadline.IsZero() {
			k.queue = append(k.queue, c)
		}
	}
	if first && len(k.queue) > 0 {
		_ = k.epoll.SetReadDeadline(deadline)
	}
	return taken
}

// open opens the epoll instance, if it is not open, and reports whether it is. mu is held.
func (k *keeper) open() bool {
	if k.epoll != nil {
		return true
	}
	fd, err := unix.EpollCreate1(unix.EPOLL_CLOEXEC)
	if err != nil {
		return false
	}
	if unix.SetNonblock(fd, true) != nil { // os.NewFile asks for that
		_ = unix.Close(fd)
		return false
	}
	epoll := os.NewFile(uintptr(fd), "epoll")
	raw, err := epoll.SyscallConn()
	if err != nil || epoll.SetReadDeadline(time.Time{}) != nil {
		_ = epoll.Close() // the Go runtime can't wait for it
		return false
	}
	k.epoll, k.raw = epoll, raw
	go k.run()
	return true
}

// control does an operation of epoll_ctl for c, which is reported once. mu is held.
func (k *keeper) control(op int, c *kept) error {
	event := unix.EpollEvent{Events: unix.EPOLLIN | unix.EPOLLRDHUP | unix.EPOLLONESHOT, Fd: c.number}
	var failed, closed error
	err := k.raw.Control(func(epoll uintptr) {
		closed = c.descriptor.Control(func(fd uintptr) {
			failed = os.NewSyscallError("epoll_ctl", unix.EpollCtl(int(epoll), op, int(fd), &event))
		})
	})
	return cmp.Or(err, closed, failed)
}

// run serves what is ready, and drops what has reached its deadline, until close.
func (k *keeper) run() {
	defer close(k.done)
	events := make([]unix.EpollEvent, 128)
	var delay time.Duration
	for {
		n := 0
		wakened := k.raw.Read(func(epoll uintptr) bool {
			n = poll(epoll, events)
			return n > 0
		})
		if err := k.serve(events[:n]); err != nil {
			delay = min(max(2*delay, 5*time.Millisecond), time.Second) // as net/http, which can't accept then
			k.server.logf("gracehttp: connections that were handed over can't be served: %v; retrying in %v", err, delay)
			select {
			case <-k.stop:
			case <-time.After(delay):
			}
		} else if n > 0 {
			delay = 0
		}
		if wakened != nil && !(errors.Is(wakened, os.ErrDeadlineExceeded) && k.expire()) {
			break
		}
	}
	// What came before close is served, if it still can be.
	for n := 1; n > 0; {
		n = 0
		_ = k.raw.Control(func(epoll uintptr) { n = poll(epoll, events) })
		_ = k.serve(events[:n])
	}
	k.mu.Lock()
	defer k.mu.Unlock()
	k.closed = true
	for _, c := range k.kept {
		if !c.busy {
			k.drop(c)
		}
	}
	_ = k.epoll.Close()
}

// poll returns how many connections are ready, and does not wait for one.
func poll(epoll uintptr, events []unix.EpollEvent) int {
	for {
		if n, err := unix.EpollWait(int(epoll), events, 0); err != unix.EINTR {
			return max(n, 0)
		}
	}
}

// serve gives the server connections on which something has come. The error is what the
// system lacks to do so; those that it could not be done for are reported again.
func (k *keeper) serve(events []unix.EpollEvent) error {
	var all []*kept
	var descriptors []*handoff.Descriptor
	k.mu.Lock()
	for _, e := range events {
		c := k.kept[e.Fd]
		switch {
		case c == nil:
		case c.busy:
			c.ready = true
		default:
			c.busy = true
			// The socket stays open, and would stay in the epoll instance.
			_ = k.control(unix.EPOLL_CTL_DEL, c)
			all, descriptors = append(all, c), append(descriptors, c.descriptor)
		}
	}
	k.mu.Unlock()
	if len(all) == 0 {
		return nil
	}
	conns, err := handoff.Conns(descriptors)
	if !lacks(err) {
		err = nil // it is no connection, or has broken: it is dropped
	}
	for _, conn := range conns {
		if conn != nil {
			k.server.serveKept(conn) // before k forgets it: it always counts
		}
	}
	k.mu.Lock()
	defer k.mu.Unlock()
	for i, c := range all {
		switch {
		case conns[i] != nil:
			k.forget(c)
		case err == nil || k.control(unix.EPOLL_CTL_ADD, c) != nil:
			k.drop(c)
		default:
			k.back(c)
		}
	}
	return err
}

// logf writes to where net/http writes that it can't accept.
func (s *server) logf(format string, args ...any) {
	if s.http.ErrorLog != nil {
		s.http.ErrorLog.Printf(format, args...)
	} else {
		log.Printf(format, args...)
	}
}

// serveKept serves a connection that was kept and is counted.
func (s *server) serveKept(c net.Conn) {
	c = s.dress(c)
	known := s.app.tracker.adopt(s, c)
	if s.leaving.Load() {
		s.ask(known)
	}
	if !s.handed.put(c, s.serveHanded) {
		s.app.tracker.drop(c)
	}
}

// adopt makes a connection known that is counted already.
func (t *tracker) adopt(s *server, conn net.Conn) *tracked {
	c := &tracked{server: s, conn: conn, watch: watchOf(conn)}
	t.conns.Store(conn, c)
	return c
}

// lacks reports whether err is one that may not come again later.
func lacks(err error) bool {
	return errors.Is(err, unix.EMFILE) || errors.Is(err, unix.ENFILE) || errors.Is(err, unix.ENOBUFS) || errors.Is(err, unix.ENOMEM)
}

// expire drops what has reached its deadline. It returns false when k is closed.
func (k *keeper) expire() bool {
	k.mu.Lock()
	defer k.mu.Unlock()
	if k.closed {
		return false
	}
	now := time.Now()
	for len(k.queue) > 0 && (k.queue[0].gone || !k.queue[0].deadline.After(now)) {
		switch c := k.queue[0]; {
		case c.gone:
		case c.busy:
			c.late = true
		default:
			k.drop(c)
		}
		k.queue[0] = nil
		k.queue = k.queue[1:]
	}
	var next time.Time
	if len(k.queue) > 0 {
		next = k.queue[0].deadline
	}
	_ = k.epoll.SetReadDeadline(next)
	return true
}

// passedAtOnce is as many as go in one message. A request that comes meanwhile waits for
// the answer to that.
const passedAtOnce = 250

// pass gives send what is kept, and keeps what that does not report as taken. It does not
// wait for that: the other process may be frozen. The connections count as open until send
// has returned, and join waits for the rest. It is called once.
func (k *keeper) pass(send func([]syscall.Conn) (taken []bool)) {
	k.mu.Lock()
	defer k.mu.Unlock()
	all := slices.Collect(maps.Values(k.kept))
	if len(all) == 0 {
		return
	}
	k.passed = make(chan struct{})
	go func() {
		defer close(k.passed)
		for some := range slices.Chunk(all, passedAtOnce) {
			k.passSome(some, send)
		}
	}()
}

func (k *keeper) passSome(some []*kept, send func([]syscall.Conn) []bool) {
	k.mu.Lock()
	some = slices.DeleteFunc(some, func(c *kept) bool { return c.busy || c.gone || k.closed })
	conns := make([]syscall.Conn, len(some))
	for i, c := range some {
		c.busy = true
		conns[i] = c.descriptor
	}
	k.mu.Unlock()
	if len(conns) == 0 {
		return
	}
	taken := send(conns)
	k.mu.Lock()
	defer k.mu.Unlock()
	for i, c := range some {
		if taken[i] {
			k.drop(c) // not the connection, which the other process has
		} else {
			k.back(c)
		}
	}
}

// passing reports whether send of pass may still be called.
func (k *keeper) passing() bool {
	k.mu.Lock()
	defer k.mu.Unlock()
	if k.passed == nil {
		return false
	}
	select {
	case <-k.passed:
		return false
	default:
		return true
	}
}

// join waits for the goroutine of pass, when no connection counts as open any more: then
// it has nothing to send. Otherwise it ends with the other process.
func (k *keeper) join() {
	k.mu.Lock()
	passed := k.passed
	k.mu.Unlock()
	if passed != nil {
		<-passed
	}
}

// back ends what was busy with c, which stays. mu is held.
func (k *keeper) back(c *kept) {
	c.busy = false
	switch {
	case k.closed || c.late:
		k.drop(c)
	case c.ready:
		c.ready = false
		_ = k.control(unix.EPOLL_CTL_MOD, c) // reports it again
	}
}

// drop closes c. mu is held.
func (k *keeper) drop(c *kept) {
	_ = k.control(unix.EPOLL_CTL_DEL, c) // another process may keep it open
	c.descriptor.Close()
	k.forget(c)
	k.server.app.tracker.leave()
}

// forget is for what is closed, or the server's. mu is held.
func (k *keeper) forget(c *kept) {
	c.gone = true
	delete(k.kept, c.number)
}

// refuse ends keep for connections that come from now on.
func (k *keeper) refuse() {
	k.mu.Lock()
	defer k.mu.Unlock()
	k.refuses = true
}

// close gives the server what is ready and closes the rest, when that is not on its way
// elsewhere. Nothing is kept when it returns.
func (k *keeper) close() {
	k.mu.Lock()
	if !k.closed {
		k.closed = true
		close(k.stop)
		if k.epoll != nil {
			_ = k.epoll.SetReadDeadline(past) // wakes run
		}
	}
	runs := k.epoll != nil
	k.mu.Unlock()
	if runs {
		<-k.done
	}
}
