//go:build unix

package gracenet_test

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/facebookgo/grace/gracetest"
	"github.com/facebookgo/grace/internal/testbin"
	"github.com/facebookgo/grace/internal/testbin/play"
)

// Groups of sockets that share an address with SO_REUSEPORT.

// roleGroup answers with the position of the socket that a client has come to, and
// the pid.
func roleGroup(cfg play.Config) error {
	var listeners []net.Listener
	for _, l := range cfg.Listens {
		l, err := testbin.ListenNet(cfg, l)
		if err != nil {
			return err
		}
		listeners = append(listeners, l)
	}
	return testbin.ServeLines(cfg, listeners, func(i int, _ string) string { return fmt.Sprint(i, " ", os.Getpid()) })
}

func group(addr string, n int) play.Config {
	cfg := play.Config{Role: "group"}
	for range n {
		cfg.Listens = append(cfg.Listens, play.Listen{Network: "tcp", Addr: addr, Shared: true})
	}
	return cfg
}

// client is a connection on which a line was sent.
type client struct {
	net.Conn
	t *testing.T
}

// connect connects from a port, any one if it is 0.
func connect(t *testing.T, addr string, port int) client {
	t.Helper()
	d := net.Dialer{LocalAddr: &net.TCPAddr{IP: net.IPv4(127, 0, 0, 1), Port: port}, Timeout: testbin.Patience}
	c, err := d.DialContext(context.Background(), "tcp", addr)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = c.Close() })
	if err := c.SetDeadline(time.Now().Add(testbin.Patience)); err != nil {
		t.Fatal(err)
	}
	if err := c.(*net.TCPConn).SetLinger(0); err != nil { // so that the port is free again
		t.Fatal(err)
	}
	if _, err := fmt.Fprintln(c); err != nil {
		t.Fatal(err)
	}
	return client{c, t}
}

// answer returns the position of the socket and the pid.
func (c client) answer() (position, pid int) {
	c.t.Helper()
	line, err := bufio.NewReader(c).ReadString('\n')
	if err != nil {
		c.t.Fatalf("a connection was lost: %v", err)
	}
	_ = c.Close()
	if _, err := fmt.Sscan(line, &position, &pid); err != nil {
		c.t.Fatalf("%q: %v", line, err)
	}
	return position, pid
}

// Each process has the same sockets in the same order: the kernel gives a client to
// the socket that the numbers of its ports choose.
func TestGroupKeepsItsOrder(t *testing.T) {
	addr := gracetest.FreeAddr(t)
	s := testbin.Start(t, group(addr, 4))
	first, _ := s.Newest()
	positions := make(map[int]int) // of the ports of clients
	for range 40 {
		c := connect(t, addr, 0)
		port := c.LocalAddr().(*net.TCPAddr).Port
		positions[port], _ = c.answer()
	}
	used := make(map[int]bool)
	for _, p := range positions {
		used[p] = true
	}
	if len(used) != 4 {
		t.Errorf("clients come to the sockets %v, want all four", used)
	}
	for range 2 {
		pid, addrs := restarted(s)
		if pid == first || len(addrs) != 4 {
			t.Errorf("process %d listens on %v", pid, addrs)
		}
		for port, want := range positions {
			if got, by := connect(t, addr, port).answer(); got != want || by != pid {
				t.Errorf("a client on port %d comes to socket %d of %d, want %d of %d", port, got, by, want, pid)
			}
		}
	}
	pid, _ := s.Newest()
	s.WaitLog(pid, "signals restart and stop this process")
	s.Stop()
}

// A group that shrinks or grows loses nothing of what waits: the parent answers what
// the kernel gives to a socket that the child does not want, during the standby and
// before it closes it.
func TestGroupShrinksAndGrows(t *testing.T) {
	addr := gracetest.FreeAddr(t)
	cfg := group(addr, 4)
	cfg.Standby = time.Hour
	s := testbin.Start(t, cfg)
	for _, n := range []int{2, 4, 1, 3} {
		old, _ := s.Newest()
		s.WaitLog(old, "signals restart and stop this process")
		cfg.Listens = group(addr, n).Listens
		s.Deploy(cfg)
		_, pid := s.Restart()
		s.WaitLog(old, "standing by")
		for _, ends := range []bool{false, true} {
			s.Freeze(old) // so that what comes to it waits
			var clients []client
			for range 64 {
				clients = append(clients, connect(t, addr, 0))
			}
			if ends {
				s.Signal(old, syscall.SIGTERM) // which ends the standby
			}
			s.Signal(old, syscall.SIGCONT)
			pids := make(map[int]int)
			for _, c := range clients {
				position, by := c.answer()
				if pids[by]++; by == pid && position >= n {
					t.Errorf("socket %d of %d answers", position, n)
				}
			}
			if len(pids) != 2 && n < 3 || pids[pid] == 0 {
				t.Errorf("a group of %d in process %d, before that in %d: answers %v", n, pid, old, pids)
			}
		}
		s.WaitReturned(old)
		for range 16 {
			if _, by := connect(t, addr, 0).answer(); by != pid {
				t.Errorf("process %d answers, want %d", by, pid)
			}
		}
	}
	pid, _ := s.Newest()
	s.WaitLog(pid, "signals restart and stop this process")
	s.Stop()
}

// What waits for a socket when it is closed is lost, although others have the same
// address, unless net.ipv4.tcp_migrate_req is on. So no process can take a socket
// from a group without a risk for what comes in that very moment, and a new process
// that adds sockets and then fails takes with it what the kernel has given to those.
func TestGroupMemberIsClosed(t *testing.T) {
	setting, err := os.ReadFile("/proc/sys/net/ipv4/tcp_migrate_req")
	moves := err == nil && strings.TrimSpace(string(setting)) == "1"
	cfg := group(gracetest.FreeAddr(t), 1)
	first, err := testbin.ListenNet(cfg, cfg.Listens[0])
	if err != nil {
		t.Fatal(err)
	}
	defer first.Close()
	second, err := testbin.ListenNet(cfg, cfg.Listens[0])
	if err != nil {
		t.Fatal(err)
	}
	var clients []client
	for range 64 {
		clients = append(clients, connect(t, cfg.Listens[0].Addr, 0))
	}
	if err := second.Close(); err != nil {
		t.Fatal(err)
	}
	go func() {
		for {
			c, err := first.Accept()
			if err != nil {
				return
			}
			go play.ServeConnWith(c, func(string) string { return "0 0" })
		}
	}()
	lost := 0
	for _, c := range clients {
		if _, err := bufio.NewReader(c).ReadString('\n'); errors.Is(err, syscall.ECONNRESET) {
			lost++
		} else if err != nil {
			t.Error(err)
		}
	}
	if moves && lost != 0 || !moves && (lost == 0 || lost == len(clients)) {
		t.Errorf("%d of %d are lost, tcp_migrate_req is %s", lost, len(clients), setting)
	}
}

// An address that the new process does not want any more is served by the old one
// until the standby is over, and refused then.
func TestDroppedAddress(t *testing.T) {
	cfg := play.Config{Role: "net", Standby: time.Hour, Listens: []play.Listen{{Network: "tcp", Addr: "127.0.0.1:0"}, {Network: "tcp", Addr: "127.0.0.1:0"}}}
	s := testbin.Start(t, cfg)
	old, addrs := s.Newest()
	s.WaitLog(old, "signals restart and stop this process")
	cfg.Listens = cfg.Listens[:1]
	s.Deploy(cfg)
	_, pid := s.Restart()
	s.WaitLog(old, "standing by")
	for range 3 {
		var got []int
		for _, addr := range addrs {
			got = append(got, testbin.AskPID(t, testbin.Lines("tcp", addr)))
		}
		if !slices.Equal(got, []int{pid, old}) {
			t.Errorf("answered by %v, want %d and %d", got, pid, old)
		}
	}
	s.Signal(old, syscall.SIGTERM) // which ends the standby
	s.WaitReturned(old)
	if c, err := net.Dial("tcp", addrs[1]); !errors.Is(err, syscall.ECONNREFUSED) {
		t.Errorf("dial: %v, %v, want it refused", c, err)
	}
	s.WaitLog(pid, "signals restart and stop this process")
	s.Stop()
}
