package grace_test

import (
	"fmt"
	"syscall"
	"testing"
	"time"

	"github.com/facebookgo/grace/internal/testbin"
	"github.com/facebookgo/grace/internal/testbin/play"
)

// Sessions stay with the process that began them, over any number of restarts, and each
// process ends with its last session.
func TestForward(t *testing.T) {
	cfg := play.Config{Role: "sessions", Listens: []play.Listen{{Network: "udp", Addr: "127.0.0.1:0"}}}
	s := testbin.Start(t, cfg)
	_, addrs := s.Newest()
	var all [][]*session // by generation
	for i := range 4 {
		if i > 0 {
			old, new := s.Restart()
			s.WaitLog(old, "draining")
			s.WaitLog(new, "signals restart and stop this process")
		}
		pid, _ := s.Newest()
		s.WaitLog(pid, "signals restart and stop this process")
		sessions := []*session{newSession(t, addrs[0]), newSession(t, addrs[0])}
		for _, c := range sessions {
			if c.pid != pid || int(c.generation) != i+1 {
				t.Errorf("a new session is of generation %d, process %d, want %d, %d", c.generation, c.pid, i+1, pid)
			}
		}
		all = append(all, sessions)
		for range 20 {
			for _, sessions := range all {
				for _, c := range sessions {
					c.exchange()
				}
			}
		}
	}
	for _, sessions := range all[:3] { // the oldest first: the chain is whole
		for _, c := range sessions {
			c.end()
		}
		if e := s.WaitReturned(sessions[0].pid); e.Text != "" {
			t.Errorf("process %d returned %q", e.PID, e.Text)
		}
		s.WaitExit(sessions[0].pid) // until then it may get packets that it does not read
		for _, c := range all[3] {
			c.exchange()
		}
	}
	// Nobody has these any more.
	if got := all[0][0].ask(all[0][0].name()); got != "reset" {
		t.Errorf("answer to a session of a process that has gone: %q", got)
	}
	// A stop without a successor lets sessions go on, too, and begins no new ones.
	last := all[3]
	s.Signal(last[0].pid, syscall.SIGTERM)
	s.WaitLog(last[0].pid, "draining")
	for range 10 {
		last[0].exchange()
	}
	late := &session{asker: newAsker(t, "udp", addrs[0]), t: t}
	testbin.Poll(t, "new sessions to be refused", func() bool { return late.ask(late.name()) == "reset" })
	for _, c := range last {
		c.end()
	}
	s.WaitGone()
}

// On standby the old process has its sessions, by way of the new one; when that dies
// it reads the socket again.
func TestForwardOnStandby(t *testing.T) {
	cfg := play.Config{Role: "sessions", Listens: []play.Listen{{Network: "udp", Addr: "127.0.0.1:0"}}, Standby: time.Hour}
	s := testbin.Start(t, cfg)
	parent, addrs := s.Newest()
	s.WaitLog(parent, "signals restart and stop this process")
	old := newSession(t, addrs[0])
	for range 2 {
		child := s.RestartPID(parent)
		s.WaitLog(parent, fmt.Sprintf("step=standby pid=%d child=%d", parent, child))
		for range 10 {
			old.exchange()
		}
		if c := newSession(t, addrs[0]); c.pid != child {
			t.Errorf("a new session is with process %d, want %d", c.pid, child)
		}
		s.Signal(child, syscall.SIGKILL)
		s.WaitLog(parent, fmt.Sprintf("child=%d after", child))
		for range 10 {
			old.exchange()
		}
	}
	old.end()
	s.Signal(parent, syscall.SIGTERM)
	s.WaitGone()
}
