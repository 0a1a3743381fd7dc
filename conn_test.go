package grace_test

import (
	"bufio"
	"context"
	"crypto/tls"
	"errors"
	"io"
	"net"
	"os"
	"reflect"
	"testing"
	"time"

	"github.com/facebookgo/grace"
)

// accepted makes a connection to l, and fails the test unless it is a grace.Conn.
func accepted(t testing.TB, l net.Listener) (client net.Conn, server grace.Conn) {
	t.Helper()
	client, c := connect(t, l)
	server, ok := c.(grace.Conn)
	if !ok {
		t.Fatalf("%T is no Conn", c)
	}
	return client, server
}

func drainer(t *testing.T, l grace.Listener) grace.Drainer {
	t.Helper()
	d, ok := grace.NewListener(l).(grace.Drainer)
	if !ok {
		t.Fatal("NewListener makes no Drainer")
	}
	return d
}

func wantCause(t *testing.T, ctx context.Context, cause error) {
	t.Helper()
	if ctx.Err() != context.Canceled || context.Cause(ctx) != cause {
		t.Errorf("the context has ended with %v, cause %v, want %v", ctx.Err(), context.Cause(ctx), cause)
	}
}

// wantEOF waits until c is closed by the other side.
func wantEOF(t *testing.T, c net.Conn) {
	t.Helper()
	if b, err := io.ReadAll(c); err != nil || len(b) != 0 {
		t.Errorf("received %q, %v, want EOF", b, err)
	}
}

// staysOpen fails the test if reading from c has come to an end.
func staysOpen(t *testing.T, c net.Conn) {
	t.Helper()
	_ = c.SetReadDeadline(time.Now().Add(moment))
	if n, err := c.Read(make([]byte, 1)); !errors.Is(err, os.ErrDeadlineExceeded) {
		t.Errorf("received %d bytes, %v, want nothing", n, err)
	}
}

func TestContext(t *testing.T) {
	for name, end := range map[string]func(grace.Drainer) error{
		"Close":    grace.Drainer.Close,
		"Shutdown": func(d grace.Drainer) error { return d.Shutdown(context.Background()) },
	} {
		t.Run(name, func(t *testing.T) {
			onEachNetwork(t, func(t *testing.T, network string) {
				l := drainer(t, listenOn(t, network))
				_, gone := accepted(t, l)
				before := gone.Context()
				_, late := accepted(t, l)
				_, c := accepted(t, l)
				ctx := c.Context()
				if c.Context() != ctx {
					t.Error("another context each time")
				}
				if ctx.Err() != nil || before.Err() != nil || l.Context().Err() != nil {
					t.Error("a context has ended before the drain")
				}
				_ = gone.Close()
				wantCause(t, before, net.ErrClosed)
				_ = late.Close()
				wantCause(t, late.Context(), net.ErrClosed)

				closed := async(func() { _ = end(l) })
				waitFor(t, "the handler is not told", ctx.Done())
				wantCause(t, ctx, grace.ErrDraining)
				waitFor(t, "the accept loop is not told", l.Context().Done())
				wantCause(t, l.Context(), grace.ErrDraining)
				stillWaits(t, "Close does not wait", closed)
				_ = c.Close()
				waitFor(t, "Close does not return", closed)
				wantCause(t, ctx, grace.ErrDraining)
				wantCause(t, before, net.ErrClosed)
			})
		})
	}
}

// late is a listener on a busy machine: its Accept gets on only when told to, after
// it has accepted.
type late struct {
	own
	taken, release chan struct{}
}

func (l late) Accept() (net.Conn, error) {
	c, err := l.own.Accept()
	if err == nil {
		close(l.taken)
		<-l.release
	}
	return c, err
}

// acceptLate lets a connection be accepted, but Accept return it only after f.
func acceptLate(t *testing.T, network string, f func(l grace.Drainer)) (l grace.Drainer, c grace.Conn) {
	t.Helper()
	inner := late{own{listenOn(t, network), nil, func() {}}, make(chan struct{}), make(chan struct{})}
	l = drainer(t, inner)
	client, err := net.Dial(network, inner.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = client.Close() })
	var conn net.Conn
	done := async(func() { conn, err = l.Accept() })
	waitFor(t, "nothing is accepted", inner.taken)
	f(l)
	close(inner.release)
	waitFor(t, "Accept does not return", done)
	if err != nil {
		t.Fatal(err)
	}
	_ = conn.SetDeadline(time.Now().Add(patience))
	return l, conn.(grace.Conn)
}

// A connection that is accepted at the very end is told at once, and its time of
// grace begins when it becomes idle.
func TestContextOfLateConnection(t *testing.T) {
	onEachNetwork(t, func(t *testing.T, network string) {
		var closed <-chan struct{}
		l, c := acceptLate(t, network, func(l grace.Drainer) {
			closed = closing(l)
			waitFor(t, "the listener is not told", l.Context().Done())
		})
		untilRefused(t, l)
		wantCause(t, c.Context(), grace.ErrDraining)
		stillWaits(t, "Close does not wait for a connection that came late", closed)
		c.SetIdle(true)
		waitFor(t, "Close does not return", closed)
		_ = c.Close()
	})
}

// The time of grace begins with the drain, or when a connection becomes idle. The
// handler reads an end of file, and can still write.
func TestIdleGrace(t *testing.T) {
	onEachNetwork(t, func(t *testing.T, network string) {
		l := grace.NewListener(listenOn(t, network))
		client, first := accepted(t, l)
		_, second := accepted(t, l)
		_, never := accepted(t, l)
		_, again := accepted(t, l)
		first.SetIdle(true)
		again.SetIdle(true)
		again.SetIdle(false)
		begin := time.Now()
		closed := closing(l)
		wantEOF(t, first)
		if d := time.Since(begin); d < grace.DefaultIdleGrace {
			t.Errorf("closed after %v", d)
		}
		_, writeErr := io.WriteString(first, "bye")
		_ = first.Close()
		b, err := io.ReadAll(client)
		// The handler has a second, which a busy machine may need for something else.
		inTime := time.Since(begin) < grace.DefaultIdleGrace+time.Second
		if (writeErr != nil || err != nil || string(b) != "bye") && inTime {
			t.Errorf("the handler could write: %v, the client got %q, %v", writeErr, b, err)
		}

		begin = time.Now()
		second.SetIdle(true)
		wantEOF(t, second)
		if d := time.Since(begin); d < grace.DefaultIdleGrace {
			t.Errorf("what became idle during the drain is closed after %v", d)
		}
		_ = second.Close()
		for _, c := range []net.Conn{never, again} {
			staysOpen(t, c)
			stillWaits(t, "Close does not wait for what is not idle", closed)
			_ = c.Close()
		}
		waitFor(t, "Close does not return", closed)
	})
}

// A request is read, whole or half, however late the handler comes to it.
func TestUnreadRequest(t *testing.T) {
	onEachNetwork(t, func(t *testing.T, network string) {
		l := grace.NewListener(listenOn(t, network))
		ignored, empty := accepted(t, l)
		unread, c := accepted(t, l)
		half, d := accepted(t, l)
		for _, c := range []grace.Conn{empty, c, d} {
			c.SetIdle(true)
		}
		for _, c := range []net.Conn{unread, half} {
			if _, err := io.WriteString(c, "que"); err != nil {
				t.Fatal(err)
			}
		}
		// The first byte makes it busy, without a word of the handler.
		if b := make([]byte, 1); func() error { _, err := io.ReadFull(d, b); return err }() != nil {
			t.Fatal("nothing is received")
		}
		closed := closing(l)
		wantEOF(t, ignored) // even the time for handlers that do not read is over
		for client, server := range map[net.Conn]net.Conn{unread: c, half: d} {
			stillWaits(t, "Close does not wait for a request that has come", closed)
			if _, err := io.WriteString(client, "stion\n"); err != nil {
				t.Errorf("the rest of the request: %v", err)
			}
			if line, err := bufio.NewReader(server).ReadString('\n'); err != nil {
				t.Errorf("the handler gets %q, %v", line, err)
			}
			if _, err := io.WriteString(server, "answer"); err != nil {
				t.Error(err)
			}
			_ = server.Close()
			if b, err := io.ReadAll(client); err != nil || string(b) != "answer" {
				t.Errorf("the client gets %q, %v", b, err)
			}
		}
		waitFor(t, "Close does not return", closed)
	})
}

// A handler that says that it is idle and does not read holds up nothing.
func TestIdleHandlerDoesNotRead(t *testing.T) {
	onEachNetwork(t, func(t *testing.T, network string) {
		l := grace.NewListener(listenOn(t, network))
		client, c := accepted(t, l)
		c.SetIdle(true)
		closed := closing(l)
		wantEOF(t, client)
		waitFor(t, "Close does not return", closed)
		waitFor(t, "the handler is not told", c.Context().Done())
		_ = c.Close()
	})
}

// When the context ends, connections are closed: a handler in Read or Write comes
// back. The cause is returned.
func TestShutdownDeadline(t *testing.T) {
	onEachNetwork(t, func(t *testing.T, network string) {
		l := drainer(t, listenOn(t, network))
		_, reading := accepted(t, l)
		_, writing := accepted(t, l)
		_, idle := accepted(t, l)
		idle.SetIdle(true)
		var errs [2]error
		read := async(func() { _, errs[0] = reading.Read(make([]byte, 1)) })
		written := async(func() {
			for errs[1] == nil {
				_, errs[1] = writing.Write(make([]byte, 1<<16))
			}
		})
		ctx, cancel := context.WithCancelCause(context.Background())
		var err error
		shut := async(func() { err = l.Shutdown(ctx) })
		untilRefused(t, l)
		stillWaits(t, "Shutdown does not wait", shut)
		stillWaits(t, "a connection is closed before the deadline", read)
		stillWaits(t, "a connection is closed before the deadline", written)
		late := errors.New("too late")
		cancel(late)
		waitFor(t, "Shutdown does not return", shut)
		if err != late {
			t.Errorf("Shutdown: %v, want the cause", err)
		}
		waitFor(t, "Read does not return", read)
		waitFor(t, "Write does not return", written)
		for _, err := range errs {
			if !errors.Is(err, net.ErrClosed) {
				t.Errorf("the handler gets %v, want net.ErrClosed", err)
			}
		}
		// Another Shutdown waits for the handlers, which have not closed theirs.
		again := async(func() { err = l.Shutdown(context.Background()) })
		stillWaits(t, "Shutdown does not wait for the handlers", again)
		for _, c := range []net.Conn{reading, writing, idle} {
			_ = c.Close()
		}
		waitFor(t, "Shutdown does not return", again)
		if err != nil {
			t.Errorf("Shutdown of what is closed: %v", err)
		}
	})
}

// What is accepted after the deadline is closed, and counts like the others.
func TestShutdownWithEndedContext(t *testing.T) {
	onEachNetwork(t, func(t *testing.T, network string) {
		l, c := acceptLate(t, network, func(l grace.Drainer) {
			ctx, cancel := context.WithCancel(context.Background())
			cancel()
			if err := l.Shutdown(ctx); err != context.Canceled {
				t.Errorf("Shutdown: %v", err)
			}
		})
		if _, err := c.Read(make([]byte, 1)); !errors.Is(err, net.ErrClosed) {
			t.Errorf("Read: %v, want net.ErrClosed", err)
		}
		closed := closing(l)
		stillWaits(t, "Close does not wait for the handler", closed)
		_ = c.Close()
		waitFor(t, "Close does not return", closed)
	})
}

// The listener of a program has connections of its own. What is known of them is
// less, but they are told, and closed.
func TestConnOfTheProgram(t *testing.T) {
	onEachNetwork(t, func(t *testing.T, network string) {
		l := grace.NewListener(own{listenOn(t, network), nil, func() {}})
		_, c := accepted(t, l)
		_, other := accepted(t, l)
		c.SetIdle(true)
		read := async(func() {
			_, _ = c.Read(make([]byte, 1))
			_ = c.Close()
		})
		closed := closing(l)
		waitFor(t, "the handler is not told", c.Context().Done())
		waitFor(t, "an idle connection is not closed", read)
		stillWaits(t, "Close does not wait", closed)
		_ = other.Close()
		waitFor(t, "Close does not return", closed)
	})
}

// TLS is on top.
func TestConnBelowTLS(t *testing.T) {
	l := grace.NewListener(listenOn(t, "tcp"))
	encrypted := tls.NewListener(l, &tls.Config{})
	_, c := connect(t, encrypted)
	if _, ok := c.(*tls.Conn).NetConn().(grace.Conn); !ok {
		t.Errorf("below TLS there is a %T", c.(*tls.Conn).NetConn())
	}
}

// A deadline of the program ends Accept, and can be taken back.
func TestSetDeadline(t *testing.T) {
	onEachNetwork(t, func(t *testing.T, network string) {
		l := drainer(t, listenOn(t, network))
		begin := time.Now()
		if err := l.SetDeadline(begin.Add(moment)); err != nil {
			t.Fatal(err)
		}
		for range 2 {
			if _, err := l.Accept(); !errors.Is(err, os.ErrDeadlineExceeded) {
				t.Errorf("Accept: %v, want os.ErrDeadlineExceeded", err)
			}
		}
		if d := time.Since(begin); d < moment {
			t.Errorf("Accept returns after %v", d)
		}
		if err := l.SetDeadline(time.Time{}); err != nil {
			t.Fatal(err)
		}
		_, c := accepted(t, l)
		_ = c.Close()
		_ = l.Close()
		if err := l.SetDeadline(time.Time{}); !errors.Is(err, net.ErrClosed) {
			t.Errorf("SetDeadline after Close: %v, want net.ErrClosed", err)
		}
		without := drainer(t, own{listenOn(t, network), nil, func() {}})
		if err := without.SetDeadline(time.Time{}); err != os.ErrNoDeadline {
			t.Errorf("SetDeadline of a listener that has none: %v", err)
		}
	})
}

// To wrap a connection must hide none of its methods, whichever release of Go adds
// them.
func TestNoMethodIsHidden(t *testing.T) {
	onEachNetwork(t, func(t *testing.T, network string) {
		_, c := accepted(t, grace.NewListener(listenOn(t, network)))
		bare := map[string]reflect.Type{"tcp": reflect.TypeFor[*net.TCPConn](), "unix": reflect.TypeFor[*net.UnixConn]()}[network]
		for i := range bare.NumMethod() {
			m := bare.Method(i)
			got := reflect.ValueOf(c).MethodByName(m.Name)
			if !got.IsValid() || got.Type().NumIn() != m.Type.NumIn()-1 || got.Type().NumOut() != m.Type.NumOut() {
				t.Errorf("%T lacks %s%s", c, m.Name, m.Type)
			}
		}
	})
}
