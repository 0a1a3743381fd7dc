//go:build unix

package gracehttp

import (
	"bytes"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"testing"
	"time"

	"github.com/facebookgo/grace/internal/accept"
	"github.com/facebookgo/grace/internal/handoff"
	"github.com/facebookgo/grace/internal/testbin/script"
)

// startServer is a server of an app that hands connections over.
func startServer(t testing.TB, network string) *server {
	t.Helper()
	addr := "127.0.0.1:0"
	if network == "unix" {
		addr = filepath.Join(t.TempDir(), "s")
	}
	l, err := net.Listen(network, addr)
	if err != nil {
		t.Fatal(err)
	}
	a := newApp([]*http.Server{{Handler: http.HandlerFunc(script.Handler)}})
	a.handOverIdle = true
	s := a.servers[0]
	s.listener = accept.New(l, func(l net.Listener) error { return l.Close() })
	s.prepare()
	go func() { _ = s.serve() }()
	t.Cleanup(func() {
		_ = s.http.Close()
		<-s.served
		s.handed.finish()
	})
	return s
}

// startPlain is a server that nothing disturbs.
func startPlain(t testing.TB) net.Addr {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	s := &http.Server{Handler: http.HandlerFunc(script.Handler)}
	served := make(chan struct{})
	go func() { defer close(served); _ = s.Serve(l) }()
	t.Cleanup(func() {
		_ = s.Close()
		<-served
	})
	return l.Addr()
}

// play plays s to a server, and calls turn with the address of the client.
func play(t testing.TB, addr net.Addr, s script.Script, turn func(client string)) []byte {
	t.Helper()
	c, err := net.Dial(addr.Network(), addr.String())
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	if err := c.SetDeadline(time.Now().Add(30 * time.Second)); err != nil {
		t.Fatal(err)
	}
	answers, err := s.Play(c, func() {
		if turn != nil {
			turn(c.LocalAddr().String())
		}
	})
	if err != nil {
		t.Fatalf("%v, after %q\nscript:\n%s", err, answers, s)
	}
	return answers
}

// askConn asks the connection of a client to go. Those of clients on a unix
// socket can't be told apart: all are asked.
func askConn(s *server, client string, pass func(*watch) bool) {
	for c := range s.app.tracker.all {
		if remote := c.conn.RemoteAddr().String(); remote == client || remote == "@" {
			c.watch.ask(func() bool { return pass(c.watch) })
		}
	}
}

// hand gives a connection to another server, as one process does to another.
func hand(t testing.TB, w *watch, to *server) bool {
	f, err := w.socket.(interface{ File() (*os.File, error) }).File()
	if err != nil {
		t.Error(err)
		return false
	}
	defer f.Close()
	c, err := net.FileConn(f)
	if err != nil {
		t.Error(err)
		return false
	}
	if !to.takeConn(c) {
		t.Error("the connection was not taken")
		return false
	}
	return true
}

// After each kind of request that is understood, a connection goes, and after no
// other.
func TestConnectionsGoAfterRequests(t *testing.T) {
	plain := startPlain(t)
	for _, network := range []string{"tcp", "unix"} {
		from, to := startServer(t, network), startServer(t, network)
		check := func(kind script.Kind, goes bool) {
			s := script.Sequence(kind, kind, script.Followed[0])
			want := play(t, plain, s, nil)
			asked := false
			got := play(t, from.listener.Addr(), s, func(client string) {
				handed := make(chan bool, 10)
				askConn(from, client, func(w *watch) bool {
					ok := hand(t, w, to)
					handed <- ok
					return ok
				})
				asked = true
				if goes {
					select {
					case <-handed:
					case <-time.After(30 * time.Second):
						t.Errorf("after %q the connection did not go", kind(0))
					}
				}
				// Otherwise the next request would be lost if it went.
			})
			if !asked || !bytes.Equal(got, want) {
				t.Errorf("got\n%q\nwant\n%q", got, want)
			}
		}
		for _, kind := range script.Followed {
			check(kind, true)
		}
		before := to.app.tracker.open.Load()
		for _, kind := range script.Strange {
			check(kind, false)
		}
		if n := to.app.tracker.open.Load(); n > before {
			t.Errorf("%d connections went that are not understood", n-before)
		}
	}
}

// A client whose connection goes to another server, or is asked to and stays, at
// any byte that it sends, gets what it would have got.
func FuzzHandOver(f *testing.F) {
	f.Add([]byte{0}, true, false, false)
	f.Add([]byte("\x00\x00\xff\x00\x00"), true, false, false)                // before the request
	f.Add([]byte("\x00\x00\xff\x00\x01"), false, true, false)                // after it
	f.Add([]byte("\x07\x02\x04\x05\x06\x00\x01\x02\x03"), true, true, false) // a byte at a time
	f.Add([]byte("\x03\x00\x03\x04\x05\xff\x01\xff\x01\xff\x01\xff\x01\x02"), true, true, false)
	f.Add([]byte("\x03\x00\x03\x04\x05\x40\x00\x20\x01\x60\x01\x33\x01\x02"), false, true, false)
	f.Add([]byte("\x02\x08\x09\x0a\xff\x01\xff\x01\xff\x01\x01"), true, false, true)
	plain := startPlain(f)
	tcp := [2]*server{startServer(f, "tcp"), startServer(f, "tcp")}
	unix := [2]*server{startServer(f, "unix"), startServer(f, "unix")}
	f.Fuzz(func(t *testing.T, data []byte, onTCP, closing, refuse bool) {
		from, to := tcp[0], tcp[1]
		if !onTCP {
			from, to = unix[0], unix[1]
		}
		kinds := script.Followed
		if closing {
			// Answers close connections now, but not those that can go.
			refuse = false
			from.heir.Store(new(handoff.Child))
		} else {
			from.heir.Store(nil)
			kinds = slices.Concat(kinds, script.Strange)
		}
		from.app.tracker.closing.Store(closing)
		s := script.New(data, kinds)
		want := play(t, plain, s, nil)
		got := play(t, from.listener.Addr(), s, func(client string) {
			askConn(from, client, func(w *watch) bool { return !refuse && hand(t, w, to) })
		})
		if !bytes.Equal(got, want) {
			t.Errorf("got\n%q\nwant\n%q\nscript:\n%s", got, want, s)
		}
	})
}
