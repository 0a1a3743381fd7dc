//go:build unix

package testbin

import (
	"encoding/json"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/facebookgo/grace/gracetest"
	"github.com/facebookgo/grace/internal/proc"
	"github.com/facebookgo/grace/internal/testbin/play"
)

// Patience is how long a test waits for what must happen. It is long, since a
// busy machine is no failure.
const Patience = gracetest.Patience

// Service is a server and all generations that come after it, which report what
// happens: a line of standard output each. They share the one of the first, so its end
// shows that all are gone.
type Service struct {
	*gracetest.Service
	t testing.TB

	mu     sync.Mutex
	lines  int          // of standard output and standard error that are in events
	events []play.Event // only grows
}

// Start starts a service and waits until it serves, or has failed. What is left
// of it when the test ends is killed.
func Start(t testing.TB, cfg play.Config, options ...Option) *Service {
	t.Helper()
	return StartProgram(t, Executable(t), cfg, options...)
}

// StartProgram is Start for another program than the test binary.
func StartProgram(t testing.TB, program string, cfg play.Config, options ...Option) *Service {
	t.Helper()
	s := Launch(t, program, cfg, options...)
	e := s.Wait("the first process to serve", func(e play.Event) bool {
		return e.Event == play.Serving || e.Event == play.Failed
	})
	if e.Event == play.Failed {
		t.Fatalf("the first process failed: %s", e.Text)
	}
	return s
}

// Launch is StartProgram without waiting.
func Launch(t testing.TB, program string, cfg play.Config, options ...Option) *Service {
	t.Helper()
	s := &Service{t: t}
	s.Service = gracetest.Launch(t, program, func(started *gracetest.Service) *exec.Cmd {
		s.Service = started
		s.Deploy(cfg)
		cmd := exec.Command(s.Path())
		cmd.Dir = s.Dir()
		cmd.Env = append(gracetest.Environ(), play.EnvConfig+"="+s.config())
		for _, o := range options {
			o(s, cmd)
		}
		cmd.Env = slices.DeleteFunc(cmd.Env, func(kv string) bool { return kv == "" })
		return cmd
	})
	return s
}

// config is the file that says what the next process does.
func (s *Service) config() string { return filepath.Join(s.Dir(), "config") }

// Executable is the test binary.
func Executable(t testing.TB) string {
	t.Helper()
	path, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	return path
}

// Deploy makes cfg what the next process does.
func (s *Service) Deploy(cfg play.Config) {
	s.t.Helper()
	b, err := json.Marshal(cfg)
	if err != nil {
		s.t.Fatal(err)
	}
	name := s.config()
	if err := os.WriteFile(name+".new", b, 0o600); err != nil {
		s.t.Fatal(err)
	}
	if err := os.Rename(name+".new", name); err != nil {
		s.t.Fatal(err)
	}
}

// Errors returns what was written to standard error so far.
func (s *Service) Errors() string {
	var b strings.Builder
	for _, l := range s.Lines() {
		if l.Error {
			b.WriteString(l.Text + "\n")
		}
	}
	return b.String()
}

// Events returns what has happened so far.
func (s *Service) Events() []play.Event {
	events, _ := s.decode()
	return slices.Clone(events)
}

// decode returns what has happened so far, and how many lines say so.
func (s *Service) decode() (events []play.Event, n int) {
	lines := s.Lines()
	s.mu.Lock()
	defer s.mu.Unlock()
	for ; s.lines < len(lines); s.lines++ {
		if e, ok := event(lines[s.lines]); ok {
			s.events = append(s.events, e)
		}
	}
	return s.events, s.lines
}

// event returns the event that a line reports. What is written to standard error is none.
func event(l gracetest.Line) (play.Event, bool) {
	var e play.Event
	if l.Error {
		return e, false
	}
	if err := json.Unmarshal([]byte(l.Text), &e); err != nil {
		e = play.Event{Event: "not an event", Text: l.Text}
	}
	return e, true
}

// Wait returns the first event of all that have come, or will, that match
// accepts.
func (s *Service) Wait(what string, match func(play.Event) bool) play.Event {
	s.t.Helper()
	return s.WaitAfter(0, what, match)
}

// WaitAfter is Wait for the events after the first n.
func (s *Service) WaitAfter(n int, what string, match func(play.Event) bool) play.Event {
	s.t.Helper()
	events, lines := s.decode()
	for ; n < len(events); n++ {
		if match(events[n]) {
			return events[n]
		}
	}
	more := n - len(events) // of those to come that do not count
	var found play.Event
	s.WaitLine(lines, what, func(l gracetest.Line) bool {
		e, ok := event(l)
		if !ok {
			return false
		}
		more--
		found = e
		return more < 0 && match(e)
	})
	return found
}

// WaitLog waits until the process pid has logged a line with text; any process
// if pid is 0.
func (s *Service) WaitLog(pid int, text string) play.Event {
	s.t.Helper()
	return s.Wait(fmt.Sprintf("pid %d to log %q", pid, text), func(e play.Event) bool {
		return e.Event == play.Log && (pid == 0 || e.PID == pid) && strings.Contains(e.Text, text)
	})
}

// Newest returns the last process that said it serves, and its addresses.
func (s *Service) Newest() (pid int, addrs []string) {
	s.t.Helper()
	events := s.Events()
	for i := len(events) - 1; i >= 0; i-- {
		if e := events[i]; e.Event == play.Serving {
			return e.PID, e.Addrs
		}
	}
	s.t.Fatal("no process serves")
	return 0, nil
}

// Restart sends SIGUSR2 to the newest process and waits until another one
// serves. It returns both pids.
func (s *Service) Restart() (old, new int) {
	s.t.Helper()
	old, _ = s.Newest()
	return old, s.RestartPID(old)
}

// RestartPID is Restart for a process that need not be the newest.
func (s *Service) RestartPID(old int) (new int) {
	s.t.Helper()
	n := len(s.Events())
	s.Signal(old, syscall.SIGUSR2)
	e := s.WaitAfter(n, "the next generation to serve", func(e play.Event) bool {
		return e.Event == play.Serving && e.PID != old
	})
	return e.PID
}

// WaitReturned waits until Serve of the process pid has returned.
func (s *Service) WaitReturned(pid int) play.Event {
	s.t.Helper()
	return s.Wait(fmt.Sprintf("pid %d to return", pid), func(e play.Event) bool {
		return e.PID == pid && (e.Event == play.Returned || e.Event == play.Failed)
	})
}

// Stop sends SIGTERM to the newest process and waits until all have gone.
func (s *Service) Stop() {
	s.t.Helper()
	pid, _ := s.Newest()
	s.Signal(pid, syscall.SIGTERM)
	s.WaitGone()
}

// WaitGone waits until no process of the service is left.
func (s *Service) WaitGone() {
	s.t.Helper()
	select {
	case <-s.Gone():
	case <-time.After(Patience):
		s.t.Fatal("processes are left")
	}
}

// Poll waits until done reports true, which nothing announces.
func Poll(t testing.TB, what string, done func() bool) {
	t.Helper()
	gracetest.Poll(t, what, done)
}

// WaitOne waits until one process is left and no restart that was asked for is
// still to be begun.
func (s *Service) WaitOne() {
	s.t.Helper()
	Poll(s.t, "one process to be left", func() bool {
		waiting := map[int]bool{}
		for _, e := range s.Events() {
			switch {
			case strings.Contains(e.Text, "restart waits until"):
				waiting[e.PID] = true
			case strings.Contains(e.Text, "new process started"), strings.Contains(e.Text, "restart failed"):
				delete(waiting, e.PID)
			}
		}
		newest, _ := s.Newest()
		alive := s.Processes()
		return len(waiting) == 0 && len(alive) == 1 && alive[0] == newest
	})
}

// Children returns the pids of the children of pid, zombies too.
func Children(t testing.TB, pid int) []int {
	t.Helper()
	children, err := proc.Children(pid)
	if err != nil {
		t.Fatal(err)
	}
	return children
}

// ResidentKB is the memory of a process in KiB.
func ResidentKB(t testing.TB, pid int) int {
	t.Helper()
	kb, err := proc.ResidentKB(pid)
	if err != nil {
		t.Fatal(err)
	}
	return kb
}
