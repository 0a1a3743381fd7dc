//go:build unix

package gracehttp

import (
	"bufio"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"net/http"
	"os"
	"runtime"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"
)

// counted is a pass that counts its calls.
type counted struct {
	taken bool
	calls atomic.Int32
}

func (c *counted) pass() bool {
	c.calls.Add(1)
	return c.taken
}

func (c *counted) want(t *testing.T, n int32) {
	t.Helper()
	if got := c.calls.Load(); got != n {
		t.Errorf("pass was called %d times, want %d", got, n)
	}
}

// A server that waits for a request is told that its time is over.
func TestAskWakesRead(t *testing.T) {
	for _, network := range []string{"tcp", "unix"} {
		for _, before := range []string{"", aRequest, aRequest + aRequest} {
			client, server := watchedPair(t, network)
			w := watchOf(server)
			if before != "" {
				write(t, client, before)
				read(t, server, before)
				w.setState(http.StateActive)
				w.setState(http.StateIdle)
			}
			done := reader(server)
			pass := &counted{taken: true}
			w.ask(pass.pass)
			if got := soon(t, done, "Read"); got.data != "" || !errors.Is(got.err, os.ErrDeadlineExceeded) {
				t.Errorf("%s after %q: read %q, %v, want a deadline", network, before, got.data, got.err)
			}
			pass.want(t, 1)
			if !w.moved() || w.mayMove() {
				t.Errorf("moved is %t, mayMove %t", w.moved(), w.mayMove())
			}
			// This process has nothing of it any more.
			if _, err := server.Write([]byte("x")); !errors.Is(err, net.ErrClosed) {
				t.Errorf("write: %v, want net.ErrClosed", err)
			}
			if n, err := client.Read(make([]byte, 1)); n != 0 || err != io.EOF {
				t.Errorf("the client reads %d, %v", n, err)
			}
			// And that stays so.
			if _, err := server.Read(make([]byte, 1)); !errors.Is(err, os.ErrDeadlineExceeded) {
				t.Errorf("the next Read: %v", err)
			}
			w.ask(pass.pass)
			pass.want(t, 1)
		}
	}
}

// If nobody takes the connection, the server does not notice.
func TestAskAndPassRefuses(t *testing.T) {
	for _, network := range []string{"tcp", "unix"} {
		client, server := watchedPair(t, network)
		w := watchOf(server)
		done := reader(server)
		asked := make(chan struct{}, 2)
		w.ask(func() bool { asked <- struct{}{}; return false })
		soon(t, asked, "pass")
		write(t, client, "GET /")
		if got := soon(t, done, "Read"); got.data != "GET /" || got.err != nil {
			t.Errorf("%s: read %q, %v", network, got.data, got.err)
		}
		if w.mayMove() || w.moved() {
			t.Errorf("%s: mayMove is %t, moved %t", network, w.mayMove(), w.moved())
		}
		// It is not asked again.
		write(t, client, " HTTP/1.1\r\n\r\n")
		read(t, server, " HTTP/1.1\r\n\r\n")
		w.setState(http.StateActive)
		w.setState(http.StateIdle)
		w.ask(func() bool { asked <- struct{}{}; return false })
		done = reader(server)
		write(t, client, "x")
		if got := soon(t, done, "Read"); got.data != "x" || got.err != nil || len(asked) != 0 {
			t.Errorf("%s: read %q, %v, asked again: %d", network, got.data, got.err, len(asked))
		}
		write(t, server, "hello")
		read(t, client, "hello")
	}
}

// One that is not in Read goes when it would read.
func TestAskBeforeRead(t *testing.T) {
	_, server := watchedPair(t, "tcp")
	w := watchOf(server)
	pass := &counted{taken: true}
	w.ask(pass.pass)
	pass.want(t, 0)
	if !w.mayMove() {
		t.Error("mayMove is false")
	}
	if n, err := server.Read(make([]byte, 1)); n != 0 || !errors.Is(err, os.ErrDeadlineExceeded) {
		t.Errorf("read %d, %v, want a deadline", n, err)
	}
	pass.want(t, 1)
}

// What has arrived but was not read goes with the connection.
func TestAskLeavesWhatWasNotRead(t *testing.T) {
	client, server := watchedPair(t, "tcp")
	write(t, client, aRequest)
	w := watchOf(server)
	var f *os.File
	w.ask(func() bool {
		var err error
		if f, err = server.(*tcpConn).File(); err != nil {
			t.Error(err)
		}
		return err == nil
	})
	if n, err := server.Read(make([]byte, 1000)); n != 0 || !errors.Is(err, os.ErrDeadlineExceeded) {
		t.Errorf("read %d, %v, want a deadline", n, err)
	}
	heir, err := net.FileConn(f)
	if err != nil {
		t.Fatal(err)
	}
	defer heir.Close()
	defer f.Close()
	_ = heir.SetDeadline(time.Now().Add(testPatience))
	read(t, heir, aRequest)
	write(t, heir, "hello")
	read(t, client, "hello")
}

// A connection that is busy stays until it is not.
func TestAskWaits(t *testing.T) {
	tests := []struct {
		name   string
		before string
		states []http.ConnState
		then   string // after which it may go, when it is idle
	}{
		{"half a header", "GET / HTTP/1.1\r\n", nil, "\r\n"},
		{"one byte", "G", nil, aRequest[1:]},
		{"half a second header", aRequest + "GET / HTTP", []http.ConnState{http.StateActive, http.StateIdle}, "/1.1\r\n\r\n"},
		{"half a body", someBody, []http.ConnState{http.StateActive}, "hello"},
		{"a chunk", "POST / HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n", []http.ConnState{http.StateActive}, "0\r\n\r\n"},
		{"a body that was not read", "POST / HTTP/1.1\r\nContent-Length: 5\r\n\r\n", []http.ConnState{http.StateActive, http.StateIdle}, "hello"},
		{"being served", aRequest, []http.ConnState{http.StateActive}, aRequest},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			client, server := watchedPair(t, "tcp")
			w := watchOf(server)
			write(t, client, tt.before)
			read(t, server, tt.before)
			for _, state := range tt.states {
				w.setState(state)
			}
			pass := &counted{taken: true}
			done := reader(server)
			w.ask(pass.pass)
			if !w.mayMove() || w.moved() {
				t.Errorf("mayMove is %t, moved %t", w.mayMove(), w.moved())
			}
			w.mu.Lock()
			if w.woken {
				t.Error("Read is woken")
			}
			w.mu.Unlock()
			write(t, client, tt.then)
			if got := soon(t, done, "Read"); got.data != tt.then || got.err != nil {
				t.Errorf("read %q, %v, want %q", got.data, got.err, tt.then)
			}
			w.setState(http.StateActive)
			pass.want(t, 0)
			w.setState(http.StateIdle)
			if n, err := server.Read(make([]byte, 1)); n != 0 || !errors.Is(err, os.ErrDeadlineExceeded) {
				t.Errorf("read %d, %v, want a deadline", n, err)
			}
			pass.want(t, 1)
		})
	}
}

// What is not followed, or not HTTP/1.1, or not HTTP at all stays for good.
func TestAskIsNotFor(t *testing.T) {
	tests := []struct {
		name   string
		set    func(w *watch)
		before string
		states []http.ConnState
	}{
		{"not followed", func(w *watch) { w.follows = false }, "", nil},
		{"hijacked", nil, aRequest, []http.ConnState{http.StateActive, http.StateHijacked}},
		{"HTTP/1.0", nil, oldClient, []http.ConnState{http.StateActive, http.StateIdle}},
		{"unclear", nil, "GET / HTTP/1.1\nHost: x\r\n\r\n", []http.ConnState{http.StateActive, http.StateIdle}},
	}
	for _, tt := range tests {
		for _, early := range []bool{false, true} { // asked before the states
			t.Run(fmt.Sprint(tt.name, " ", early), func(t *testing.T) {
				client, server := watchedPair(t, "tcp")
				w := watchOf(server)
				if tt.set != nil {
					tt.set(w)
				}
				write(t, client, tt.before)
				pass := &counted{taken: true}
				read(t, server, tt.before)
				for i, state := range tt.states {
					if early && i == 1 {
						w.ask(pass.pass)
					}
					w.setState(state)
				}
				w.ask(pass.pass)
				if w.mayMove() {
					t.Error("mayMove is true")
				}
				write(t, client, "hello")
				read(t, server, "hello")
				pass.want(t, 0)
			})
		}
	}
}

// What happens to the deadlines, whatever comes at the same time.
func TestAskAndDeadlines(t *testing.T) {
	first, second := time.Unix(2e9, 0), time.Unix(3e9, 0)
	tests := []struct {
		name  string
		read  result   // what the woken Read returns
		reads []result // and those after it
		want  result   // for the server
		taken bool
		calls int32
	}{
		{name: "nothing else", read: result{"", os.ErrDeadlineExceeded}, want: result{"", os.ErrDeadlineExceeded}, taken: true, calls: 1},
		{name: "nothing else, not taken", read: result{"", os.ErrDeadlineExceeded}, reads: []result{{"GET", nil}}, want: result{"GET", nil}, calls: 1},
		{name: "deadline of the server, not taken", read: result{"", os.ErrDeadlineExceeded}, reads: []result{{"", os.ErrDeadlineExceeded}}, want: result{"", os.ErrDeadlineExceeded}, calls: 1},
		{name: "data", read: result{"GET", nil}, want: result{"GET", nil}, taken: true},
		{name: "data and a deadline", read: result{"GET", os.ErrDeadlineExceeded}, want: result{"GET", os.ErrDeadlineExceeded}, taken: true},
		{name: "end of file", read: result{"", io.EOF}, want: result{"", io.EOF}, taken: true},
		{name: "reset", read: result{"", syscall.ECONNRESET}, want: result{"", syscall.ECONNRESET}, taken: true},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			s := &fakeSocket{reads: make(chan result, 10)}
			c := fakeConn{watch: &watch{socket: s, follows: true}}
			_ = c.watch.setReadDeadline(first)
			done := reader(c)
			pass := &counted{taken: tt.taken}
			c.watch.ask(pass.pass)
			// A deadline of the server must not undo that it is woken.
			_ = c.watch.setReadDeadline(second)
			for _, r := range append([]result{tt.read}, tt.reads...) {
				s.reads <- r
			}
			if got := soon(t, done, "Read"); got != tt.want {
				t.Errorf("read %v, want %v", got, tt.want)
			}
			pass.want(t, tt.calls)
			if want := []time.Time{first, past, second}; !slices.Equal(s.deadlines, want) {
				t.Errorf("the deadlines were %v, want %v", s.deadlines, want)
			}
			if gone := tt.taken && tt.calls > 0; c.watch.moved() != gone || s.closed > 0 != gone {
				t.Errorf("moved is %t, closed %d times, want %t", c.watch.moved(), s.closed, gone)
			}
		})
	}
}

// The server is not held up while the connection goes: it may ask and set, and the
// others go on.
func TestWatchWhilePassing(t *testing.T) {
	_, server := watchedPair(t, "tcp")
	w := watchOf(server)
	w.ask(func() bool {
		if w.moved() || !w.mayMove() {
			t.Errorf("moved is %t, mayMove %t", w.moved(), w.mayMove())
		}
		_ = server.SetReadDeadline(time.Time{})
		return true
	})
	done := make(chan error, 1)
	go func() {
		_, err := server.Read(make([]byte, 1))
		done <- err
	}()
	if err := soon(t, done, "Read"); !errors.Is(err, os.ErrDeadlineExceeded) {
		t.Errorf("read %v", err)
	}
}

// Requests arrive all the time while connections go from one server to another.
// Each is answered once, by one of the two.
func TestWatchUnderLoad(t *testing.T) {
	for _, network := range []string{"tcp", "unix"} {
		t.Run(network, func(t *testing.T) {
			l := newListener(t)
			if network == "unix" {
				l = newUnixListener(t)
			}
			name := func(name string) http.Handler {
				return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
					body, err := io.ReadAll(r.Body)
					if err != nil {
						t.Error(err)
					}
					fmt.Fprintf(w, "%s %s", name, body)
				})
			}
			var watches sync.Map
			old := &http.Server{Handler: name("old"), ConnState: func(c net.Conn, state http.ConnState) {
				w := watchOf(c)
				w.setState(state)
				switch state {
				case http.StateNew:
					watches.Store(w, c)
				case http.StateClosed:
					watches.Delete(w)
				}
			}}
			defer old.Close()
			go old.Serve(watching{l, &server{app: &app{handOverIdle: true}}})
			handed := newHandedOver(l.Addr())
			heir := &http.Server{Handler: name("new")}
			defer heir.Close()

			// Each client goes on until the heir has answered some requests.
			const clients, before, after = 20, 25, 25
			var all sync.WaitGroup
			begun := make(chan struct{}, clients) // gets a value from each client
			for i := range clients {
				c, err := net.Dial(l.Addr().Network(), l.Addr().String())
				if err != nil {
					t.Fatal(err)
				}
				defer c.Close()
				_ = c.SetDeadline(time.Now().Add(testPatience))
				all.Add(1)
				go func() {
					defer all.Done()
					random := rand.New(rand.NewPCG(1, uint64(i)))
					answers := bufio.NewReader(c)
					fromHeir := 0
					for n := 0; fromHeir < after; n++ {
						if n == before {
							begun <- struct{}{}
						}
						body := fmt.Sprintf("%d of %d", n, i)
						text := fmt.Sprintf("POST / HTTP/1.1\r\nHost: x\r\nContent-Length: %d\r\n\r\n%s", len(body), body)
						cut := random.IntN(len(text)) // in two pieces
						_, err := io.WriteString(c, text[:cut])
						runtime.Gosched()
						if err == nil {
							_, err = io.WriteString(c, text[cut:])
						}
						if err != nil {
							t.Errorf("client %d, request %d: %v", i, n, err)
							return
						}
						resp, err := http.ReadResponse(answers, nil)
						if err != nil {
							t.Errorf("client %d, request %d: %v", i, n, err)
							return
						}
						got, err := io.ReadAll(resp.Body)
						if err != nil || string(got) != "old "+body && string(got) != "new "+body || resp.Close {
							t.Errorf("client %d, request %d: %q, %v, close: %t", i, n, got, err, resp.Close)
							return
						}
						if strings.HasPrefix(string(got), "new ") {
							fromHeir++
						} else if fromHeir > 0 {
							t.Errorf("client %d, request %d: it has come back", i, n)
							return
						}
					}
				}()
			}
			for range clients {
				soon(t, begun, "the clients")
			}
			for w, c := range watches.Range {
				w, c := w.(*watch), c.(syscall.Conn)
				w.ask(func() bool {
					f, err := c.(interface{ File() (*os.File, error) }).File()
					if err != nil {
						t.Error(err)
						return false
					}
					defer f.Close()
					conn, err := net.FileConn(f)
					if err != nil {
						t.Error(err)
						return false
					}
					return handed.put(conn, func() { _ = heir.Serve(handed) })
				})
			}
			all.Wait()
			handed.finish()
		})
	}
}
