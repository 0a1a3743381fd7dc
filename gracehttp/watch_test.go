//go:build unix

package gracehttp

import (
	"errors"
	"net"
	"net/http"
	"os"
	"runtime"
	"slices"
	"sync"
	"syscall"
	"testing"
	"time"
)

const (
	someBody  = "POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 10\r\n\r\nhello"
	oldClient = "GET / HTTP/1.0\r\n\r\n"
)

type result struct {
	data string
	err  error
}

func (w *watch) moved() bool {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.gone
}

// reader reads once from c, and waits until it is at it.
func reader(c net.Conn) <-chan result {
	w, done := watchOf(c), make(chan result, 1)
	go func() {
		p := make([]byte, 1000)
		n, err := c.Read(p)
		done <- result{string(p[:n]), err}
	}()
	for {
		w.mu.Lock()
		reading := w.reading
		w.mu.Unlock()
		if reading || len(done) > 0 {
			return done
		}
		runtime.Gosched()
	}
}

// fakeSocket lets a test say what Read returns, and see the deadlines.
type fakeSocket struct {
	net.Conn
	reads chan result

	mu        sync.Mutex
	deadlines []time.Time
	closed    int
}

func (s *fakeSocket) Read(p []byte) (int, error) {
	r := <-s.reads
	return copy(p, r.data), r.err
}

func (s *fakeSocket) SetReadDeadline(d time.Time) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.deadlines = append(s.deadlines, d)
	return nil
}

func (s *fakeSocket) Close() error {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.closed++
	return nil
}

func (s *fakeSocket) SyscallConn() (syscall.RawConn, error) { return nil, errors.ErrUnsupported }

type fakeConn struct {
	net.Conn
	watch *watch
}

func (c fakeConn) Read(p []byte) (int, error) { return c.watch.read(p) }

func (c fakeConn) watched() *watch { return c.watch }

// A connection that is told to end does so between two requests, and not while one is on
// its way from Read to the server.
func TestEnd(t *testing.T) {
	woken := result{"", os.ErrDeadlineExceeded}
	s := &fakeSocket{reads: make(chan result, 1)}
	c := fakeConn{watch: &watch{socket: s, follows: true}}
	done := reader(c)
	for range 2 {
		if !c.watch.end() {
			t.Fatal("it can't end")
		}
	}
	s.reads <- result{aRequest, nil} // read before the deadline had passed
	if got, want := soon(t, done, "Read"), (result{aRequest, nil}); got != want {
		t.Fatalf("read %v, want %v", got, want)
	}
	if halfway, _ := c.watch.halfway(); !halfway || c.watch.moved() {
		t.Errorf("after the request: halfway is %t, gone %t", halfway, c.watch.moved())
	}
	c.watch.setState(http.StateActive)
	c.watch.setState(http.StateIdle)
	if got := soon(t, reader(c), "the next Read"); got != woken || !c.watch.moved() {
		t.Errorf("after the answer: read %v, gone %t", got, c.watch.moved())
	}
	if s.closed != 0 {
		t.Error("the socket is closed before the server does it") // which lingers
	}
}

func TestEndWakesRead(t *testing.T) {
	for _, network := range []string{"tcp", "unix"} {
		client, server := watchedPair(t, network)
		done := reader(server)
		watchOf(server).end()
		if got, want := soon(t, done, "Read"), (result{"", os.ErrDeadlineExceeded}); got != want {
			t.Errorf("%s: read %v, want %v", network, got, want)
		}
		_ = client
	}
}

// What has come before the connection is told to end is served.
func TestEndLeavesWhatHasCome(t *testing.T) {
	if runtime.GOOS != "linux" {
		return // only Linux tells
	}
	for _, network := range []string{"tcp", "unix"} {
		client, server := watchedPair(t, network)
		write(t, client, aRequest)
		arrived(t, watchOf(server))
		watchOf(server).end()
		if got, want := soon(t, reader(server), "Read"), (result{aRequest, nil}); got != want {
			t.Errorf("%s: read %v, want %v", network, got, want)
		}
	}
}

func TestEndIsNotFor(t *testing.T) {
	_, server := watchedPair(t, "tcp")
	w := watchOf(server)
	w.requests.Feed([]byte(oldClient))
	if w.end() {
		t.Error("a connection whose requests can't be followed ends by itself")
	}
	w.follows = false
	if w.end() || (*watch)(nil).end() {
		t.Error("a connection that is not followed ends by itself")
	}
}

// net/http takes a deadline away at several points of a request, whether there is one
// or not. What is not there is not set.
func TestDeadlineThatIsNotThere(t *testing.T) {
	s := &fakeSocket{}
	w := &watch{socket: s}
	someday, none := time.Unix(2e9, 0), time.Time{}
	for _, d := range []time.Time{none, someday, none, none, past, none} {
		if err := w.setReadDeadline(d); err != nil {
			t.Error(err)
		}
	}
	if want := []time.Time{someday, none, past, none}; !slices.Equal(s.deadlines, want) {
		t.Errorf("the deadlines were %v, want %v", s.deadlines, want)
	}
}

func TestKeeps(t *testing.T) {
	served := []http.ConnState{http.StateActive}
	tests := []struct {
		name        string
		read        string
		states      []http.ConnState
		set         func(w *watch)
		alone, heir bool // without an heir, and with one
	}{
		{"one request", aRequest, served, nil, false, true},
		{"two requests, one is served", aRequest + aRequest, served, nil, true, true},
		{"two requests, both were served", aRequest + aRequest, []http.ConnState{http.StateActive, http.StateIdle, http.StateActive}, nil, false, true},
		{"another has begun", aRequest + "G", served, nil, true, true},
		{"another has half a header", aRequest + "GET / HTTP/1.1\r\n", served, nil, true, true},
		{"half a body", someBody, served, nil, false, true},
		{"body", someBody + "hello", served, nil, false, true},
		{"body and another request", someBody + "hello" + aRequest, served, nil, true, true},
		{"HTTP/1.0", oldClient, served, nil, false, false},
		{"HTTP/1.0 after others", aRequest + aRequest + oldClient, served, nil, false, false},
		{"hijacked", aRequest, []http.ConnState{http.StateActive, http.StateHijacked}, nil, false, false},
		{"refused", aRequest, served, func(w *watch) { w.refused = true }, false, false},
		{"refused, and another has begun", aRequest + "G", served, func(w *watch) { w.refused = true }, true, true},
		{"not followed", aRequest + aRequest, served, func(w *watch) { w.follows = false }, false, false},
	}
	for _, tt := range tests {
		w := &watch{follows: true}
		w.requests.Feed([]byte(tt.read))
		for _, state := range tt.states {
			w.setState(state)
		}
		if tt.set != nil {
			tt.set(w)
		}
		if got := w.keeps(false); got != tt.alone {
			t.Errorf("%s: keeps is %t, want %t", tt.name, got, tt.alone)
		}
		if got := w.keeps(true); got != tt.heir {
			t.Errorf("%s: with an heir keeps is %t, want %t", tt.name, got, tt.heir)
		}
	}
}

func TestHalfway(t *testing.T) {
	tests := []struct {
		name    string
		read    string
		states  []http.ConnState
		halfway bool
		known   bool
	}{
		{"new", "", nil, false, true},
		{"one byte", "G", nil, true, true},
		{"half a header", "GET / HTTP/1.1\r\n", nil, true, true},
		{"read, not yet served", aRequest, nil, true, true},
		{"served", aRequest, []http.ConnState{http.StateActive}, false, true},
		{"served, and another has begun", aRequest + "G", []http.ConnState{http.StateActive}, true, true},
		{"served, and another was read", aRequest + aRequest, []http.ConnState{http.StateActive}, true, true},
		{"half a body", someBody, []http.ConnState{http.StateActive}, false, true},
		{"idle", aRequest, []http.ConnState{http.StateActive, http.StateIdle}, false, true},
		{"idle, and another was read", aRequest + aRequest, []http.ConnState{http.StateActive, http.StateIdle}, true, true},
		{"idle, and another has begun", aRequest + "G", []http.ConnState{http.StateActive, http.StateIdle}, true, true},
		{"hijacked", aRequest + "G", []http.ConnState{http.StateActive, http.StateHijacked}, false, true},
		{"lost", oldClient, nil, false, false},
	}
	for _, tt := range tests {
		_, server := watchedPair(t, "tcp")
		w := watchOf(server)
		w.requests.Feed([]byte(tt.read))
		for _, state := range tt.states {
			w.setState(state)
		}
		// What is not known counts for nothing.
		if got, known := w.halfway(); known != tt.known || known && got != tt.halfway {
			t.Errorf("%s: halfway is %t, known: %t, want %t, %t", tt.name, got, known, tt.halfway, tt.known)
		}
		w.follows = false
		if got, known := w.halfway(); got || known {
			t.Errorf("%s, not followed: halfway is %t, known: %t", tt.name, got, known)
		}
	}
	if got, known := (*watch)(nil).halfway(); got || known {
		t.Errorf("not watched: halfway is %t, known: %t", got, known)
	}
}

// arrived waits until something waits in the socket.
func arrived(t *testing.T, w *watch) {
	t.Helper()
	for end := time.Now().Add(testPatience); ; runtime.Gosched() {
		if halfway, known := w.halfway(); halfway && known {
			return
		}
		if time.Now().After(end) {
			t.Fatalf("%s: what has come is not seen", w.socket.LocalAddr().Network())
		}
	}
}

// What has come and was not read yet counts as well, where that is known.
func TestHalfwayOfUnread(t *testing.T) {
	if runtime.GOOS != "linux" {
		return // only Linux tells
	}
	for _, network := range []string{"tcp", "unix"} {
		client, server := watchedPair(t, network)
		w := watchOf(server)
		write(t, client, "G")
		arrived(t, w)
		w.setState(http.StateActive)
		if halfway, _ := w.halfway(); halfway {
			t.Errorf("%s: what a handler may read counts", network)
		}
	}
}

func TestWhenClosed(t *testing.T) {
	for _, network := range []string{"tcp", "unix"} {
		client, server := watchedPair(t, network)
		w := watchOf(server)
		closed := 0
		w.whenClosed(func() {
			closed++
			if w.moved() { // it may ask
				t.Error("it has moved")
			}
			if _, err := w.socket.Write([]byte("x")); !errors.Is(err, net.ErrClosed) {
				t.Errorf("%s: called before the end: %v", network, err)
			}
		})
		w.setState(http.StateHijacked)
		write(t, client, "hello")
		read(t, server, "hello")
		if closed != 0 {
			t.Errorf("%s: called before Close", network)
		}
		if err := server.Close(); err != nil || closed != 1 {
			t.Errorf("%s: Close: %v, called %d times", network, err, closed)
		}
		if err := server.Close(); !errors.Is(err, net.ErrClosed) || closed != 1 {
			t.Errorf("%s: the second Close: %v, called %d times", network, err, closed)
		}
	}
	_, server := watchedPair(t, "tcp")
	if err := server.Close(); err != nil { // nobody wants to know
		t.Error(err)
	}
	called := false
	watchOf(server).whenClosed(func() { called = true })
	if !called {
		t.Error("not called for a connection that is closed already")
	}
}
