package gracehttp_test

import (
	"fmt"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/facebookgo/grace/internal/testbin"
	"github.com/facebookgo/grace/internal/testbin/play"
	"golang.org/x/sys/unix"
)

func init() { roles = append(roles, testbin.Role{Name: "probes", Serve: roleProbes}) }

// roleProbes answers with the time of the keep-alive probes of a connection, in seconds.
func roleProbes(cfg play.Config) error {
	return testbin.ServeHTTP(cfg, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		c, _, err := http.NewResponseController(w).Hijack()
		if err != nil {
			play.Fail(err)
		}
		defer c.Close()
		raw, err := c.(syscall.Conn).SyscallConn()
		if err != nil {
			play.Fail(err)
		}
		text := "unknown"
		_ = raw.Control(func(fd uintptr) {
			on, _ := unix.GetsockoptInt(int(fd), unix.SOL_SOCKET, unix.SO_KEEPALIVE)
			idle, _ := unix.GetsockoptInt(int(fd), unix.IPPROTO_TCP, unix.TCP_KEEPIDLE)
			text = fmt.Sprint(on, " ", idle)
		})
		fmt.Fprintf(c, "HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n%s", len(text), text)
	}))
}

// The keep-alive probes of ListenConfig are for connections of every process.
func TestListenConfigKeepAlive(t *testing.T) {
	for _, test := range []struct {
		keepAlive time.Duration
		handOver  bool
		want      string
	}{{77 * time.Second, false, "1 77"}, {78 * time.Second, true, "1 78"}, {0, false, "1 15"}, {-1, false, "0"}} {
		cfg := play.Config{Role: "probes", KeepAlive: test.keepAlive, HandOverIdle: test.handOver, Listens: []play.Listen{{Addr: "127.0.0.1:0"}}}
		s := testbin.Start(t, cfg)
		for range 2 {
			_, addrs := s.Newest()
			c := testbin.Dial(t, play.Listen{}, addrs[0])
			got := c.Ask("")
			if before, _, _ := strings.Cut(got, " "); got != test.want && (test.want != "0" || before != "0") {
				t.Errorf("with %v: probes %s, want %s", test.keepAlive, got, test.want)
			}
			old, _ := s.Restart()
			s.WaitReturned(old)
		}
		s.Stop()
	}
}

// named returns listeners that share two names, and their addresses.
func named(t *testing.T, n int) (files []*os.File, addrs []string) {
	t.Helper()
	for range n {
		l, err := net.Listen("tcp", "127.0.0.1:0")
		if err != nil {
			t.Fatal(err)
		}
		f, err := l.(*net.TCPListener).File()
		if err != nil {
			t.Fatal(err)
		}
		l.Close()
		t.Cleanup(func() { f.Close() })
		files, addrs = append(files, f), append(addrs, l.Addr().String())
	}
	return files, addrs
}

// Servers take sockets by their names, also several of one name, and with TLS.
func TestServeNamed(t *testing.T) {
	files, passed := named(t, 3)
	cfg := play.Config{Role: "http", Listens: []play.Listen{
		{Network: "named", Addr: "web"}, {Network: "named", Addr: "admin", TLS: true, HTTP2: true}, {Network: "named", Addr: "web", TLS: true}, {Addr: "127.0.0.1:0"},
	}}
	s := testbin.Start(t, cfg, testbin.Env("LISTEN_FDS=3", "LISTEN_FDNAMES=web:admin:web"), testbin.Files(files...), testbin.OwnListenPID())
	for _, f := range files {
		f.Close()
	}
	for range 3 {
		pid, addrs := s.Newest()
		if !slices.Equal(addrs[:3], passed) {
			t.Errorf("addresses: %v, want %v", addrs, passed)
		}
		for i, scheme := range []string{"http", "https", "https", "http"} {
			if got := testbin.AskPID(t, testbin.HTTP(scheme, addrs[i])); got != pid {
				t.Errorf("%s is answered by %d, want %d", addrs[i], got, pid)
			}
		}
		old, _ := s.Restart()
		s.WaitReturned(old)
	}
	// One too many: the error says what there is.
	pid, _ := s.Newest()
	cfg.Listens = append(slices.Clone(cfg.Listens[:3:3]), play.Listen{Network: "named", Addr: "web"})
	s.Deploy(cfg)
	s.Signal(pid, syscall.SIGUSR2)
	s.Wait("the reason", func(e play.Event) bool {
		return e.Event == play.Returned && e.PID != pid &&
			e.Text == `gracenet: no listener was inherited with the name "web" (there is 127.0.0.1%3A0): file does not exist`
	})
	s.WaitLog(pid, "restart failed")
	s.Stop()
}

// A unix socket that a crash has left behind is in the way, unless it may be replaced.
func TestServeReplacesStale(t *testing.T) {
	dir, err := os.MkdirTemp("", "grace")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = os.RemoveAll(dir) })
	path := filepath.Join(dir, "s")
	cfg := play.Config{Role: "http", Listens: []play.Listen{{Network: "unix", Addr: path}, {Network: "unix", Addr: path + "tls", TLS: true}}}
	s := testbin.Start(t, cfg)
	pid, _ := s.Newest()
	s.Signal(pid, syscall.SIGKILL)
	s.WaitExit(pid) // its standard output may be closed before its sockets
	s.WaitGone()
	s = testbin.Launch(t, testbin.Executable(t), cfg)
	s.Wait("the reason", func(e play.Event) bool {
		return e.Event == play.Returned && strings.Contains(e.Text, "bind: address already in use: nobody listens there")
	})
	s.WaitGone()
	cfg.ReplaceStale = true
	s = testbin.Start(t, cfg)
	for range 2 {
		pid, _ = s.Newest()
		for _, l := range cfg.Listens {
			if got := testbin.Dial(t, l, l.Addr).Ask(""); got != fmt.Sprint(pid) {
				t.Errorf("%s is answered by %s, want %d", l.Addr, got, pid)
			}
		}
		old, _ := s.Restart()
		s.WaitReturned(old)
	}
	s.Stop()
	for _, l := range cfg.Listens {
		if _, err := os.Lstat(l.Addr); !os.IsNotExist(err) {
			t.Errorf("%s: %v, want it gone", l.Addr, err)
		}
	}
}
