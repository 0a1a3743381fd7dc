//go:build unix

package handoff

import (
	"bufio"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"path/filepath"
	"reflect"
	"runtime"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// patience is how long a test waits for what must happen.
const patience = 30 * time.Second

func listen(t *testing.T, network, addr string) net.Listener {
	t.Helper()
	l, err := net.Listen(network, addr)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = l.Close() })
	return l
}

// socketPath returns a path for a unix socket. That of t.TempDir may be too long
// for one.
func socketPath(t *testing.T) string {
	t.Helper()
	dir, err := os.MkdirTemp("", "grace")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = os.RemoveAll(dir) })
	return filepath.Join(dir, "s")
}

// fdOf returns the descriptor of c, without what Fd does to it. c must stay open.
func fdOf(t *testing.T, c any) int {
	t.Helper()
	fd := -1
	raw, err := c.(syscall.Conn).SyscallConn()
	if err == nil {
		err = raw.Control(func(s uintptr) { fd = int(s) })
	}
	if err != nil {
		t.Fatal(err)
	}
	return fd
}

func nonblocking(t *testing.T, fd int) bool {
	t.Helper()
	flags, err := unix.FcntlInt(uintptr(fd), unix.F_GETFL, 0)
	if err != nil {
		t.Fatal(err)
	}
	return flags&unix.O_NONBLOCK != 0
}

func closeOnExec(t *testing.T, fd int) bool {
	t.Helper()
	flags, err := unix.FcntlInt(uintptr(fd), unix.F_GETFD, 0)
	if err != nil {
		t.Fatal(err)
	}
	return flags&unix.FD_CLOEXEC != 0
}

// rawSocket returns a socket as a service manager passes it: blocking, and not
// close-on-exec.
func rawSocket(t *testing.T, domain, typ int) int {
	t.Helper()
	fd, err := unix.Socket(domain, typ, 0)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = unix.Close(fd) })
	return fd
}

// closedFD is the number of a descriptor that is not open: nobody else here gets
// that far.
func closedFD(t *testing.T) int {
	t.Helper()
	fd, err := unix.FcntlInt(uintptr(rawSocket(t, unix.AF_UNIX, unix.SOCK_STREAM)), unix.F_DUPFD_CLOEXEC, 200)
	if err != nil {
		t.Fatal(err)
	}
	_ = unix.Close(fd)
	return fd
}

// File and Fd, which os/exec uses, make the live listener blocking: its next
// Accept then blocks a thread that nothing wakes (golang/go#29277).
func TestDup(t *testing.T) {
	for _, network := range []string{"tcp", "unix"} {
		t.Run(network, func(t *testing.T) {
			addr := "127.0.0.1:0"
			if network == "unix" {
				addr = socketPath(t)
			}
			l := listen(t, network, addr)
			live := fdOf(t, l)

			fd, err := dup(l.(syscall.Conn))
			if err != nil {
				t.Fatal(err)
			}
			defer closeFD(fd)
			if !nonblocking(t, live) || !nonblocking(t, fd) {
				t.Error("dup has made the listener blocking")
			}
			if !closeOnExec(t, fd) {
				t.Error("the duplicate would leak into every process that the program starts")
			}
			if a, b := identity(t, live), identity(t, fd); a != b || fd == live {
				t.Errorf("descriptor %d is %v and its duplicate %d is %v", live, a, fd, b)
			}

			// The control: were this not so any more, dup could be simpler.
			f, err := l.(interface{ File() (*os.File, error) }).File()
			if err != nil {
				t.Fatal(err)
			}
			defer f.Close()
			_ = f.Fd()
			if nonblocking(t, live) {
				t.Error("Fd has left the listener non-blocking")
			}
		})
	}
}

func TestDupOfClosedListener(t *testing.T) {
	l := listen(t, "tcp", "127.0.0.1:0")
	_ = l.Close()
	if fd, err := dup(l.(syscall.Conn)); !errors.Is(err, net.ErrClosed) || fd != -1 {
		t.Errorf("got %d, %v, want -1 and net.ErrClosed", fd, err)
	}
}

func identity(t *testing.T, fd int) fileID {
	t.Helper()
	id, err := identify(fd)
	if err != nil {
		t.Fatal(err)
	}
	return id
}

func TestCheckSocket(t *testing.T) {
	open := func(f *os.File, err error) int {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { _ = f.Close() })
		return fdOf(t, f)
	}
	tcp := listen(t, "tcp", "127.0.0.1:0")
	conn, err := net.Dial("tcp", tcp.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	udp, err := net.ListenPacket("udp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer udp.Close()
	pipeR, pipeW, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	defer pipeW.Close()
	pair, other, err := socketpair()
	if err != nil {
		t.Fatal(err)
	}
	defer closeFD(pair)
	defer closeFD(other)

	tests := []struct {
		name string
		fd   int
		want error // nil: it is fine; errAny: any error
	}{
		{"tcp", fdOf(t, tcp), nil},
		{"unix", fdOf(t, listen(t, "unix", socketPath(t))), nil},
		{"udp", fdOf(t, udp), nil},
		{"unix datagram", rawSocket(t, unix.AF_UNIX, unix.SOCK_DGRAM), nil},
		{"regular file", open(os.Create(filepath.Join(t.TempDir(), "f"))), unix.ENOTSOCK},
		{"directory", open(os.Open(t.TempDir())), unix.ENOTSOCK},
		{"device", open(os.Open(os.DevNull)), unix.ENOTSOCK},
		{"pipe", open(pipeR, nil), unix.ENOTSOCK},
		{"connected", fdOf(t, conn), errAny},
		{"one of a pair", pair, errAny},
		{"does not listen yet", rawSocket(t, unix.AF_INET, unix.SOCK_STREAM), errAny},
		{"closed", closedFD(t), unix.EBADF},
		{"negative", -1, unix.EBADF},
	}
	for _, tt := range tests {
		_, err := checkSocket(tt.fd)
		switch {
		case tt.want == errAny && err != nil:
		case !errors.Is(err, tt.want):
			t.Errorf("%s: got %v, want %v", tt.name, err, tt.want)
		}
	}
}

var errAny = errors.New("any error")

func TestSocketAddr(t *testing.T) {
	tests := []struct {
		network, addr string
		linux         bool // known there alone
	}{
		{"tcp4", "127.0.0.1:0", false},
		{"tcp4", "0.0.0.0:0", false},
		{"tcp6", "[::1]:0", false},
		{"tcp6", "[::]:0", false},
		{"tcp", ":0", false},
		{"tcp", "0.0.0.0:0", false},
		{"unix", socketPath(t), false},
		{"unix", fmt.Sprintf("@grace-%d-stream", os.Getpid()), true},
		{"unixpacket", socketPath(t), true},
		{"unixpacket", fmt.Sprintf("@grace-%d-packet", os.Getpid()), true},
	}
	for _, tt := range tests {
		t.Run(tt.network+" "+tt.addr, func(t *testing.T) {
			if tt.linux && runtime.GOOS != "linux" {
				return // only Linux has these
			}
			l, err := net.Listen(tt.network, tt.addr)
			if err != nil && tt.network == "tcp6" {
				t.Fatal(err)
			}
			if err != nil {
				t.Fatal(err)
			}
			defer l.Close()
			sameAddr(t, l)
		})
	}
}

func TestSocketAddrOfDatagrams(t *testing.T) {
	for _, tt := range []struct{ network, addr string }{
		{"udp4", "127.0.0.1:0"},
		{"udp6", "[::1]:0"},
		{"udp", ":0"},
		{"unixgram", socketPath(t)},
	} {
		c, err := net.ListenPacket(tt.network, tt.addr)
		if err != nil {
			t.Fatal(err)
		}
		isAddr(t, fdOf(t, c), c.LocalAddr())
		if typ, err := checkSocket(fdOf(t, c)); err != nil || !typ.isDatagram() {
			t.Errorf("%s is no datagram socket: %v", tt.network, err)
		}
		_ = c.Close()
	}
	if typ, err := checkSocket(fdOf(t, listen(t, "tcp", "127.0.0.1:0"))); err != nil || typ.isDatagram() {
		t.Error("tcp is a datagram socket")
	}
}

func sameAddr(t *testing.T, l net.Listener) {
	t.Helper()
	isAddr(t, fdOf(t, l), l.Addr())
}

func isAddr(t *testing.T, fd int, want net.Addr) {
	t.Helper()
	typ, err := checkSocket(fd)
	if err != nil {
		t.Fatal(err)
	}
	got := socketAddr(fd, typ)
	if got == nil || got.Network() != want.Network() || got.String() != want.String() {
		t.Errorf("got %v, want %s %s", got, want.Network(), want)
	}
}

// A link-local address has a zone, which the kernel knows as a number.
func TestSocketAddrWithZone(t *testing.T) {
	for _, addr := range linkLocal() {
		var config net.ListenConfig
		config.SetMultipathTCP(false) // Linux does not tell the zone of such a socket
		l, err := config.Listen(t.Context(), "tcp6", addr)
		if err != nil {
			continue // an address may be tentative, or gone
		}
		if a := l.Addr().(*net.TCPAddr); a.Zone == "" {
			t.Errorf("%s has no zone", a)
		}
		sameAddr(t, l)
		_ = l.Close()
	}
}

// linkLocal returns the addresses of this machine that have a zone, with port 0.
func linkLocal() []string {
	interfaces, err := net.Interfaces()
	if err != nil {
		return nil
	}
	var all []string
	for _, ifi := range interfaces {
		addrs, err := ifi.Addrs()
		if err != nil || ifi.Flags&net.FlagUp == 0 {
			continue
		}
		for _, a := range addrs {
			if n, ok := a.(*net.IPNet); ok && n.IP.To4() == nil && n.IP.IsLinkLocalUnicast() {
				all = append(all, "["+n.IP.String()+"%"+ifi.Name+"]:0")
			}
		}
	}
	return all
}

// What package net can't serve has no address.
func TestSocketAddrOfOthers(t *testing.T) {
	r, w, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	defer r.Close()
	defer w.Close()
	for name, fd := range map[string]int{
		"pipe":   fdOf(t, r),
		"closed": closedFD(t),
	} {
		if got := socketAddr(fd, notSocket); got != nil {
			t.Errorf("%s: got %v", name, got)
		}
	}
}

func TestPassedToAndOwn(t *testing.T) {
	fd := rawSocket(t, unix.AF_UNIX, unix.SOCK_STREAM)
	if !passedTo(fd) {
		t.Error("a descriptor that is not close-on-exec counts as our own")
	}
	if nonblocking(t, fd) {
		t.Fatal("the socket is non-blocking from the start")
	}
	if err := nonblock(fd); err != nil {
		t.Fatal(err)
	}
	setCloseOnExec(fd)
	if !closeOnExec(t, fd) || !nonblocking(t, fd) {
		t.Error("it is not close-on-exec and non-blocking")
	}
	if passedTo(fd) {
		t.Error("a descriptor that is close-on-exec counts as passed")
	}
	if passedTo(fdOf(t, listen(t, "tcp", "127.0.0.1:0"))) {
		t.Error("our own listener counts as passed")
	}
	closed := closedFD(t)
	if passedTo(closed) {
		t.Error("a closed descriptor counts as passed")
	}
	if err := nonblock(closed); !errors.Is(err, unix.EBADF) {
		t.Errorf("nonblock of a closed descriptor: %v, want EBADF", err)
	}
}

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

// controls returns both ends of a control socket.
func controls(t *testing.T) (a, b *control) {
	t.Helper()
	ours, theirs, err := socketpair()
	if err != nil {
		t.Fatal(err)
	}
	ends := make([]*control, 2)
	for i, fd := range []int{ours, theirs} {
		if !closeOnExec(t, fd) {
			t.Error("a control socket would leak into every process that the program starts")
		}
		if ends[i], err = newControl(fd); err != nil {
			t.Fatal(err)
		}
		t.Cleanup(ends[i].close)
		_ = ends[i].conn.SetDeadline(time.Now().Add(patience))
	}
	return ends[0], ends[1]
}

// received returns what c receives up to the end.
func received(c *control) []Message {
	var all []Message
	c.receive(func(m Message) bool {
		all = append(all, m)
		return true
	})
	return all
}

func TestControl(t *testing.T) {
	a, b := controls(t)
	for _, err := range []error{
		a.send(Hello, version, 812),
		a.send(Ready, ""),
		a.send(Ready, "0,2"),
		a.send(Leaving, LeavingStop),
		b.send(Main),
	} {
		if err != nil {
			t.Fatal(err)
		}
	}
	a.conn.CloseWrite()
	want := []Message{{Hello, "1 812"}, {Ready, ""}, {Ready, "0,2"}, {Leaving, "stop"}}
	if got := received(b); !slices.Equal(got, want) {
		t.Errorf("got %q, want %q", got, want)
	}
	// The other direction still works.
	b.close()
	if got := received(a); !slices.Equal(got, []Message{{Main, ""}}) {
		t.Errorf("got %q, want main", got)
	}
	if err := a.send(Ready, ""); err == nil {
		t.Error("send to an end that is closed gives no error")
	}
}

func TestControlReceivesRubbish(t *testing.T) {
	long := strings.Repeat("x", maxLine/2)
	tests := []struct {
		name, sent string
		want       []Message
	}{
		{"nothing", "", nil},
		{"empty line", "\n", []Message{{"", ""}}},
		{"no end of line", "ready", []Message{{"ready", ""}}},
		{"later version", "hello 2 812 x=y\nnews\n", []Message{{"hello", "2 812 x=y"}, {"news", ""}}},
		{"binary", "\x00\xff\x16\x03\x01\nready \n", []Message{{"\x00\xff\x16\x03\x01", ""}, {"ready", ""}}},
		{"long line", "ready " + long + "\nmain\n", []Message{{"ready", long}, {"main", ""}}},
		{"endless line", "main\n" + long + long + long + "\nready \n", []Message{{"main", ""}}},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			a, b := controls(t)
			sent := make(chan struct{})
			go func() {
				defer close(sent)
				_, _ = io.WriteString(a.conn, tt.sent) // more than the socket holds
				a.close()
			}()
			if got := received(b); !slices.Equal(got, tt.want) {
				t.Errorf("got %.100q, want %.100q", got, tt.want)
			}
			b.close() // what was not read must not block the other side
			<-sent
		})
	}
}

func TestControlReceiveStops(t *testing.T) {
	a, b := controls(t)
	if err := errors.Join(a.send(Hello), a.send(Ready), a.send(Main)); err != nil {
		t.Fatal(err)
	}
	var got []string
	b.receive(func(m Message) bool { // a stays open
		got = append(got, m.Word)
		return m.Word != Ready
	})
	if !slices.Equal(got, []string{Hello, Ready}) {
		t.Errorf("got %q, want hello and ready", got)
	}
}

// A message is one line of text that anybody can write.
func TestControlWire(t *testing.T) {
	a, b := controls(t)
	if err := errors.Join(a.send(Hello, 1, 812), a.send(Ready, ""), a.send(Main)); err != nil {
		t.Fatal(err)
	}
	a.close()
	lines := bufio.NewScanner(b.conn)
	var got []string
	for lines.Scan() {
		got = append(got, lines.Text())
	}
	if want := []string{"hello 1 812", "ready ", "main"}; !slices.Equal(got, want) {
		t.Errorf("got %q, want %q", got, want)
	}
}

// What is no stream socket is an error. It belongs to newControl all the same.
func TestNewControlRejects(t *testing.T) {
	r, w, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	defer r.Close()
	defer w.Close()
	l := listen(t, "tcp", "127.0.0.1:0")
	conn, err := net.Dial("tcp", l.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	for name, c := range map[string]syscall.Conn{"pipe": r, "tcp": conn.(*net.TCPConn)} {
		fd, err := dup(c)
		if err != nil {
			t.Fatal(err)
		}
		id := identity(t, fd)
		if c, err := newControl(fd); err == nil {
			c.close()
			t.Errorf("%s: no error", name)
		}
		// The number may be open again by now, but on something else.
		if now, err := identify(fd); err == nil && now == id {
			t.Errorf("%s: descriptor %d is still open", name, fd)
		}
	}
}
