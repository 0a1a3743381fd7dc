//go:build unix

package handoff

import (
	"errors"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"runtime"
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
