//go:build unix

package gracehttp

import (
	"bufio"
	"bytes"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"reflect"
	"runtime"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"
)

const (
	someBody  = "POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 10\r\n\r\nhello"
	oldClient = "GET / HTTP/1.0\r\n\r\n"
)

func newUnixListener(t *testing.T) net.Listener {
	t.Helper()
	dir, err := os.MkdirTemp("", "grace") // that of TempDir may be too long
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = os.RemoveAll(dir) })
	l, err := net.Listen("unix", filepath.Join(dir, "s"))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = l.Close() })
	return l
}

// watchedPair is a connection whose server end is watched.
func watchedPair(t *testing.T, network string) (client, server net.Conn) {
	t.Helper()
	if network == "unix" {
		client, c := pair(t, newUnixListener(t))
		return client, &unixConn{c.(*net.UnixConn), watch{socket: c.(*net.UnixConn), follows: true}}
	}
	client, c := tcpPair(t)
	return client, &tcpConn{c, watch{socket: c, follows: true}}
}

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

// read reads want.
func read(t *testing.T, c net.Conn, want string) {
	t.Helper()
	got := make([]byte, len(want))
	if _, err := io.ReadFull(c, got); err != nil || string(got) != want {
		t.Errorf("read %q, %v, want %q", got, err, want)
	}
}

func write(t *testing.T, c io.Writer, s string) {
	t.Helper()
	if _, err := io.WriteString(c, s); err != nil {
		t.Fatal(err)
	}
}

// Whatever handlers and net/http look for in a connection, a watched one has.
func TestWatchedHasAllMethods(t *testing.T) {
	for watched, plain := range map[any]any{&tcpConn{}: &net.TCPConn{}, &unixConn{}: &net.UnixConn{}} {
		w, p := reflect.TypeOf(watched), reflect.TypeOf(plain)
		for i := range p.NumMethod() {
			want := p.Method(i)
			got, ok := w.MethodByName(want.Name)
			if !ok {
				t.Errorf("%v has no %s", w, want.Name)
			} else if g, p := fmt.Sprint(got.Type), fmt.Sprint(want.Type); args(g) != args(p) {
				t.Errorf("%v: %s is %s, want %s", w, want.Name, g, p)
			}
		}
	}
	var c any = &tcpConn{}
	if _, ok := c.(io.ReaderFrom); !ok {
		t.Error("files are not sent with sendfile")
	}
}

// args is the type of a method without the receiver.
func args(method string) string {
	_, a, _ := strings.Cut(method, "Conn")
	return strings.TrimPrefix(a, ", ")
}

func TestWatchedMethodsWork(t *testing.T) {
	type full interface {
		net.Conn
		syscall.Conn
		CloseRead() error
		CloseWrite() error
		File() (*os.File, error)
	}
	for _, network := range []string{"tcp", "unix"} {
		t.Run(network, func(t *testing.T) {
			t.Run("io.Copy of a file", func(t *testing.T) {
				client, server := watchedPair(t, network)
				content := bytes.Repeat([]byte("0123456789abcdef"), 1<<16)
				path := filepath.Join(t.TempDir(), "f")
				if err := os.WriteFile(path, content, 0o600); err != nil {
					t.Fatal(err)
				}
				f, err := os.Open(path)
				if err != nil {
					t.Fatal(err)
				}
				defer f.Close()
				copied := make(chan error, 1)
				go func() {
					_, err := io.Copy(server, f)
					_ = server.Close()
					copied <- err
				}()
				if got, err := io.ReadAll(client); err != nil || !bytes.Equal(got, content) {
					t.Errorf("%d bytes have arrived, %v, want those %d", len(got), err, len(content))
				}
				if err := soon(t, copied, "the copy"); err != nil {
					t.Error(err)
				}
			})
			t.Run("CloseWrite", func(t *testing.T) {
				client, server := watchedPair(t, network)
				if err := server.(full).CloseWrite(); err != nil {
					t.Fatal(err)
				}
				if n, err := client.Read(make([]byte, 1)); n != 0 || err != io.EOF {
					t.Errorf("the client reads %d, %v, want end of file", n, err)
				}
				write(t, client, "hello")
				read(t, server, "hello")
			})
			t.Run("CloseRead", func(t *testing.T) {
				client, server := watchedPair(t, network)
				if err := server.(full).CloseRead(); err != nil {
					t.Fatal(err)
				}
				if n, err := server.Read(make([]byte, 1)); n != 0 || err != io.EOF {
					t.Errorf("read %d, %v, want end of file", n, err)
				}
				write(t, server, "hello")
				read(t, client, "hello")
			})
			t.Run("File", func(t *testing.T) {
				client, server := watchedPair(t, network)
				f, err := server.(full).File()
				if err != nil {
					t.Fatal(err)
				}
				defer f.Close()
				_ = server.Close()
				write(t, f, "hello")
				read(t, client, "hello")
			})
			t.Run("SyscallConn", func(t *testing.T) {
				client, server := watchedPair(t, network)
				raw, err := server.(full).SyscallConn()
				if err != nil {
					t.Fatal(err)
				}
				var writeErr error
				if err := raw.Control(func(fd uintptr) { _, writeErr = syscall.Write(int(fd), []byte("hello")) }); err != nil || writeErr != nil {
					t.Fatal(err, writeErr)
				}
				read(t, client, "hello")
			})
			t.Run("addresses", func(t *testing.T) {
				client, server := watchedPair(t, network)
				if got, want := server.LocalAddr().String(), client.RemoteAddr().String(); got != want {
					t.Errorf("the local address is %s, want %s", got, want)
				}
				if got, want := server.RemoteAddr().String(), client.LocalAddr().String(); network == "tcp" && got != want {
					t.Errorf("the remote address is %s, want %s", got, want)
				}
			})
		})
	}
	t.Run("options of TCP", func(t *testing.T) {
		client, server := watchedPair(t, "tcp")
		c := server.(*tcpConn)
		if err := errors.Join(c.SetNoDelay(false), c.SetKeepAlive(false), c.SetKeepAlivePeriod(time.Minute), c.SetReadBuffer(1<<16), c.SetWriteBuffer(1<<16), c.SetLinger(0)); err != nil {
			t.Error(err)
		}
		_ = c.Close() // with a reset, as SetLinger says
		if _, err := client.Read(make([]byte, 1)); !errors.Is(err, syscall.ECONNRESET) {
			t.Errorf("the client reads %v, want a reset", err)
		}
	})
}

// others is a listener of connections of another type.
type others struct{ net.Listener }

func (l others) Accept() (net.Conn, error) {
	c, err := l.Listener.Accept()
	return struct{ net.Conn }{c}, err
}

func TestWatchingAccept(t *testing.T) {
	for _, tt := range []struct {
		name    string
		l       net.Listener
		server  *server
		want    any
		follows bool
	}{
		{"tcp", newListener(t), &server{app: &app{handOverIdle: true}}, &tcpConn{}, true},
		{"unix", newUnixListener(t), &server{app: &app{handOverIdle: true}}, &unixConn{}, true},
		{"without HandOverIdle", newListener(t), &server{app: &app{}}, &tcpConn{}, false},
		{"tls", newListener(t), &server{app: &app{handOverIdle: true}, secure: true}, &tcpConn{}, false},
		{"another type", others{newListener(t)}, &server{app: &app{handOverIdle: true}}, struct{ net.Conn }{}, false},
	} {
		t.Run(tt.name, func(t *testing.T) {
			_, c := pair(t, watching{tt.l, tt.server})
			if got, want := reflect.TypeOf(c), reflect.TypeOf(tt.want); got != want {
				t.Fatalf("accepted a %v, want a %v", got, want)
			}
			w := watchOf(c)
			if _, other := tt.want.(struct{ net.Conn }); other != (w == nil) {
				t.Errorf("its watch is %v", w)
			}
			if w != nil && (w.follows != tt.follows || w.mayMove() != tt.follows) {
				t.Errorf("follows is %t, mayMove %t, want %t", w.follows, w.mayMove(), tt.follows)
			}
		})
	}
	l := newListener(t)
	_ = l.Close()
	if c, err := (watching{l, &server{app: &app{}}}).Accept(); c != nil || !errors.Is(err, net.ErrClosed) {
		t.Errorf("accepted %v, %v, want net.ErrClosed", c, err)
	}
}

func TestWatchOf(t *testing.T) {
	_, tcp := watchedPair(t, "tcp")
	_, unix := watchedPair(t, "unix")
	_, plain := tcpPair(t)
	for name, tt := range map[string]struct {
		conn net.Conn
		want *watch
	}{
		"tcp":            {tcp, &tcp.(*tcpConn).watch},
		"unix":           {unix, &unix.(*unixConn).watch},
		"tls":            {tls.Server(tcp, &tls.Config{}), &tcp.(*tcpConn).watch},
		"not watched":    {plain, nil},
		"tls on another": {tls.Server(plain, &tls.Config{}), nil},
		"nothing":        {nil, nil},
	} {
		if got := watchOf(tt.conn); got != tt.want {
			t.Errorf("%s: got %p, want %p", name, got, tt.want)
		}
	}
}

func TestWatchedDeadlines(t *testing.T) {
	for _, network := range []string{"tcp", "unix"} {
		for _, follows := range []bool{true, false} {
			client, server := watchedPair(t, network)
			w := watchOf(server)
			w.follows = follows
			buf := make([]byte, 1)
			for name, set := range map[string]func(time.Time) error{"SetReadDeadline": server.SetReadDeadline, "SetDeadline": server.SetDeadline} {
				if err := set(past); err != nil {
					t.Error(err)
				}
				if !w.deadline.Equal(past) { // to which it returns after ask
					t.Errorf("%s %s: the watch does not know it", network, name)
				}
				if n, err := server.Read(buf); n != 0 || !errors.Is(err, os.ErrDeadlineExceeded) {
					t.Errorf("%s %s: read %d, %v, want a deadline", network, name, n, err)
				}
				if _, err := server.Write(buf); errors.Is(err, os.ErrDeadlineExceeded) != (name == "SetDeadline") {
					t.Errorf("%s %s: write: %v", network, name, err)
				}
				if err := set(time.Time{}); err != nil {
					t.Error(err)
				}
				// It can come when the server reads.
				done := make(chan error, 1)
				go func() {
					_, err := server.Read(buf)
					done <- err
				}()
				runtime.Gosched()
				if err := set(past); err != nil {
					t.Error(err)
				}
				if err := soon(t, done, "Read"); !errors.Is(err, os.ErrDeadlineExceeded) {
					t.Errorf("%s %s: %v, want a deadline", network, name, err)
				}
				if err := set(time.Now().Add(testPatience)); err != nil {
					t.Error(err)
				}
				write(t, client, "x")
				read(t, server, "x")
				_ = server.SetDeadline(time.Time{})
			}
			_ = server.Close()
			if err := server.SetReadDeadline(time.Time{}); !errors.Is(err, net.ErrClosed) {
				t.Errorf("%s: no deadline for a closed connection: %v", network, err)
			}
			if err := server.SetDeadline(past); !errors.Is(err, net.ErrClosed) {
				t.Errorf("%s: deadline of a closed connection: %v", network, err)
			}
		}
	}
}

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
func (c fakeConn) watched() *watch            { return c.watch }

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
