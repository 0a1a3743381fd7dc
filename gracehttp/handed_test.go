package gracehttp

import (
	"errors"
	"fmt"
	"net"
	"net/http"
	"runtime"
	"sync"
	"testing"
)

// numbered is a connection that can be told from others.
type numbered struct {
	net.Conn
	n      int
	closed chan struct{}
}

func newNumbered(n int) *numbered { return &numbered{n: n, closed: make(chan struct{})} }

func (c *numbered) Close() error {
	close(c.closed) // twice is a panic
	return nil
}

func (c *numbered) isClosed() bool {
	select {
	case <-c.closed:
		return true
	default:
		return false
	}
}

func TestHandedOver(t *testing.T) {
	addr := &net.TCPAddr{Port: 80}
	l := newHandedOver(addr)
	if l.Addr() != addr {
		t.Errorf("the address is %v", l.Addr())
	}
	type accepted struct {
		conn net.Conn
		err  error
	}
	all := make(chan accepted)
	started := 0
	serve := func() {
		started++
		for {
			c, err := l.Accept()
			all <- accepted{c, err}
			if err != nil {
				return
			}
		}
	}
	const n = 40
	conns := make([]*numbered, n)
	next := -1 // the last one that was accepted
	for i := range conns {
		conns[i] = newNumbered(i)
		if !l.put(conns[i], serve) {
			t.Fatalf("connection %d is not taken", i)
		}
		for next < i && i >= n/4 && i < n/2 { // then Accept waits for the next one
			next++
			if a := soon(t, all, "a connection"); a.conn != conns[next] || a.err != nil {
				t.Errorf("accepted %v, %v, want connection %d", a.conn, a.err, next)
			}
		}
	}
	// What was put before Close is still accepted.
	if err := l.Close(); err != nil {
		t.Errorf("Close: %v", err)
	}
	if l.put(newNumbered(-1), serve) {
		t.Error("a connection is taken after Close")
	}
	finished := make(chan struct{})
	go func() {
		defer close(finished)
		l.finish()
	}()
	for j := next + 1; j < n; j++ {
		if a := soon(t, all, "a connection"); a.conn != conns[j] || a.err != nil {
			t.Errorf("accepted %v, %v, want connection %d", a.conn, a.err, j)
		}
	}
	select {
	case <-finished:
		t.Error("finish has returned before serve")
	default:
	}
	if a := soon(t, all, "the end"); a.conn != nil || !errors.Is(a.err, net.ErrClosed) {
		t.Errorf("accepted %v, %v, want net.ErrClosed", a.conn, a.err)
	}
	soon(t, finished, "finish")
	if started != 1 {
		t.Errorf("serve was called %d times", started)
	}
	for _, c := range conns {
		if c.isClosed() {
			t.Errorf("connection %d is closed", c.n)
		}
	}
	if l.put(newNumbered(-1), serve) {
		t.Error("a connection is taken after finish")
	}
	for range 2 { // and again
		if c, err := l.Accept(); c != nil || !errors.Is(err, net.ErrClosed) {
			t.Errorf("accepted %v, %v, want net.ErrClosed", c, err)
		}
		l.finish()
		_ = l.Close()
	}
}

// Where nothing was put there is nothing to wait for.
func TestHandedOverUnused(t *testing.T) {
	l := newHandedOver(nil)
	finished := make(chan struct{})
	go func() {
		defer close(finished)
		l.finish()
	}()
	soon(t, finished, "finish")
	if l.put(newNumbered(0), func() { t.Error("serve is called") }) {
		t.Error("a connection is taken")
	}
}

// Close wakes an Accept that waits.
func TestHandedOverCloseWakes(t *testing.T) {
	for range 100 { // wherever Accept is
		l := newHandedOver(nil)
		accepted := make(chan error, 1)
		go func() {
			_, err := l.Accept()
			accepted <- err
		}()
		runtime.Gosched()
		_ = l.Close()
		if err := soon(t, accepted, "Accept"); !errors.Is(err, net.ErrClosed) {
			t.Errorf("Accept: %v, want net.ErrClosed", err)
		}
	}
}

// A server may end before it has accepted all. What it does not know must not stay
// open for ever.
func TestHandedOverServeFails(t *testing.T) {
	l := newHandedOver(nil)
	returned := make(chan struct{})
	serve := func() {
		defer close(returned)
		_, _ = l.Accept()
	}
	conns := []*numbered{newNumbered(0), newNumbered(1), newNumbered(2)}
	for i, c := range conns {
		if !l.put(c, serve) {
			t.Fatalf("connection %d is not taken", i)
		}
		soon(t, returned, "serve")
	}
	l.finish()
	for i, c := range conns {
		if c.isClosed() != (i != 0) {
			t.Errorf("connection %d is closed: %t, the server knows the first alone", i, c.isClosed())
		}
	}
}

// Each connection that was taken is accepted, and no other, whenever Close comes.
func TestHandedOverTogether(t *testing.T) {
	for range 50 {
		l := newHandedOver(nil)
		var mu sync.Mutex
		got := make(map[net.Conn]int)
		serve := func() {
			for {
				c, err := l.Accept()
				if err != nil {
					return
				}
				mu.Lock()
				got[c]++
				mu.Unlock()
			}
		}
		const n = 8
		var all sync.WaitGroup
		taken := make([]*numbered, 0, n)
		for i := range n {
			all.Add(1)
			go func() {
				defer all.Done()
				c := newNumbered(i)
				if l.put(c, serve) {
					mu.Lock()
					taken = append(taken, c)
					mu.Unlock()
				}
				if i == n/2 {
					_ = l.Close()
				}
			}()
		}
		all.Wait()
		l.finish()
		if len(got) != len(taken) {
			t.Errorf("%d are taken, %d accepted", len(taken), len(got))
		}
		for _, c := range taken {
			if got[c] != 1 || c.isClosed() {
				t.Errorf("a connection was accepted %d times, is closed: %t", got[c], c.isClosed())
			}
		}
	}
}

// It is a listener for http.Server, and a real connection is served.
func TestHandedOverServes(t *testing.T) {
	l := newHandedOver(newListener(t).Addr())
	client, conn := tcpPair(t)
	server := &http.Server{Handler: http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) { fmt.Fprint(w, "served") })}
	defer server.Close()
	if !l.put(conn, func() { _ = server.Serve(l) }) {
		t.Fatal("not taken")
	}
	l.finish() // the server knows it
	if got := request(t, client); got != "served" {
		t.Errorf("answer %q", got)
	}
	// http.Server.Close closes the listener, and leaves nothing.
	finished := make(chan struct{})
	other := newHandedOver(nil)
	waiting := newNumbered(0)
	if !other.put(waiting, func() { _ = (&http.Server{}).Close() }) {
		t.Fatal("not taken")
	}
	go func() {
		defer close(finished)
		other.finish()
	}()
	soon(t, finished, "finish")
	if !waiting.isClosed() {
		t.Error("a connection that nobody has accepted is open")
	}
}
