//go:build unix

package gracehttp

import (
	"bytes"
	"net"
	"runtime"
	"slices"
	"sync"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/facebookgo/grace/internal/accept"
	"github.com/facebookgo/grace/internal/handoff"
	"github.com/facebookgo/grace/internal/testbin/script"
)

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

// askConn asks the connection of a client to go; if settled, when the server has
// read all that was sent. Those of clients on a unix socket can't be told apart:
// all are asked.
func askConn(t testing.TB, s *server, client string, settled bool, pass func(*watch) bool) {
	// The connection may be able to go only when the test is over.
	var mu sync.Mutex
	over := false
	t.Cleanup(func() { mu.Lock(); over = true; mu.Unlock() })
	asked := false
	for deadline := time.Now().Add(30 * time.Second); !asked; runtime.Gosched() {
		for c := range s.app.tracker.all {
			if remote := c.conn.RemoteAddr().String(); remote == client || remote == "@" {
				for settled && accept.Queued(c.watch.socket) {
					runtime.Gosched()
				}
				c.watch.ask(func() bool {
					mu.Lock()
					defer mu.Unlock()
					return !over && pass(c.watch)
				})
				asked = true
			}
		}
		if time.Now().After(deadline) {
			t.Fatal("waited in vain for the connection to be accepted")
		}
	}
}

// hand gives a connection to another server, as one process does to another.
func hand(t testing.TB, c syscall.Conn, to *server) bool {
	d := descriptorOf(t, c)
	if !to.takeConns([]*handoff.Descriptor{d})[0] {
		t.Error("the connection was not taken")
		d.Close()
		return false
	}
	return true
}

// descriptorOf returns a descriptor of c, which stays open.
func descriptorOf(t testing.TB, c syscall.Conn) *handoff.Descriptor {
	t.Helper()
	raw, err := c.SyscallConn()
	if err != nil {
		t.Fatal(err)
	}
	var fd int
	if controlErr := raw.Control(func(of uintptr) { fd, err = unix.FcntlInt(of, unix.F_DUPFD_CLOEXEC, 0) }); controlErr != nil || err != nil {
		t.Fatal(controlErr, err)
	}
	return handoff.NewDescriptor(fd)
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
				askConn(t, from, client, true, func(w *watch) bool {
					ok := hand(t, w.socket, to)
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

// A connection that is asked to go in the middle of a request, at whatever byte,
// does not go before the answer.
func TestConnectionsDoNotGoWithinRequests(t *testing.T) {
	plain := startPlain(t)
	from, to := startServer(t, "tcp"), startServer(t, "tcp")
	for _, kind := range script.Followed {
		want := play(t, plain, script.Split(kind, 1), nil)
		for at := 1; at < len(kind(0)); at++ {
			s := script.Split(kind, at)
			got := play(t, from.listener.Addr(), s, func(client string) {
				askConn(t, from, client, true, func(w *watch) bool { return hand(t, w.socket, to) })
			})
			if !bytes.Equal(got, want) {
				t.Fatalf("got\n%q\nwant\n%q\nscript:\n%s", got, want, s)
			}
		}
	}
}

// A client whose connection goes to another server, or is asked to and stays, at
// any byte that it sends, gets what it would have got.
func FuzzHandOver(f *testing.F) {
	f.Add([]byte{}, true, false, false, false)
	long := bytes.Repeat([]byte("\x05\x01\x33\x02\xff\x07\x41"), 30)
	for i := range 14 { // bytes that mean something else each time
		f.Add(long[i:], i%2 == 0, i%3 == 0, i%5 == 0, i%4 < 2)
	}
	plain := startPlain(f)
	tcp := [2]*server{startServer(f, "tcp"), startServer(f, "tcp")}
	local := [2]*server{startServer(f, "unix"), startServer(f, "unix")}
	f.Fuzz(func(t *testing.T, data []byte, onTCP, closing, refuse, settled bool) {
		from, to := tcp[0], tcp[1]
		if !onTCP {
			from, to = local[0], local[1]
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
			askConn(t, from, client, settled, func(w *watch) bool { return !refuse && hand(t, w.socket, to) })
		})
		if !bytes.Equal(got, want) {
			t.Errorf("got\n%q\nwant\n%q\nscript:\n%s", got, want, s)
		}
	})
}
