package grace_test

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
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
			s.WaitLog(new, waits)
		}
		pid, _ := s.Newest()
		s.WaitLog(pid, waits)
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
	s.WaitLog(parent, waits)
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
		s.WaitLog(parent, fmt.Sprintf("step=take-back pid=%d child=%d", parent, child))
		for range 10 {
			old.exchange()
		}
	}
	old.end()
	s.Signal(parent, syscall.SIGTERM)
	s.WaitGone()
}

// A process that drains and is frozen holds nobody up: packets for it are dropped once
// enough of them wait.
func TestForwardToFrozen(t *testing.T) {
	cfg := play.Config{Role: "sessions", Listens: []play.Listen{{Network: "udp", Addr: "127.0.0.1:0"}}}
	s := testbin.Start(t, cfg)
	parent, addrs := s.Newest()
	s.WaitLog(parent, waits)
	old := newSession(t, addrs[0])
	parent, child := s.Restart()
	s.WaitLog(parent, "draining")
	s.WaitLog(child, waits)
	young := newSession(t, addrs[0])
	if old.pid != parent || young.pid != child {
		t.Fatalf("sessions are with %d and %d, want %d and %d", old.pid, young.pid, parent, child)
	}
	old.exchange()
	s.Freeze(parent)
	flood := newAsker(t, "udp", addrs[0])
	for range 100 {
		for range 20 { // more than the link and its queue hold
			if _, err := flood.Write(append([]byte{old.generation}, make([]byte, 1000)...)); err != nil {
				t.Fatal(err)
			}
		}
		young.exchange()
	}
	s.Signal(parent, syscall.SIGCONT)
	// The answer to this shows that nothing is left that came before.
	question := append([]byte{old.generation}, "ask "...)
	b := make([]byte, 100)
	testbin.Poll(t, "the old process to answer again", func() bool {
		if _, err := flood.Write(question); err != nil {
			t.Fatal(err)
		}
		if err := flood.SetReadDeadline(time.Now().Add(10 * time.Millisecond)); err != nil {
			t.Fatal(err)
		}
		n := 0
		for err := error(nil); err == nil && string(b[:n]) != fmt.Sprint(parent); {
			n, err = flood.Read(b)
		}
		return string(b[:n]) == fmt.Sprint(parent)
	})
	old.exchange()
	old.end()
	s.WaitReturned(parent)
	young.end()
	s.Stop()
}

// However many restarts fail, no link is left of them.
func TestForwardLeavesNothing(t *testing.T) {
	cfg := play.Config{Role: "sessions", Listens: []play.Listen{{Network: "udp", Addr: "127.0.0.1:0"}}}
	s := testbin.Start(t, cfg)
	pid, addrs := s.Newest()
	s.WaitLog(pid, waits)
	c := newSession(t, addrs[0])
	open := func() int {
		entries, err := os.ReadDir(fmt.Sprintf("/proc/%d/fd", pid))
		if err != nil {
			t.Fatal(err)
		}
		return len(entries)
	}
	ask := func(question string) (string, error) { return c.ask("ask " + question), nil }
	descriptors, goroutines := open(), number(t, ask, "goroutines")
	bad := cfg
	bad.Role = "exit"
	s.Deploy(bad)
	for range 100 {
		n := len(s.Events())
		s.Signal(pid, syscall.SIGUSR2)
		s.WaitAfter(n, "the restart to fail", func(e play.Event) bool { return strings.Contains(e.Text, "restart failed") })
	}
	testbin.Poll(t, "descriptors to be closed", func() bool { return open() <= descriptors })
	testbin.Poll(t, "goroutines to end", func() bool { return number(t, ask, "goroutines") <= goroutines })
	// Of what is no program there is nobody to get the other end.
	text := filepath.Join(t.TempDir(), "text")
	if err := os.WriteFile(text, []byte("text"), 0o700); err != nil {
		t.Fatal(err)
	}
	s.Install(text)
	for range 10 {
		n := len(s.Events())
		s.Signal(pid, syscall.SIGUSR2)
		s.WaitAfter(n, "the restart to fail", func(e play.Event) bool { return strings.Contains(e.Text, "restart failed") })
	}
	testbin.Poll(t, "descriptors to be closed", func() bool { return open() <= descriptors })
	c.exchange()
	c.end()
	s.Stop()
}

// A process that has closed its socket gets no packets any more, also if it lives on.
func TestForwardAfterClose(t *testing.T) {
	cfg := play.Config{Role: "sessions", Listens: []play.Listen{{Network: "udp", Addr: "127.0.0.1:0"}}}
	cfg.Says.Until = filepath.Join(t.TempDir(), "release")
	s := testbin.Start(t, cfg)
	parent, addrs := s.Newest()
	s.WaitLog(parent, waits)
	old := newSession(t, addrs[0])
	parent, child := s.Restart()
	s.WaitLog(parent, "draining")
	old.exchange()
	old.end()
	s.Wait("the old process to go on", func(e play.Event) bool { return e.Event == play.Asked && e.PID == parent })
	testbin.Poll(t, "the new process to have its packets", func() bool {
		_, _ = old.Write(append([]byte{old.generation}, old.name()...))
		_ = old.SetReadDeadline(time.Now().Add(10 * time.Millisecond))
		b := make([]byte, 100)
		n, err := old.Read(b)
		return err == nil && string(b[:n]) == "reset"
	})
	if err := os.WriteFile(cfg.Says.Until, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	s.WaitReturned(parent)
	s.WaitLog(child, waits)
	s.Stop()
}

// session is a client of the role sessions.
type session struct {
	*asker
	t          *testing.T
	generation byte
	pid        int
	count      int
}

func newSession(t *testing.T, addr string) *session {
	t.Helper()
	s := &session{asker: newAsker(t, "udp", addr), t: t}
	s.exchange()
	return s
}

func (s *session) ask(name string) string {
	s.t.Helper()
	if _, err := s.Write(append([]byte{s.generation}, name...)); err != nil {
		s.t.Fatal(err)
	}
	if err := s.SetReadDeadline(time.Now().Add(testbin.Patience)); err != nil {
		s.t.Fatal(err)
	}
	b := make([]byte, 1000)
	n, err := s.Read(b)
	if err != nil {
		s.t.Fatalf("session %s of generation %d: %v", s.name(), s.generation, err)
	}
	return string(b[:n])
}

func (s *session) name() string { return s.LocalAddr().String() }

// exchange asks once, and must be answered by the process that has the session.
func (s *session) exchange() {
	s.t.Helper()
	answer := s.ask(s.name())
	var generation, pid, count int
	var name string
	if _, err := fmt.Sscan(answer, &generation, &pid, &name, &count); err != nil {
		s.t.Fatalf("session of generation %d, process %d: answer %q", s.generation, s.pid, answer)
	}
	s.count++
	if s.generation == 0 {
		s.generation, s.pid = byte(generation), pid
	}
	if generation != int(s.generation) || pid != s.pid || name != s.name() || count != s.count {
		s.t.Errorf("answer %q, want %d %d %s %d", answer, s.generation, s.pid, s.name(), s.count)
	}
}

func (s *session) end() {
	s.t.Helper()
	if got := s.ask("end " + s.name()); got != "ended" {
		s.t.Errorf("end of a session: %q", got)
	}
}
