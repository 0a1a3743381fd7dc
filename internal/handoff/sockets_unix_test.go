//go:build unix

package handoff

import (
	"errors"
	"fmt"
	"net"
	"os"
	"reflect"
	"slices"
	"syscall"
	"testing"
)

// A program that closes a listener does not stop restarts, and one that opens
// and closes listeners does not grow.
func TestPrune(t *testing.T) {
	var p Process
	kept := listen(t, "tcp", "127.0.0.1:0")
	p.Add(kept, "tcp", ":1")
	closed := listen(t, "tcp", "127.0.0.1:0")
	p.Add(closed, "tcp", ":2")
	_ = closed.Close()
	p.prune()
	if got := names(&p); !slices.Equal(got, []string{"%3A1"}) {
		t.Errorf("passed on are %q, want only the one that is open", got)
	}
	for range 500 {
		l := listen(t, "tcp", "127.0.0.1:0")
		p.Add(l, "tcp", ":3")
		_ = l.Close()
	}
	if n := len(p.active); n > 100 {
		t.Errorf("%d sockets are kept for one that is open", n)
	}
}

func names(p *Process) []string {
	var names []string
	for _, s := range p.active {
		names = append(names, s.name)
	}
	return names
}

// A listener whose descriptor nobody can get at is served, and not passed on.
func TestAddWithoutDescriptor(t *testing.T) {
	var p Process
	l := struct{ net.Listener }{listen(t, "tcp", "127.0.0.1:0")}
	p.Add(l, "tcp", ":1")
	p.List([]net.Listener{l})
	if len(p.active) != 0 {
		t.Errorf("passed on are %q", names(&p))
	}
	if !p.LastHolder(l) {
		t.Error("another process is said to hold it")
	}
}

// wrapped is a listener of the program's own that shares the socket of another.
type wrapped struct{ *net.TCPListener }

func TestList(t *testing.T) {
	var p Process
	added := make([]net.Listener, 3)
	for i := range added {
		added[i] = listen(t, "tcp", "127.0.0.1:0")
		p.Add(added[i], "tcp4", fmt.Sprintf("asked %d", i))
	}
	p.active[2].foreign = true
	unknown := listen(t, "unix", socketPath(t))
	closed := listen(t, "tcp", "127.0.0.1:0")
	_ = closed.Close()
	p.List([]net.Listener{unknown, wrapped{added[2].(*net.TCPListener)}, closed, added[0]})

	// The listed ones come first, in their order. Those that are known keep what
	// is known about them, also where the program has wrapped them.
	type socket struct {
		name, network   string
		foreign, listed bool
	}
	want := []socket{
		{name: escapeName(unknown.Addr().String()), network: "unix", listed: true},
		{name: "asked%202", network: "tcp4", foreign: true, listed: true},
		{name: "asked%200", network: "tcp4", listed: true},
		{name: "asked%201", network: "tcp4"},
	}
	if len(p.active) != len(want) {
		t.Fatalf("%d sockets, want %d: %q", len(p.active), len(want), names(&p))
	}
	for i, s := range p.active {
		got := socket{s.name, s.network, s.foreign, s.listed}
		if got != want[i] {
			t.Errorf("socket %d is %+v, want %+v", i, got, want[i])
		}
	}
}

// Asked again, as by Restart and then Wait, List adds nothing.
func TestListAgain(t *testing.T) {
	var p Process
	a, b := listen(t, "tcp", "127.0.0.1:0"), listen(t, "unix", socketPath(t))
	p.List([]net.Listener{a, b})
	p.List([]net.Listener{a, b})
	if want := []string{escapeName(a.Addr().String()), escapeName(b.Addr().String())}; !slices.Equal(names(&p), want) {
		t.Errorf("passed on are %q, want %q", names(&p), want)
	}
}

// One socket is passed once, however often it is given.
func TestListTwice(t *testing.T) {
	var p Process
	a := listen(t, "tcp", "127.0.0.1:0")
	p.Add(a, "tcp4", "asked")
	p.active[0].foreign = true
	p.List([]net.Listener{a, wrapped{a.(*net.TCPListener)}, a})
	if len(p.active) != 1 || !p.active[0].foreign || p.active[0].name != "asked" {
		t.Errorf("passed on are %q, want what was added", names(&p))
	}
}

// oddAddr is the address of a program that has its own idea of networks.
type oddAddr struct{ net.Addr }

func (oddAddr) Network() string { return "my net,tcp+fl" }

type oddListener struct{ *net.TCPListener }

func (l oddListener) Addr() net.Addr { return oddAddr{l.TCPListener.Addr()} }

// What a program calls its network must not break the handover.
func TestListOfOddNetwork(t *testing.T) {
	var p Process
	p.List([]net.Listener{oddListener{listen(t, "tcp", "127.0.0.1:0").(*net.TCPListener)}})
	s := p.active[0]
	m := marker{parent: 812, sockets: []meta{{network: s.network, foreign: s.foreign, listed: s.listed}}}
	if got, err := parseMarker(m.String()); err != nil || !reflect.DeepEqual(got, m) {
		t.Errorf("%q is read as %+v, %v, want %+v", m, got, err, m)
	}
}

// Exactly one process of a family removes the path of a socket and accepts what
// waits for it: the last one that serves it.
func TestLastHolder(t *testing.T) {
	tests := []struct {
		name   string
		socket socket
		sole   bool                       // the process has no parent that stands by
		events func(p *Process, c *Child) // c was passed the socket at position 1
		last   bool
		unlink bool
	}{
		{"made here", socket{made: true}, true,
			func(*Process, *Child) {}, true, true},
		{"made here, parent stands by", socket{made: true}, false,
			func(*Process, *Child) {}, true, true},
		{"inherited, parent stands by", socket{}, false,
			func(*Process, *Child) {}, false, false},
		{"inherited, parent has gone", socket{}, false,
			func(p *Process, _ *Child) { p.sole = true }, true, true},
		{"from a service manager", socket{foreign: true}, true,
			func(*Process, *Child) {}, true, false},
		{"child serves", socket{made: true}, true,
			func(_ *Process, c *Child) { c.Hold("") }, false, false},
		{"child does not use another one", socket{made: true}, true,
			func(_ *Process, c *Child) { c.Hold("unused=0,2") }, false, false},
		{"child does not use it", socket{made: true}, true,
			func(_ *Process, c *Child) { c.Hold("unused=0,1") }, true, true},
		{"child says rubbish", socket{made: true}, true,
			func(_ *Process, c *Child) { c.Hold("unused=x,-1,99,,1x") }, false, false},
		{"inherited, child does not use it", socket{}, true,
			func(_ *Process, c *Child) { c.Hold("unused=1") }, true, true},
		{"child died", socket{made: true}, true,
			func(_ *Process, c *Child) { c.Hold(""); c.Release() }, true, true},
		{"inherited, child died", socket{}, true,
			func(_ *Process, c *Child) { c.Hold(""); c.Release() }, true, true},
		{"inherited, child died, parent stands by", socket{}, false,
			func(_ *Process, c *Child) { c.Hold(""); c.Release() }, false, false},
		{"child that did not use it died", socket{made: true}, true,
			func(_ *Process, c *Child) { c.Hold("unused=1"); c.Release() }, true, true},
		{"held twice, died once", socket{made: true}, true,
			func(_ *Process, c *Child) { c.Hold(""); c.Hold(""); c.Release(); c.Release() }, true, true},
		{"released but never held", socket{made: true}, true,
			func(_ *Process, c *Child) { c.Release() }, true, true},
		{"died before it was held", socket{made: true}, true,
			func(_ *Process, c *Child) { c.died = true; c.Hold("") }, true, true},
		{"child was replaced by its own", socket{made: true}, true,
			func(_ *Process, c *Child) { c.Hold(""); c.Replaced(2); c.Release() }, false, false},
		{"foreign, child died", socket{foreign: true}, true,
			func(_ *Process, c *Child) { c.Hold(""); c.Release() }, true, false},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			p := &Process{sole: tt.sole}
			l := listen(t, "unix", socketPath(t))
			s := tt.socket
			s.conn = l.(syscall.Conn)
			p.add(&socket{made: true, conn: listen(t, "tcp", "127.0.0.1:0").(syscall.Conn)})
			p.add(&s)
			c := &Child{parent: p, sockets: slices.Clone(p.active)}
			tt.events(p, c)
			if got := p.LastHolder(l); got != tt.last {
				t.Errorf("LastHolder is %t, want %t", got, tt.last)
			}
			path := l.Addr().String()
			if err := p.Close(l); err != nil {
				t.Errorf("Close: %v", err)
			}
			if _, err := os.Lstat(path); os.IsNotExist(err) != tt.unlink {
				t.Errorf("Close has removed the path: %t, want %t", os.IsNotExist(err), tt.unlink)
			}
		})
	}
}

// What is opened after a child was started is not served by it.
func TestLastHolderOfALaterSocket(t *testing.T) {
	p := &Process{sole: true}
	p.Add(listen(t, "tcp", "127.0.0.1:0"), "tcp", ":0")
	c := &Child{parent: p, sockets: slices.Clone(p.active)}
	path := socketPath(t)
	later := listen(t, "unix", path)
	p.Add(later, "unix", path)
	c.Hold("")
	if !p.LastHolder(later) {
		t.Error("the child is said to hold it")
	}
	_ = p.Close(later)
	if _, err := os.Lstat(path); !os.IsNotExist(err) {
		t.Errorf("Close leaves the path: %v", err)
	}
}

// Where two children were started, each has its own share.
func TestLastHolderOfTwoChildren(t *testing.T) {
	p := &Process{sole: true}
	l := listen(t, "tcp", "127.0.0.1:0")
	p.Add(l, "tcp", ":0")
	a := &Child{parent: p, sockets: slices.Clone(p.active)}
	b := &Child{parent: p, sockets: slices.Clone(p.active)}
	a.Hold("")
	b.Hold("unused=0")
	if p.LastHolder(l) {
		t.Error("the child that serves it is forgotten")
	}
	a.Release()
	if !p.LastHolder(l) {
		t.Error("the child that does not use it is said to hold it")
	}
	b.Release()
	if !p.LastHolder(l) {
		t.Error("a child that has died is said to hold it")
	}
}

// A program may have put a listener of ours into one of its own, whose Close
// removes the path as well.
func TestCloseOfWrapped(t *testing.T) {
	type embeds struct{ *net.UnixListener }
	type hides struct {
		net.Listener
		syscall.Conn
	}
	for name, wrap := range map[string]func(*net.UnixListener) net.Listener{
		"embeds": func(l *net.UnixListener) net.Listener { return embeds{l} },
		"hides":  func(l *net.UnixListener) net.Listener { return hides{l, l} },
	} {
		for _, served := range []bool{true, false} {
			p := &Process{sole: true}
			path := socketPath(t)
			inner := listen(t, "unix", path).(*net.UnixListener)
			p.Add(inner, "unix", path)
			l := wrap(inner)
			p.List([]net.Listener{l})
			c := &Child{parent: p, sockets: slices.Clone(p.active)}
			if served {
				c.Hold("")
			}
			if last := p.LastHolder(l); last == served {
				t.Errorf("%s: LastHolder is %t, a child serves it: %t", name, last, served)
			}
			if err := p.Close(l); err != nil {
				t.Errorf("%s: Close: %v", name, err)
			}
			if _, err := os.Lstat(path); os.IsNotExist(err) == served {
				t.Errorf("%s: Close has removed the path: %t, a child serves it: %t", name, os.IsNotExist(err), served)
			}
		}
	}
}

// A program may close its listener without us, such as when Serve has returned.
// That must not remove the path under the child that serves it.
func TestCloseByTheProgram(t *testing.T) {
	for _, tt := range []struct {
		name   string
		events func(c *Child)
		unlink bool
	}{
		{"no child", func(*Child) {}, true},
		{"child serves", func(c *Child) { c.Hold("") }, false},
		{"child does not use it", func(c *Child) { c.Hold("unused=0") }, true},
		{"child died", func(c *Child) { c.Hold(""); c.Release() }, true},
	} {
		p := &Process{sole: true}
		path := socketPath(t)
		l := listen(t, "unix", path)
		p.Add(l, "unix", path)
		tt.events(&Child{parent: p, sockets: slices.Clone(p.active)})
		if err := l.Close(); err != nil {
			t.Errorf("%s: Close: %v", tt.name, err)
		}
		if _, err := os.Lstat(path); os.IsNotExist(err) != tt.unlink {
			t.Errorf("%s: Close has removed the path: %t, want %t", tt.name, os.IsNotExist(err), tt.unlink)
		}
	}
}

// Close of a listener that is not passed on is its own.
func TestCloseOfUnknown(t *testing.T) {
	p := &Process{sole: true}
	path := socketPath(t)
	l := listen(t, "unix", path)
	if err := p.Close(l); err != nil {
		t.Errorf("Close: %v", err)
	}
	if _, err := os.Lstat(path); !os.IsNotExist(err) {
		t.Errorf("Close leaves the path: %v", err)
	}
	if err := p.Close(l); !errors.Is(err, net.ErrClosed) {
		t.Errorf("the second Close: %v, want net.ErrClosed", err)
	}
}

// A program may put its listener in a type that == can't compare.
type incomparable struct {
	*net.TCPListener
	_ []string
}

func TestIncomparableListener(t *testing.T) {
	var p Process
	l := incomparable{TCPListener: listen(t, "tcp", "127.0.0.1:0").(*net.TCPListener)}
	p.List([]net.Listener{l})
	p.List([]net.Listener{l})
	if len(p.active) != 1 {
		t.Errorf("passed on are %q", names(&p))
	}
	if !p.LastHolder(l) {
		t.Error("another process is said to hold it")
	}
}
