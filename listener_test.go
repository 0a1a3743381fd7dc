package grace_test

import (
	"bytes"
	"errors"
	"io"
	"net"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/facebookgo/grace"
)

const (
	// patience is how long a test waits for what must happen.
	patience = 30 * time.Second
	// moment is how long a test looks whether what must not happen does.
	moment = 20 * time.Millisecond
)

// listenOn returns a listener of package net, a *net.TCPListener or a
// *net.UnixListener.
func listenOn(t testing.TB, network string) grace.Listener {
	t.Helper()
	addr := "127.0.0.1:0"
	if network == "unix" {
		dir, err := os.MkdirTemp("", "grace") // t.TempDir may be too long for a socket
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { _ = os.RemoveAll(dir) })
		addr = filepath.Join(dir, "s")
	}
	l, err := net.Listen(network, addr)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = l.Close() })
	return l.(grace.Listener)
}

// connect makes a connection to l and returns both ends.
func connect(t testing.TB, l net.Listener) (client, server net.Conn) {
	t.Helper()
	client, err := net.Dial(l.Addr().Network(), l.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = client.Close() })
	server, err = l.Accept()
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = server.Close() })
	for _, c := range []net.Conn{client, server} {
		_ = c.SetDeadline(time.Now().Add(patience))
	}
	return client, server
}

// async calls f and returns a channel that is closed when f has returned.
func async(f func()) <-chan struct{} {
	done := make(chan struct{})
	go func() {
		defer close(done)
		f()
	}()
	return done
}

func closing(l net.Listener) <-chan struct{} { return async(func() { _ = l.Close() }) }

func waitFor(t *testing.T, what string, done <-chan struct{}) {
	t.Helper()
	select {
	case <-done:
	case <-time.After(patience):
		t.Fatalf("%s, within %v", what, patience)
	}
}

func stillWaits(t *testing.T, what string, done <-chan struct{}) {
	t.Helper()
	select {
	case <-done:
		t.Fatal(what)
	case <-time.After(moment):
	}
}

// untilRefused waits until Close of l has begun, which Accept tells.
func untilRefused(t *testing.T, l net.Listener) {
	t.Helper()
	refused := async(func() {
		if _, err := l.Accept(); err != grace.ErrAlreadyClosed {
			t.Errorf("Accept: %v, want ErrAlreadyClosed itself", err)
		}
	})
	waitFor(t, "Accept goes on", refused)
}

// checkLeaks fails a test that leaves a goroutine of the library behind. Those
// that have been told to end may take a moment.
func checkLeaks(t *testing.T) {
	t.Cleanup(func() {
		var stacks string
		for end := time.Now().Add(patience); time.Now().Before(end); time.Sleep(time.Millisecond) {
			all := make([]byte, 1<<20)
			all = all[:runtime.Stack(all, true)]
			var ours []string
			for _, g := range strings.Split(string(all), "\n\n") {
				if strings.Contains(g, "grace.(*listener)") || strings.Contains(g, "accept.(*Listener)") {
					ours = append(ours, g)
				}
			}
			if stacks = strings.Join(ours, "\n\n"); stacks == "" {
				return
			}
		}
		t.Errorf("goroutines are left behind:\n%s", stacks)
	})
}

func onEachNetwork(t *testing.T, f func(t *testing.T, network string)) {
	for _, network := range []string{"tcp", "unix"} {
		t.Run(network, func(t *testing.T) {
			checkLeaks(t)
			f(t, network)
		})
	}
}

func TestCloseWaitsForConnections(t *testing.T) {
	onEachNetwork(t, func(t *testing.T, network string) {
		l := grace.NewListener(listenOn(t, network))
		_, a := connect(t, l)
		_, b := connect(t, l)
		closed := closing(l)
		untilRefused(t, l)
		stillWaits(t, "Close does not wait for two connections", closed)
		_ = a.Close()
		stillWaits(t, "Close does not wait for the second connection", closed)
		_ = b.Close()
		waitFor(t, "Close does not return", closed)
	})
}

// A connection counts once, however often it is closed: as http.Server does, and
// many handlers with their defer.
func TestConnectionCountsOnce(t *testing.T) {
	onEachNetwork(t, func(t *testing.T, network string) {
		l := grace.NewListener(listenOn(t, network))
		_, a := connect(t, l)
		_, b := connect(t, l)
		if err := a.Close(); err != nil {
			t.Errorf("Close: %v", err)
		}
		if err := a.Close(); !errors.Is(err, net.ErrClosed) {
			t.Errorf("the second Close: %v, want net.ErrClosed", err)
		}
		closed := closing(l)
		untilRefused(t, l)
		stillWaits(t, "the connection that was closed twice counts for both", closed)
		_ = b.Close()
		waitFor(t, "Close does not return", closed)
	})
}

// What the peer does is no Close.
func TestCloseWaitsAfterPeerHasGone(t *testing.T) {
	l := grace.NewListener(listenOn(t, "tcp"))
	client, server := connect(t, l)
	_ = client.Close()
	if _, err := server.Read(make([]byte, 1)); err != io.EOF {
		t.Fatalf("Read: %v, want EOF", err)
	}
	closed := closing(l)
	untilRefused(t, l)
	stillWaits(t, "Close does not wait", closed)
	_ = server.Close()
	waitFor(t, "Close does not return", closed)
}

// Each call of Close waits, and none hangs.
func TestCloseTwice(t *testing.T) {
	onEachNetwork(t, func(t *testing.T, network string) {
		l := grace.NewListener(listenOn(t, network))
		_, server := connect(t, l)
		first, second := closing(l), closing(l)
		untilRefused(t, l)
		stillWaits(t, "the first Close does not wait", first)
		stillWaits(t, "the second Close does not wait", second)
		_ = server.Close()
		waitFor(t, "the first Close does not return", first)
		waitFor(t, "the second Close does not return", second)
		if err := l.Close(); err != nil {
			t.Errorf("the third Close: %v", err)
		}
	})
}

func TestAcceptAfterClose(t *testing.T) {
	onEachNetwork(t, func(t *testing.T, network string) {
		l := grace.NewListener(listenOn(t, network))
		if err := l.Close(); err != nil {
			t.Fatal(err)
		}
		for range 2 {
			if _, err := l.Accept(); err != grace.ErrAlreadyClosed {
				t.Errorf("Accept: %v, want ErrAlreadyClosed itself", err)
			}
		}
	})
}

func TestCloseWakesAccept(t *testing.T) {
	onEachNetwork(t, func(t *testing.T, network string) {
		l := grace.NewListener(listenOn(t, network))
		const loops = 3
		errs := make(chan error, loops)
		for range loops {
			go func() {
				_, err := l.Accept()
				errs <- err
			}()
		}
		waitFor(t, "Close does not return", closing(l))
		for range loops {
			select {
			case err := <-errs:
				if err != grace.ErrAlreadyClosed {
					t.Errorf("Accept: %v, want ErrAlreadyClosed itself", err)
				}
			case <-time.After(patience):
				t.Fatal("Accept does not return")
			}
		}
	})
}

// The kernel would reset what waits in the queue, so Close has it accepted.
func TestCloseAcceptsWhatWaits(t *testing.T) {
	onEachNetwork(t, func(t *testing.T, network string) {
		inner := listenOn(t, network)
		l := grace.NewListener(inner)
		const waiting = 10
		var clients []net.Conn
		for range waiting {
			c, err := net.Dial(network, inner.Addr().String())
			if err != nil {
				t.Fatal(err)
			}
			defer c.Close()
			_ = c.SetDeadline(time.Now().Add(patience))
			clients = append(clients, c)
		}
		served := async(func() {
			for {
				c, err := l.Accept()
				if err != nil {
					return
				}
				_, _ = c.Write([]byte("x"))
				_ = c.Close()
			}
		})
		waitFor(t, "Close does not return", closing(l))
		waitFor(t, "the loop does not end", served)
		for i, c := range clients {
			if b, err := io.ReadAll(c); err != nil || string(b) != "x" {
				t.Errorf("connection %d of %d got %q, %v", i+1, waiting, b, err)
			}
		}
	})
}

// Only Close makes Accept return ErrAlreadyClosed.
func TestAcceptError(t *testing.T) {
	inner := listenOn(t, "tcp")
	l := grace.NewListener(inner)
	if err := inner.(*net.TCPListener).SetDeadline(time.Unix(1, 0)); err != nil {
		t.Fatal(err)
	}
	if _, err := l.Accept(); !errors.Is(err, os.ErrDeadlineExceeded) {
		t.Errorf("Accept: %v, want os.ErrDeadlineExceeded", err)
	}
	waitFor(t, "Close waits for a connection that was not accepted", closing(l))
}

func TestNewListenerTwice(t *testing.T) {
	l := grace.NewListener(listenOn(t, "tcp"))
	if again := grace.NewListener(l); again != l {
		t.Error("a listener that counts is wrapped once more")
	}
}

// Programs look for these methods on the connections that they get. To wrap them
// must hide none.
func TestConnectionMethods(t *testing.T) {
	type always interface {
		CloseRead() error
		CloseWrite() error
		File() (*os.File, error)
		SetReadBuffer(int) error
		SetWriteBuffer(int) error
		SyscallConn() (syscall.RawConn, error)
	}
	type onTCP interface {
		io.ReaderFrom
		io.WriterTo
		SetKeepAlive(bool) error
		SetKeepAlivePeriod(time.Duration) error
		SetLinger(int) error
		SetNoDelay(bool) error
	}
	type onUnix interface {
		ReadMsgUnix(b, oob []byte) (n, oobn, flags int, addr *net.UnixAddr, err error)
		WriteMsgUnix(b, oob []byte, addr *net.UnixAddr) (n, oobn int, err error)
	}
	onEachNetwork(t, func(t *testing.T, network string) {
		l := grace.NewListener(listenOn(t, network))
		client, server := connect(t, l)
		if _, ok := server.(always); !ok {
			t.Errorf("%T lacks methods", server)
		}
		_, tcp := server.(onTCP)
		_, unix := server.(onUnix)
		if tcp != (network == "tcp") || unix != (network == "unix") {
			t.Errorf("%T has the methods of TCP: %t, of unix sockets: %t", server, tcp, unix)
		}
		if got, want := server.RemoteAddr().String(), client.LocalAddr().String(); network == "tcp" && got != want {
			t.Errorf("the remote address is %s, want %s", got, want)
		}

		// CloseWrite is no Close: the peer sees the end, and can still answer.
		if _, err := io.Copy(server, strings.NewReader("question")); err != nil {
			t.Fatal(err)
		}
		if err := server.(always).CloseWrite(); err != nil {
			t.Fatal(err)
		}
		if b, err := io.ReadAll(client); err != nil || string(b) != "question" {
			t.Errorf("the client got %q, %v", b, err)
		}
		closed := closing(l)
		untilRefused(t, l)
		if _, err := io.WriteString(client, "answer"); err != nil {
			t.Fatal(err)
		}
		_ = client.Close()
		var answer bytes.Buffer
		if _, err := io.Copy(&answer, server); err != nil || answer.String() != "answer" {
			t.Errorf("the server got %q, %v", &answer, err)
		}
		stillWaits(t, "CloseWrite counts as Close", closed)
		_ = server.Close()
		waitFor(t, "Close does not return", closed)
	})
}

// own is a Listener of the program's own: it has the methods that it must have,
// and connections of its own.
type own struct {
	l     grace.Listener
	tags  []string // so that == panics
	close func()
}

type ownConn struct{ net.Conn }

func (o own) Accept() (net.Conn, error) {
	c, err := o.l.Accept()
	if err != nil {
		return nil, err
	}
	return ownConn{c}, nil
}

func (o own) Close() error            { o.close(); return o.l.Close() }
func (o own) Addr() net.Addr          { return o.l.Addr() }
func (o own) File() (*os.File, error) { return o.l.File() }

func TestListenerOfTheProgram(t *testing.T) {
	onEachNetwork(t, func(t *testing.T, network string) {
		var closes atomic.Int32
		l := grace.NewListener(own{listenOn(t, network), []string{"mine"}, func() { closes.Add(1) }})
		_, server := connect(t, l)
		if f, err := l.File(); err == nil { // not on Windows
			_ = f.Close()
		}
		closed := closing(l)
		untilRefused(t, l)
		stillWaits(t, "Close does not wait", closed)
		_ = server.Close()
		waitFor(t, "Close does not return", closed)
		_ = l.Close()
		if n := closes.Load(); n != 1 {
			t.Errorf("its own Close was called %d times", n)
		}
	})
}

// File is a duplicate: what is done with it leaves the listener alone.
func TestListenerFile(t *testing.T) {
	onEachNetwork(t, func(t *testing.T, network string) {
		l := grace.NewListener(listenOn(t, network))
		f, err := l.File()
		if err != nil {
			t.Fatal(err)
		}
		if err := f.Close(); err != nil {
			t.Fatal(err)
		}
		_, server := connect(t, l)
		_ = server.Close()
		waitFor(t, "Close does not return", closing(l))
	})
}

// Whatever comes together: when Close has returned, every connection that Accept
// gave out has been closed, and Accept gives out no more.
func TestAcceptVersusClose(t *testing.T) {
	onEachNetwork(t, func(t *testing.T, network string) {
		for range 20 {
			l := grace.NewListener(listenOn(t, network))
			var closed atomic.Bool
			var loops, clients sync.WaitGroup
			var accepted sync.Once
			first := make(chan struct{})
			for range 3 {
				loops.Add(1)
				go func() {
					defer loops.Done()
					for {
						c, err := l.Accept()
						if err != nil {
							if err != grace.ErrAlreadyClosed {
								t.Errorf("Accept: %v", err)
							}
							return
						}
						loops.Add(1)
						go func() {
							defer loops.Done()
							_, _ = io.Copy(io.Discard, c)
							if closed.Load() {
								t.Error("Close has returned before the connection was closed")
							}
							_ = c.Close()
							_ = c.Close()
						}()
						accepted.Do(func() { close(first) })
					}
				}()
			}
			for range 3 {
				clients.Add(1)
				go func() {
					defer clients.Done()
					for range 20 {
						c, err := net.Dial(network, l.Addr().String())
						if err != nil {
							return // closed
						}
						_ = c.Close()
					}
				}()
			}
			waitFor(t, "nothing is accepted", first)
			waitFor(t, "Close does not return", async(func() {
				if err := l.Close(); err != nil {
					t.Errorf("Close: %v", err)
				}
				closed.Store(true)
			}))
			waitFor(t, "the loops do not end", async(loops.Wait))
			waitFor(t, "the clients do not end", async(clients.Wait))
		}
	})
}
