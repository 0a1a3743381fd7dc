package grace_test

import (
	"io"
	"net"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/facebookgo/grace"
	"github.com/facebookgo/grace/internal/testbin/compare"
)

// What the library adds to what is done with a connection.

// usual is what is done with a connection again and again: c is the end of the server,
// which may be one of ours.
type usual struct {
	name string
	do   func(tb testing.TB, c, peer net.Conn) func(n int)
}

var usuals = []usual{
	{"read", func(tb testing.TB, c, peer net.Conn) func(int) { return pass(tb, peer, c) }},
	{"write", func(tb testing.TB, c, peer net.Conn) func(int) { return pass(tb, c, peer) }},
	{"file", func(tb testing.TB, c, peer net.Conn) func(int) {
		name := filepath.Join(tb.TempDir(), "file")
		if err := os.WriteFile(name, make([]byte, 100), 0o600); err != nil {
			tb.Fatal(err)
		}
		f, err := os.Open(name)
		if err != nil {
			tb.Fatal(err)
		}
		tb.Cleanup(func() { _ = f.Close() })
		b := make([]byte, 100)
		return func(n int) {
			for range n {
				_, err := f.Seek(0, io.SeekStart)
				if err == nil {
					_, err = io.CopyN(c, f, 100)
				}
				if err == nil {
					_, err = io.ReadFull(peer, b)
				}
				if err != nil {
					tb.Fatal(err)
				}
			}
		}
	}},
	{"idle", func(tb testing.TB, c, peer net.Conn) func(int) {
		read := pass(tb, peer, c)
		setIdle := func(bool) {}
		if c, ok := c.(grace.Conn); ok {
			setIdle = c.SetIdle
		}
		return func(n int) {
			for range n {
				setIdle(true)
				read(1)
				setIdle(false)
			}
		}
	}},
	{"deadlines", func(tb testing.TB, c, _ net.Conn) func(int) {
		return func(n int) {
			for range n {
				if err := c.SetDeadline(time.Now().Add(patience)); err != nil {
					tb.Fatal(err)
				}
			}
		}
	}},
}

// pass sends n times from one connection to another.
func pass(tb testing.TB, from io.Writer, to io.Reader) func(n int) {
	b := make([]byte, 100)
	return func(n int) {
		for range n {
			_, err := from.Write(b)
			if err == nil {
				_, err = io.ReadFull(to, b)
			}
			if err != nil {
				tb.Fatal(err)
			}
		}
	}
}

func TestConnAllocatesNothing(t *testing.T) {
	onEachNetwork(t, func(t *testing.T, network string) {
		peer, plain := connect(t, listenOn(t, network))
		ourPeer, ours := accepted(t, grace.NewListener(listenOn(t, network)))
		for _, u := range usuals {
			if n := compare.Allocations(100, u.do(t, plain, peer), u.do(t, ours, ourPeer)); n > 0 {
				t.Errorf("%s: %d allocations more", u.name, n)
			}
		}
	})
}

func TestAcceptAllocatesTheConn(t *testing.T) {
	onEachNetwork(t, func(t *testing.T, network string) {
		plain, ours := listenOn(t, network), grace.NewListener(listenOn(t, network))
		if n := compare.Allocations(50, compare.Accepts(t, plain), compare.Accepts(t, ours)); n > 1 {
			t.Errorf("%d allocations more, want that of the Conn", n)
		}
	})
}
