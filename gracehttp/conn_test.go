//go:build unix

package gracehttp

import (
	"bytes"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"path/filepath"
	"reflect"
	"runtime"
	"strings"
	"syscall"
	"testing"
	"time"
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
