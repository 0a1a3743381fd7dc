//go:build unix

package grace_test

import (
	"errors"
	"io"
	"net"
	"os"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/facebookgo/grace"
)

// Methods that connections and listeners of package net have do their work through
// ours, too: each by what it brings about.

func withFD(t *testing.T, c any, f func(fd int)) {
	t.Helper()
	raw, err := c.(syscall.Conn).SyscallConn()
	if err == nil {
		err = raw.Control(func(fd uintptr) { f(int(fd)) })
	}
	if err != nil {
		t.Fatal(err)
	}
}

func option(t *testing.T, c net.Conn, level, name int) (value int) {
	t.Helper()
	withFD(t, c, func(fd int) {
		var err error
		if value, err = unix.GetsockoptInt(fd, level, name); err != nil {
			t.Error(err)
		}
	})
	return value
}

func must(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Error(err)
	}
}

func TestPassedThrough(t *testing.T) {
	type methods interface {
		File() (*os.File, error)
		CloseRead() error
		SetReadBuffer(int) error
		SetWriteBuffer(int) error
	}
	onEachNetwork(t, func(t *testing.T, network string) {
		l := grace.NewListener(listenOn(t, network))
		client, server := connect(t, l)
		c := server.(methods)

		past := time.Unix(1, 0)
		must(t, server.SetReadDeadline(past))
		if _, err := server.Read(make([]byte, 1)); !errors.Is(err, os.ErrDeadlineExceeded) {
			t.Errorf("Read: %v", err)
		}
		must(t, server.SetWriteDeadline(past))
		if _, err := server.Write([]byte("x")); !errors.Is(err, os.ErrDeadlineExceeded) {
			t.Errorf("Write: %v", err)
		}
		must(t, server.SetDeadline(time.Now().Add(patience)))

		for name, set := range map[int]func(int) error{unix.SO_RCVBUF: c.SetReadBuffer, unix.SO_SNDBUF: c.SetWriteBuffer} {
			must(t, set(20000))
			if n := option(t, server, unix.SOL_SOCKET, name); n != 20000 && n != 40000 { // Linux doubles it
				t.Errorf("option %d is %d", name, n)
			}
		}

		f, err := c.File()
		if err != nil {
			t.Fatal(err)
		}
		dup, err := net.FileConn(f)
		_ = f.Close()
		if err != nil {
			t.Fatal(err)
		}
		_, err = io.WriteString(dup, "x")
		must(t, err)
		_ = dup.Close()
		if b := make([]byte, 1); true {
			_, err = io.ReadFull(client, b)
			must(t, err)
		}

		must(t, c.CloseRead())
		if n, err := server.Read(make([]byte, 1)); n != 0 || err != io.EOF {
			t.Errorf("Read after CloseRead: %d, %v", n, err)
		}
	})
}

func TestPassedThroughTCP(t *testing.T) {
	l := grace.NewListener(listenOn(t, "tcp"))
	client, server := connect(t, l)
	c := server.(interface {
		SetNoDelay(bool) error
		SetKeepAlive(bool) error
		SetLinger(int) error
	})
	for _, on := range []bool{false, true} {
		must(t, c.SetNoDelay(on))
		if got := option(t, server, unix.IPPROTO_TCP, unix.TCP_NODELAY) != 0; got != on {
			t.Errorf("TCP_NODELAY is %v, want %v", got, on)
		}
		must(t, c.SetKeepAlive(on))
		if got := option(t, server, unix.SOL_SOCKET, unix.SO_KEEPALIVE) != 0; got != on {
			t.Errorf("SO_KEEPALIVE is %v, want %v", got, on)
		}
	}
	must(t, c.SetLinger(0))
	_ = server.Close()
	if _, err := client.Read(make([]byte, 1)); !errors.Is(err, syscall.ECONNRESET) {
		t.Errorf("after Close with SetLinger(0) the client gets %v, want a reset", err)
	}
}

func TestPassedThroughUnix(t *testing.T) {
	l := grace.NewListener(listenOn(t, "unix"))
	client, server := connect(t, l)
	c := server.(interface {
		ReadMsgUnix(b, oob []byte) (n, oobn, flags int, addr *net.UnixAddr, err error)
	})
	null, err := os.Open(os.DevNull)
	if err != nil {
		t.Fatal(err)
	}
	defer null.Close()
	withFD(t, null, func(fd int) {
		_, _, err := client.(*net.UnixConn).WriteMsgUnix([]byte("x"), unix.UnixRights(fd), nil)
		must(t, err)
	})
	server.(grace.Conn).SetIdle(true)
	oob := make([]byte, 100)
	n, oobn, _, _, err := c.ReadMsgUnix(make([]byte, 10), oob)
	if n != 1 || oobn == 0 || err != nil {
		t.Fatalf("received %d bytes and %d, %v", n, oobn, err)
	}
	messages, err := unix.ParseSocketControlMessage(oob[:oobn])
	if err != nil {
		t.Fatal(err)
	}
	fds, err := unix.ParseUnixRights(&messages[0])
	if err != nil || len(fds) != 1 {
		t.Fatalf("received descriptors %v, %v", fds, err)
	}
	_ = unix.Close(fds[0])
	// What was received has ended idleness.
	_, idle := connect(t, l)
	idle.(grace.Conn).SetIdle(true)
	closed := closing(l)
	wantEOF(t, idle)
	_ = idle.Close()
	staysOpen(t, server)
	_ = server.Close()
	waitFor(t, "Close does not return", closed)
}

func TestListenerSyscallConn(t *testing.T) {
	for name, wrap := range map[string]func(grace.Listener) grace.Listener{
		"net": func(l grace.Listener) grace.Listener { return l },
		"own": func(l grace.Listener) grace.Listener { return own{l, nil, func() {}} },
	} {
		t.Run(name, func(t *testing.T) {
			l := drainer(t, wrap(listenOn(t, "tcp")))
			withFD(t, l, func(fd int) {
				sa, err := unix.Getsockname(fd)
				must(t, err)
				if in, ok := sa.(*unix.SockaddrInet4); !ok || in.Port != l.Addr().(*net.TCPAddr).Port {
					t.Errorf("the descriptor is that of %v", sa)
				}
			})
			_, c := connect(t, l)
			_ = c.Close()
			waitFor(t, "Close does not return", closing(l))
		})
	}
}
