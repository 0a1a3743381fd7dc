//go:build unix

package gracehttp

import (
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"runtime"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/facebookgo/grace/internal/handoff"
)

// states counts what ConnState of a server is told.
type states struct {
	mu sync.Mutex
	n  map[http.ConnState]int
}

func (s *states) count(state http.ConnState) int {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.n[state]
}

// heir is a server that takes connections over, and what it knows of them.
func heir(t *testing.T, configure func(*http.Server)) (*server, *states) {
	t.Helper()
	known := &states{n: make(map[http.ConnState]int)}
	s := prepareServer(t, "tcp", func(s *http.Server) {
		s.Handler = http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) { fmt.Fprint(w, "served") })
		s.ConnState = func(_ net.Conn, state http.ConnState) {
			known.mu.Lock()
			defer known.mu.Unlock()
			known.n[state]++
		}
		if configure != nil {
			configure(s)
		}
	})
	return s, known
}

// taken gives s one end of a connection.
func taken(t *testing.T, s *server) (client net.Conn) {
	t.Helper()
	client, ok := offered(t, s)
	if !ok {
		t.Fatal("not taken")
	}
	return client
}

// offered reports whether s takes one end of a connection. If not, that is closed.
func offered(t *testing.T, s *server) (client net.Conn, taken bool) {
	t.Helper()
	client, conn := tcpPair(t)
	d := descriptorOf(t, conn)
	_ = conn.Close()
	if taken = s.takeConns([]*handoff.Descriptor{d})[0]; !taken {
		d.Close()
	}
	return client, taken
}

// over waits for the end of a connection.
func over(t *testing.T, client net.Conn) {
	t.Helper()
	if n, err := client.Read(make([]byte, 1)); n != 0 || !errors.Is(err, io.EOF) {
		t.Errorf("read %d, %v, want the end", n, err)
	}
}

// counts waits until s counts n connections.
func counts(t *testing.T, s *server, n int64) {
	t.Helper()
	for end := time.Now().Add(testPatience); s.app.tracker.open.Load() != n; runtime.Gosched() {
		if time.Now().After(end) {
			t.Fatalf("%d connections are open, want %d", s.app.tracker.open.Load(), n)
		}
	}
}

// The server learns of a connection when a request comes. Until then it is one of
// those that are open.
func TestHandedOverIsKept(t *testing.T) {
	s, known := heir(t, nil)
	first, second := taken(t, s), taken(t, s)
	counts(t, s, 2)
	for range 2 {
		if got := request(t, second); got != "served" {
			t.Errorf("answer %q", got)
		}
	}
	if got := known.count(http.StateNew); got != 1 {
		t.Errorf("the server knows %d connections, want the second alone", got)
	}
	if got := request(t, first); got != "served" {
		t.Errorf("answer %q", got)
	}
	counts(t, s, 2)
	_ = first.Close()
	_ = second.Close()
	counts(t, s, 0)
	if got, closed := known.count(http.StateNew), known.count(http.StateClosed); got != 2 || closed != 2 {
		t.Errorf("the server was told of %d connections, and of the end of %d, want 2", got, closed)
	}
}

// A client may go, or the idle time end, before a request comes.
func TestHandedOverEndsWhenKept(t *testing.T) {
	t.Run("client", func(t *testing.T) {
		s, _ := heir(t, nil)
		_ = taken(t, s).Close()
		counts(t, s, 0)
	})
	for name, configure := range map[string]func(*http.Server){
		"IdleTimeout": func(s *http.Server) { s.IdleTimeout = time.Millisecond },
		"ReadTimeout": func(s *http.Server) { s.ReadTimeout = time.Millisecond },
	} {
		t.Run(name, func(t *testing.T) {
			s, known := heir(t, configure)
			over(t, taken(t, s))
			counts(t, s, 0)
			if got := known.count(http.StateNew); got != 0 {
				t.Errorf("the server was told of %d connections", got)
			}
		})
	}
	t.Run("closed server", func(t *testing.T) {
		s, _ := heir(t, nil)
		_ = s.http.Close()
		client, _ := offered(t, s) // its listener may not be known to be closed
		over(t, client)
		counts(t, s, 0)
	})
	t.Run("server", func(t *testing.T) {
		s, _ := heir(t, nil)
		client := taken(t, s)
		go s.http.Close() // when it serves what was handed over
		over(t, client)
		counts(t, s, 0)
		if _, taken := offered(t, s); taken {
			t.Error("a connection is taken after Close")
		}
		counts(t, s, 0)
	})
}

// The deadline of an idle connection is not that of a request: net/http sets that one
// before it reads.
func TestHandedOverIsServedInTime(t *testing.T) {
	deadline := make(chan time.Time, 1)
	s, _ := heir(t, func(s *http.Server) {
		s.IdleTimeout = time.Hour
		s.Handler = http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) {
			w := r.Context().Value(trackedKey{}).(*tracked).watch
			w.mu.Lock()
			defer w.mu.Unlock()
			deadline <- w.deadline
		})
	})
	client := taken(t, s)
	request(t, client)
	if d := soon(t, deadline, "the request"); !d.IsZero() {
		t.Errorf("the deadline is %v", d)
	}
}

// While this process drains, what is kept is answered, and goes on to the next.
func TestKeptGoesOn(t *testing.T) {
	s, known := heir(t, nil)
	next, nextKnown := heir(t, nil)
	first, second, third := taken(t, s), taken(t, s), taken(t, s)
	s.closeListener()
	if _, taken := offered(t, s); taken {
		t.Error("a connection is taken by a server that drains")
	}
	if got := request(t, first); got != "served" {
		t.Errorf("answer %q", got)
	}
	s.kept.pass(func(conns []syscall.Conn) []bool {
		taken := make([]bool, len(conns))
		for i, c := range conns {
			taken[i] = peer(t, c) == second.LocalAddr().String() && hand(t, c, next)
		}
		return taken
	})
	counts(t, s, 2)
	counts(t, next, 1)
	for _, c := range []net.Conn{second, third} { // one that is refused stays
		if got := request(t, c); got != "served" {
			t.Errorf("answer %q", got)
		}
	}
	if got, heir := known.count(http.StateNew), nextKnown.count(http.StateNew); got != 2 || heir != 1 {
		t.Errorf("the servers were told of %d and %d connections, want 2 and 1", got, heir)
	}
}

// peer is the address of the other side of a TCP connection.
func peer(t *testing.T, c syscall.Conn) string {
	t.Helper()
	conns, err := handoff.Conns([]*handoff.Descriptor{descriptorOf(t, c)})
	if err != nil {
		t.Error(err)
		return ""
	}
	defer conns[0].Close()
	return conns[0].RemoteAddr().String()
}
