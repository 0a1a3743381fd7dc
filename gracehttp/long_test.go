//go:build unix

package gracehttp_test

import (
	"fmt"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/facebookgo/grace/internal/testbin"
	"github.com/facebookgo/grace/internal/testbin/play"
)

// A stream of events ends when it is told that the process drains, and not when
// another one is on standby.
func TestEventsAreToldToEnd(t *testing.T) {
	for name, cfg := range kinds {
		t.Run(name, func(t *testing.T) {
			cfg.Standby = time.Hour
			cfg.IdleGrace = -1
			s, pid, addr := startKind(t, cfg)
			c := testbin.Dial(t, cfg.Listens[0], addr)
			c.Send(testbin.Request("events"))
			readUntil(t, c, fmt.Sprintln("pid", pid))
			child := s.RestartPID(pid)
			s.WaitLog(pid, "standing by")
			readUntil(t, c, "tick\n") // what was buffered
			readUntil(t, c, "tick\n")
			s.Signal(pid, syscall.SIGTERM)
			readUntil(t, c, "end\n")
			s.WaitReturned(pid)
			s.Signal(child, syscall.SIGTERM)
			s.WaitGone()
		})
	}
}

// readUntil reads until text has come.
func readUntil(t *testing.T, c *testbin.Wire, text string) {
	t.Helper()
	for {
		if line := c.Line(); strings.Contains(line+"\n", text) {
			return
		}
	}
}

// A long poll is told, and its answer reaches the client.
func TestLongPollIsTold(t *testing.T) {
	for name, cfg := range kinds {
		t.Run(name, func(t *testing.T) {
			cfg.IdleGrace = -1
			s, pid, addr := startKind(t, cfg)
			c := testbin.Dial(t, cfg.Listens[0], addr)
			c.Send(testbin.Request("poll"))
			s.Wait("the poll", asked("poll"))
			_, child := s.Restart()
			if got := c.Receive(); got.Status != 200 || got.Body != "drained" {
				t.Errorf("got %+v, want drained", got)
			}
			s.WaitReturned(pid)
			s.Signal(child, syscall.SIGTERM)
			s.WaitGone()
		})
	}
}

// What is sent and received slowly is sent and received to the end.
func TestStreamsAreFinished(t *testing.T) {
	for name, cfg := range kinds {
		t.Run(name, func(t *testing.T) {
			cfg.IdleGrace = -1
			s, pid, addr := startKind(t, cfg)
			up, down := testbin.Dial(t, cfg.Listens[0], addr), testbin.Dial(t, cfg.Listens[0], addr)
			up.Send("POST /echo HTTP/1.1\r\nHost: x\r\nExpect: 100-continue\r\nTransfer-Encoding: chunked\r\n\r\n")
			if got := up.Line() + up.Line(); got != "HTTP/1.1 100 Continue" { // the handler reads
				t.Fatalf("got %q", got)
			}
			up.Send("4\r\nhalf\r\n")
			down.Send("GET /bytes HTTP/1.0\r\n\r\n")
			if got := down.Line(); !strings.HasSuffix(got, "200 OK") {
				t.Fatalf("got %q", got)
			}
			_, child := s.Restart()
			s.WaitLog(pid, "the shutdown hook runs")
			up.Send("5\r\n-done\r\n0\r\n\r\n")
			if got, want := up.Receive().Body, `POST /echo "half-done" <nil> map[]`+"\n"; got != want {
				t.Errorf("got %q, want %q", got, want)
			}
			for down.Line() != "" {
			}
			if n, err := down.Drain(); n != 32<<20 || err != nil {
				t.Errorf("received %d bytes, %v; want %d", n, err, 32<<20)
			}
			s.WaitReturned(pid)
			s.Signal(child, syscall.SIGTERM)
			s.WaitGone()
		})
	}
}

// tunnel sends what takes a connection over.
func tunnel(t *testing.T, l play.Listen, addr, request string, pid int) *testbin.Wire {
	t.Helper()
	c := testbin.Dial(t, l, addr)
	c.Send(request + " HTTP/1.1\r\nHost: x\r\n\r\n")
	for c.Line() != "" {
	}
	if got, want := c.Line(), fmt.Sprintf("pid %d", pid); got != want {
		t.Fatalf("got %q, want %q", got, want)
	}
	return c
}

// Connections that were taken over are waited for if the program wants that.
func TestWaitHijacked(t *testing.T) {
	for name, l := range map[string]play.Listen{
		"tcp":  {Addr: "127.0.0.1:0"},
		"tls":  {Addr: "127.0.0.1:0", TLS: true},
		"unix": {Network: "unix"},
	} {
		for _, handOver := range []bool{false, true} {
			t.Run(fmt.Sprintf("%s, HandOverIdle=%v", name, handOver), func(t *testing.T) {
				cfg := play.Config{Listens: []play.Listen{l}, WaitHijacked: true, HandOverIdle: handOver, IdleGrace: -1}
				s, pid, addr := startKind(t, cfg)
				connect := tunnel(t, l, addr, "CONNECT example.org:443", pid)
				polite := tunnel(t, l, addr, "GET /tunnel/polite", pid)
				_, child := s.Restart()
				if got := polite.Line(); got != "bye" {
					t.Errorf("got %q, want bye", got)
				}
				polite.WaitClosed()
				s.WaitLog(pid, "requests in flight are waited for")
				for i := range 3 {
					connect.Send(fmt.Sprintln("still there", i))
					if got, want := connect.Line(), fmt.Sprint("still there ", i); got != want {
						t.Errorf("got %q, want %q", got, want)
					}
				}
				connect.Close()
				s.WaitReturned(pid)
				s.Signal(child, syscall.SIGTERM)
				s.WaitGone()
			})
		}
	}
}

// For StopTimeout at most.
func TestHijackedConnectionsAreClosedInTheEnd(t *testing.T) {
	cfg := play.Config{Role: "http", Listens: []play.Listen{{Addr: "127.0.0.1:0"}}, WaitHijacked: true, IdleGrace: -1, StopTimeout: 300 * time.Millisecond}
	s := testbin.Start(t, cfg)
	pid, addrs := s.Newest()
	c := tunnel(t, cfg.Listens[0], addrs[0], "GET /tunnel", pid)
	s.Signal(pid, syscall.SIGTERM)
	c.WaitClosed()
	s.WaitLog(pid, "requests take too long, their connections are closed connections=1 after=300ms")
	if e := s.WaitReturned(pid); e.Event != play.Returned || e.Text != "" {
		t.Errorf("Serve returned %s %s", e.Event, e.Text)
	}
}

// Without an option connections are those of package net.
func TestTypeOfConnections(t *testing.T) {
	for _, test := range []struct {
		cfg  play.Config
		want string
	}{
		{play.Config{Listens: []play.Listen{{Addr: "127.0.0.1:0"}}}, "*net.TCPConn"},
		{play.Config{Listens: []play.Listen{{Addr: "127.0.0.1:0"}}, ShareTicketKeys: true, StopDelay: 1, IdleGrace: 1}, "*net.TCPConn"},
		{play.Config{Listens: []play.Listen{{Network: "unix"}}}, "*net.UnixConn"},
		{play.Config{Listens: []play.Listen{{Addr: "127.0.0.1:0", TLS: true}}, HandOverIdle: true, WaitHijacked: true}, "*tls.Conn"},
		{play.Config{Listens: []play.Listen{{Addr: "127.0.0.1:0"}}, HandOverIdle: true}, "*gracehttp.tcpConn"},
		{play.Config{Listens: []play.Listen{{Network: "unix"}}, WaitHijacked: true}, "*gracehttp.unixConn"},
	} {
		t.Run(test.want, func(t *testing.T) {
			_, _, addr := startKind(t, test.cfg)
			c := testbin.Dial(t, test.cfg.Listens[0], addr)
			c.Send(testbin.Request("conn"))
			if got := c.Line(); got != test.want {
				t.Errorf("the handler hijacks a %s, want a %s", got, test.want)
			}
		})
	}
}
