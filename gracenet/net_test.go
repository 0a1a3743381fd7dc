//go:build unix

package gracenet_test

import (
	"errors"
	"net"
	"os"
	"path/filepath"
	"runtime"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"

	"github.com/facebookgo/grace/gracenet"
)

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

// listen listens until the end of the test.
func listen(t *testing.T, n *gracenet.Net, network, addr string) net.Listener {
	t.Helper()
	l, err := n.Listen(network, addr)
	if err != nil {
		t.Fatalf("Listen(%q, %q): %v", network, addr, err)
	}
	t.Cleanup(func() { _ = l.Close() })
	return l
}

func port(l net.Listener) int { return l.Addr().(*net.TCPAddr).Port }

func TestUnknownNetwork(t *testing.T) {
	var n gracenet.Net
	for _, network := range []string{"foo", "", "udp", "tcp5", "TCP", "unixgram", "ip4:1"} {
		l, err1 := n.Listen(network, "127.0.0.1:0")
		tcp, err2 := n.ListenTCP(network, &net.TCPAddr{})
		unix, err3 := n.ListenUnix(network, &net.UnixAddr{Name: "/nowhere", Net: network})
		if l != nil || tcp != nil || unix != nil {
			t.Errorf("%q: got %v, %v, %v", network, l, tcp, unix)
		}
		for _, err := range []error{err1, err2, err3} {
			if err != net.UnknownNetworkError(network) || err.Error() != "unknown network "+network {
				t.Errorf("%q: %#v", network, err)
			}
		}
	}
	// Each method has its own networks.
	if _, err := n.ListenTCP("unix", nil); err != net.UnknownNetworkError("unix") {
		t.Errorf("ListenTCP of unix: %v", err)
	}
	if _, err := n.ListenUnix("tcp", nil); err != net.UnknownNetworkError("tcp") {
		t.Errorf("ListenUnix of tcp: %v", err)
	}
}

func TestListen(t *testing.T) {
	var n gracenet.Net
	tests := []struct {
		network, addr string
		want          string // of Addr().Network()
		linux         bool   // exists there alone
	}{
		{"tcp", "127.0.0.1:0", "tcp", false},
		{"tcp4", "127.0.0.1:0", "tcp", false},
		{"tcp6", "[::1]:0", "tcp", false},
		{"tcp", "localhost:0", "tcp", false},
		{"unix", socketPath(t), "unix", false},
		{"unixpacket", socketPath(t), "unixpacket", true},
		{"unix", "@grace-" + strconv.Itoa(os.Getpid()), "unix", true},
	}
	for _, tt := range tests {
		t.Run(tt.network+" "+tt.addr, func(t *testing.T) {
			if tt.linux && runtime.GOOS != "linux" {
				return // only Linux has these
			}
			l, err := n.Listen(tt.network, tt.addr)
			if err != nil {
				t.Fatal(err)
			}
			defer l.Close()
			if got := l.Addr().Network(); got != tt.want {
				t.Errorf("got a listener on %s", got)
			}
			c, err := net.Dial(l.Addr().Network(), l.Addr().String())
			if err != nil {
				t.Fatal(err)
			}
			defer c.Close()
			s, err := l.Accept()
			if err != nil {
				t.Fatal(err)
			}
			_ = s.Close()
		})
	}
}

// Port 0 means any free port each time, also on one Net. So does no address.
func TestAnyFreePort(t *testing.T) {
	var n gracenet.Net
	ports := make(map[int]bool)
	for _, addr := range []string{":0", ":0", "127.0.0.1:0", "127.0.0.1:0", "", ""} {
		l := listen(t, &n, "tcp", addr)
		if port(l) == 0 || port(l) == 80 || ports[port(l)] {
			t.Errorf("%q gave port %d", addr, port(l))
		}
		ports[port(l)] = true
	}
}

func TestListenTCP(t *testing.T) {
	var n gracenet.Net
	for _, addr := range []*net.TCPAddr{nil, {}, {IP: net.IPv4(127, 0, 0, 1)}} {
		l, err := n.ListenTCP("tcp", addr)
		if err != nil {
			t.Errorf("%v: %v", addr, err)
			continue
		}
		if port(l) == 0 {
			t.Errorf("%v: no port", addr)
		}
		if err := l.Close(); err != nil {
			t.Errorf("%v: Close: %v", addr, err)
		}
	}
}

// An address that is taken is an error as from package net, whoever has it. When
// it is free again, it can be had again.
func TestAddressInUse(t *testing.T) {
	var n, other gracenet.Net
	path := socketPath(t)
	for _, network := range []string{"tcp", "unix"} {
		addr := "127.0.0.1:0"
		if network == "unix" {
			addr = path
		}
		l := listen(t, &n, network, addr)
		for _, again := range []*gracenet.Net{&n, &other} {
			got, err := again.Listen(network, l.Addr().String())
			if got != nil || !errors.Is(err, syscall.EADDRINUSE) || !strings.Contains(err.Error(), "bind: address already in use") {
				t.Errorf("%s: got %v, %v", network, got, err)
			}
		}
		if err := l.Close(); err != nil {
			t.Fatal(err)
		}
		listen(t, &other, network, l.Addr().String())
	}
}

func TestBadAddress(t *testing.T) {
	var n gracenet.Net
	for _, a := range [][2]string{
		{"tcp", "127.0.0.1"},
		{"tcp", "127.0.0.1:no-such-service"},
		{"tcp", "127.0.0.1:65536"},
		{"tcp4", "[::1]:0"},
		{"unix", "/no/such/directory/s"},
	} {
		if l, err := n.Listen(a[0], a[1]); err == nil || l != nil {
			t.Errorf("%q: got %v, %v", a, l, err)
		}
	}
	listen(t, &n, "tcp", "127.0.0.1:0")
}

// Without a successor the path of a unix socket goes with its listener.
func TestListenUnixRemovesItsPath(t *testing.T) {
	var n gracenet.Net
	path := socketPath(t)
	for range 2 {
		l, err := n.ListenUnix("unix", &net.UnixAddr{Name: path, Net: "unix"})
		if err != nil {
			t.Fatal(err)
		}
		if _, err := os.Lstat(path); err != nil {
			t.Error(err)
		}
		if err := l.Close(); err != nil {
			t.Fatal(err)
		}
		if _, err := os.Lstat(path); !os.IsNotExist(err) {
			t.Errorf("the path is left behind: %v", err)
		}
	}
}

// Package net refuses no address; Linux would make one up.
func TestListenUnixWithoutAddress(t *testing.T) {
	var n gracenet.Net
	if l, err := n.ListenUnix("unix", nil); err == nil {
		t.Errorf("got a listener on %q", l.Addr())
		_ = l.Close()
	}
}

// What is wrong with the environment is said once to each Net. The next Listen
// opens a fresh socket.
func TestInvalidCount(t *testing.T) {
	for _, value := range []string{"x", "-1", "99999999999999999999", " 1"} {
		t.Run(value, func(t *testing.T) {
			t.Setenv("LISTEN_FDS", value)
			want := "found invalid count value: LISTEN_FDS=" + value
			for range 2 {
				var n gracenet.Net
				if l, err := n.Listen("tcp", "127.0.0.1:0"); l != nil || err == nil || err.Error() != want {
					t.Errorf("the first Listen: %v, %v, want %q", l, err, want)
				}
				for range 2 {
					listen(t, &n, "tcp", "127.0.0.1:0")
				}
			}
			if got := os.Getenv("LISTEN_FDS"); got != value {
				t.Errorf("LISTEN_FDS is %q now", got)
			}
		})
	}
	listen(t, new(gracenet.Net), "tcp", "127.0.0.1:0") // as it was before
}

// The error comes from each of the methods, and only the first time.
func TestInvalidCountFromEachMethod(t *testing.T) {
	t.Setenv("LISTEN_FDS", "x")
	path := socketPath(t)
	for name, listen := range map[string]func(*gracenet.Net) (net.Listener, error){
		"ListenTCP": func(n *gracenet.Net) (net.Listener, error) { return n.ListenTCP("tcp", nil) },
		"ListenUnix": func(n *gracenet.Net) (net.Listener, error) {
			return n.ListenUnix("unix", &net.UnixAddr{Name: path, Net: "unix"})
		},
	} {
		var n gracenet.Net
		if _, err := listen(&n); err == nil || !strings.Contains(err.Error(), "LISTEN_FDS=x") {
			t.Errorf("%s: %v", name, err)
		}
		l, err := listen(&n)
		if err != nil {
			t.Errorf("%s, again: %v", name, err)
			continue
		}
		_ = l.Close()
	}
}

// A descriptor that was announced to us and is none of ours is named. It is not
// closed: here it belongs to the test.
func TestDescriptorThatWasNotPassed(t *testing.T) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	t.Setenv("LISTEN_FDS", "200")
	t.Setenv("LISTEN_PID", strconv.Itoa(os.Getpid()))
	var n gracenet.Net
	if _, err := n.Listen("tcp", "127.0.0.1:0"); err == nil || !strings.HasPrefix(err.Error(), "error inheriting socket fd ") {
		t.Errorf("the first Listen: %v", err)
	}
	listen(t, &n, "tcp", "127.0.0.1:0")
	c, err := net.Dial("tcp", l.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	_ = c.Close()
}

func TestConcurrentListen(t *testing.T) {
	var n gracenet.Net
	var wg sync.WaitGroup
	for range 20 {
		wg.Add(1)
		go func() {
			defer wg.Done()
			l, err := n.Listen("tcp", "127.0.0.1:0")
			if err != nil {
				t.Error(err)
				return
			}
			_ = l.Close()
		}()
	}
	wg.Wait()
}
