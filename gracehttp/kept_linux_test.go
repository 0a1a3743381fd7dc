package gracehttp

import (
	"errors"
	"fmt"
	"io"
	"log"
	"net"
	"net/http"
	"os"
	"slices"
	"sync"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/facebookgo/grace/internal/handoff"
)

// openFiles counts how often each file is open here.
func openFiles(t *testing.T) map[string]int {
	t.Helper()
	n := make(map[string]int)
	entries, err := os.ReadDir("/proc/self/fd")
	if err != nil {
		t.Fatal(err)
	}
	for _, e := range entries {
		if file, err := os.Readlink("/proc/self/fd/" + e.Name()); err == nil {
			n[file]++
		}
	}
	return n
}

// soleHolder fails if the other side of client is open twice here, or if it is closed.
func soleHolder(t *testing.T, client net.Conn, s *server) {
	t.Helper()
	if got := request(t, client); got != "served" {
		t.Errorf("answer %q", got)
	}
	for c := range s.app.tracker.all {
		if c.conn.RemoteAddr().String() == client.LocalAddr().String() {
			_ = c.conn.Close()
		}
	}
	over(t, client) // which it would not be
}

// to returns a function for pass that gives all to another server, and closes done when
// it has seen n.
func to(t *testing.T, next *server, n int, done chan<- struct{}) func([]syscall.Conn) []bool {
	return func(conns []syscall.Conn) []bool {
		taken := make([]bool, len(conns))
		for i, c := range conns {
			taken[i] = hand(t, c, next)
		}
		if n -= len(conns); n == 0 {
			close(done)
		}
		return taken
	}
}

// Many go from process to process without a request between, and none is lost, open
// twice, or made a connection of package net.
func TestKeptGoOnTwice(t *testing.T) {
	const n = 600 // more than go at once
	first, _ := heir(t, nil)
	second, known := heir(t, nil)
	third, _ := heir(t, nil)
	clients := make([]net.Conn, n)
	for i := range clients {
		clients[i] = taken(t, first)
	}
	for _, from := range []struct{ server, heir *server }{{first, second}, {second, third}} {
		done := make(chan struct{})
		from.server.kept.pass(to(t, from.heir, n, done))
		soon(t, done, "all to go")
		counts(t, from.server, 0)
		counts(t, from.heir, n)
		from.server.handed.finish()
	}
	if got := known.count(http.StateNew); got != 0 {
		t.Errorf("the server was told of %d connections", got)
	}
	for _, c := range clients {
		soleHolder(t, c, third)
	}
	counts(t, third, 0)
	eachKept(t, third, func(*kept) bool { return false }) // none is kept
}

// While one is on its way, a request, the end of the time, or that of the server may
// come. If it is refused, that counts.
func TestKeptComesBack(t *testing.T) {
	type test struct {
		timeout  time.Duration
		happens  func(t *testing.T, s *server, client net.Conn)
		answered bool
	}
	for name, tt := range map[string]test{
		"nothing": {happens: func(*testing.T, *server, net.Conn) {}, answered: true},
		"request": {happens: func(t *testing.T, s *server, client net.Conn) {
			if _, err := io.WriteString(client, aRequest); err != nil {
				t.Error(err)
			}
			eachKept(t, s, func(c *kept) bool { return c.ready })
		}, answered: true},
		"timeout": {timeout: 200 * time.Millisecond, happens: func(t *testing.T, s *server, _ net.Conn) {
			eachKept(t, s, func(c *kept) bool { return c.late })
		}},
		"close": {happens: func(_ *testing.T, s *server, _ net.Conn) { s.kept.close() }},
	} {
		t.Run(name, func(t *testing.T) {
			s, _ := heir(t, func(h *http.Server) { h.IdleTimeout = tt.timeout })
			asked, answer := make(chan int, 1), make(chan struct{})
			client := taken(t, s)
			s.kept.pass(func(conns []syscall.Conn) []bool {
				asked <- len(conns)
				<-answer
				return make([]bool, len(conns))
			})
			n, passed := 0, s.kept.passed // nil if nothing was kept any more
			if passed != nil {
				select {
				case n = <-asked:
				case <-passed:
				case <-time.After(testPatience):
				}
			}
			if n == 0 && tt.timeout != 0 {
				over(t, client) // the deadline has come before
				return
			}
			if n != 1 || !s.kept.passing() {
				t.Errorf("%d are asked for, and pass is over: %t", n, !s.kept.passing())
			}
			tt.happens(t, s, client)
			counts(t, s, 1) // it is still there
			close(answer)
			switch {
			case !tt.answered:
				over(t, client)
				counts(t, s, 0)
			case name == "request":
				_ = client.SetReadDeadline(time.Now().Add(testPatience))
				if _, err := io.ReadFull(client, make([]byte, len("HTTP/1.1 200 OK"))); err != nil {
					t.Error(err)
				}
			default:
				soleHolder(t, client, s)
			}
			s.kept.join()
			if s.kept.passing() {
				t.Error("pass is not over")
			}
		})
	}
}

// eachKept waits until all that is kept is as is says.
func eachKept(t *testing.T, s *server, is func(*kept) bool) {
	t.Helper()
	eventually(t, func() bool {
		s.kept.mu.Lock()
		defer s.kept.mu.Unlock()
		for _, c := range s.kept.kept {
			if !is(c) {
				return false
			}
		}
		return true
	})
}

// Half a request makes a connection the server's, which reads the rest.
func TestKeptHalfARequest(t *testing.T) {
	s, _ := heir(t, nil)
	client := taken(t, s)
	if _, err := io.WriteString(client, aRequest[:7]); err != nil {
		t.Fatal(err)
	}
	var found *tracked
	eventually(t, func() bool {
		for c := range s.app.tracker.all {
			found = c
		}
		return found != nil
	})
	eventually(t, found.halfway) // not in the moment in which Read returns it
	if _, err := io.WriteString(client, aRequest[7:]); err != nil {
		t.Fatal(err)
	}
	if _, err := io.ReadFull(client, make([]byte, len("HTTP/1.1 200 OK"))); err != nil {
		t.Error(err)
	}
}

// What has come before the server ends its handed connections is served.
func TestKeptIsServedAtTheEnd(t *testing.T) {
	s, _ := heir(t, nil)
	var asked, idle []net.Conn
	for range 300 { // more than are reported at once
		asked, idle = append(asked, taken(t, s)), append(idle, taken(t, s))
	}
	for _, c := range asked {
		if _, err := io.WriteString(c, aRequest); err != nil {
			t.Fatal(err)
		}
	}
	s.handed.finish()
	for i, c := range asked {
		if _, err := io.ReadFull(c, make([]byte, len("HTTP/1.1 200 OK"))); err != nil {
			t.Fatalf("connection %d: %v", i, err)
		}
	}
	for _, c := range idle {
		over(t, c)
	}
	counts(t, s, int64(len(asked)))
}

// What ends in whatever way is closed, once, and leaves no descriptor.
func TestKeptLeavesNothing(t *testing.T) {
	before := openFiles(t)
	t.Run("", func(t *testing.T) { // with its cleanups
		s, _ := heir(t, func(h *http.Server) { h.IdleTimeout = time.Hour })
		var clients []net.Conn
		for range 100 {
			clients = append(clients, taken(t, s))
		}
		for _, c := range clients[:50] {
			_ = c.Close()
		}
		counts(t, s, 50)
		s.handed.finish()
		counts(t, s, 0)
		for _, c := range clients[50:] {
			over(t, c)
			_ = c.Close()
		}
	})
	for file, n := range openFiles(t) {
		if n > before[file] {
			t.Errorf("%s is open %d times, was %d times", file, n, before[file])
		}
	}
}

// What is no connection is refused, or dropped when something comes, and stops nothing.
func TestKeptOtherFiles(t *testing.T) {
	s, _ := heir(t, nil)
	file, err := os.Open(os.Args[0])
	if err != nil {
		t.Fatal(err)
	}
	defer file.Close()
	r, w, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	defer r.Close()
	fromFile, fromPipe := descriptorOf(t, file), descriptorOf(t, r)
	defer fromFile.Close()
	if got := s.takeConns([]*handoff.Descriptor{fromFile, fromPipe}); !slices.Equal(got, []bool{false, true}) {
		t.Errorf("taken: %t", got)
	}
	client := taken(t, s)
	_ = w.Close()
	counts(t, s, 1)
	soleHolder(t, client, s)
}

// When no descriptor is left, a request waits until there is one.
func TestKeptWithoutDescriptors(t *testing.T) {
	logged := make(chan struct{}, 100)
	s, _ := heir(t, func(h *http.Server) { h.ErrorLog = log.New(notes(logged), "", 0) })
	client := taken(t, s)
	end := withoutDescriptors(t)
	write(t, client, aRequest)
	for range 2 { // again and again
		soon(t, logged, "the lack of descriptors")
	}
	end()
	replies(t, client, false)
}

// withoutDescriptors makes this process have no descriptor to spare, until end is called.
func withoutDescriptors(t *testing.T) (end func()) {
	t.Helper()
	var limit unix.Rlimit
	if err := unix.Getrlimit(unix.RLIMIT_NOFILE, &limit); err != nil {
		t.Fatal(err)
	}
	none := limit
	none.Cur = 1
	if err := unix.Setrlimit(unix.RLIMIT_NOFILE, &none); err != nil {
		t.Fatal(err)
	}
	end = sync.OnceFunc(func() {
		if err := unix.Setrlimit(unix.RLIMIT_NOFILE, &limit); err != nil {
			t.Error(err)
		}
	})
	t.Cleanup(end)
	return end
}

// notes gets a value for each write.
type notes chan struct{}

func (n notes) Write(p []byte) (int, error) {
	select {
	case n <- struct{}{}:
	default:
	}
	return len(p), nil
}

// Those with a deadline end when it comes, in any mixture with those that end before.
func TestKeptTimesOut(t *testing.T) {
	s, known := heir(t, func(h *http.Server) { h.IdleTimeout = 20 * time.Millisecond })
	for range 3 {
		var clients []net.Conn
		for range 20 {
			clients = append(clients, taken(t, s))
		}
		for i, c := range clients {
			if i%3 == 0 {
				_ = c.Close()
				continue
			}
			if n, err := c.Read(make([]byte, 1)); n != 0 || !errors.Is(err, io.EOF) {
				t.Errorf("read %d, %v, want the end", n, err)
			}
		}
		counts(t, s, 0)
	}
	if got, closed := known.count(http.StateNew), known.count(http.StateClosed); got != closed {
		t.Error(fmt.Sprint("told of ", got, " connections, and of the end of ", closed))
	}
	s.kept.mu.Lock()
	defer s.kept.mu.Unlock()
	if len(s.kept.queue) > 40 || len(s.kept.kept) != 0 {
		t.Errorf("%d wait for their deadline, %d are kept", len(s.kept.queue), len(s.kept.kept))
	}
}

// blocks is a writer whose first Write waits.
type blocks struct {
	once           sync.Once
	begun, release chan struct{}
}

func (b *blocks) Write(p []byte) (int, error) {
	b.once.Do(func() {
		close(b.begun)
		<-b.release
	})
	return len(p), nil
}

// A request that the server gets only at the end of the drain is answered.
func TestKeptIsNotCut(t *testing.T) {
	logged := &blocks{begun: make(chan struct{}), release: make(chan struct{})}
	s, _ := heir(t, func(h *http.Server) { h.ErrorLog = log.New(logged, "", 0) })
	client := taken(t, s)
	end := withoutDescriptors(t)
	write(t, client, aRequest)
	soon(t, logged.begun, "the lack of descriptors")
	end()
	_, drained := drain(t, s)
	soon(t, s.kept.stop, "the end of what is kept")
	close(logged.release)
	replies(t, client, true)
	soon(t, drained, "the end")
}
