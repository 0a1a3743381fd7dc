//go:build unix

package grace_test

import (
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/facebookgo/grace/internal/testbin"
	"github.com/facebookgo/grace/internal/testbin/play"
)

// How the connections of real servers, of the role talk, come to their end.

const (
	waits = "signals restart and stop this process"
	told  = "handler is told: grace: draining"
	back  = "handler comes back: "
)

// talking starts a server on tcp, with TLS and on a unix socket.
func talking(t *testing.T, cfg play.Config, options ...testbin.Option) (s *testbin.Service, pid int, addrs []string) {
	t.Helper()
	s = testbin.Start(t, cfg, options...)
	pid, addrs = s.Newest()
	s.WaitLog(pid, waits)
	return s, pid, addrs
}

func talks(t *testing.T) []play.Listen {
	return []play.Listen{
		{Network: "tcp", Addr: "127.0.0.1:0"},
		{Network: "tcp", Addr: "127.0.0.1:0", TLS: true},
		{Network: "unix", Addr: filepath.Join(t.TempDir(), "socket")},
	}
}

// say asks a question whose answer is the pid.
func say(t *testing.T, w *testbin.Wire, question string, pid int) {
	t.Helper()
	w.Send(question + "\n")
	if got := w.Line(); got != fmt.Sprint(pid) {
		t.Fatalf("asked %q: %q, want %d", question, got, pid)
	}
}

// logged counts the lines of a process.
func logged(s *testbin.Service, pid int, text string) int { return count(s, pid, play.Log, text) }

func count(s *testbin.Service, pid int, event, text string) (n int) {
	for _, e := range s.Events() {
		if e.PID == pid && e.Event == event && strings.Contains(e.Text, text) {
			n++
		}
	}
	return n
}

// ends make the process pid drain.
var ends = map[string]func(s *testbin.Service, pid int){
	"restart": func(s *testbin.Service, pid int) {
		new := s.RestartPID(pid)
		s.WaitLog(new, waits)
	},
	"stop": func(s *testbin.Service, pid int) { s.Signal(pid, syscall.SIGTERM) },
}

// An idle connection is closed after its time of grace, one that has become idle
// during the drain too, and nothing else is waited for.
func TestIdleIsClosed(t *testing.T) {
	for name, end := range ends {
		t.Run(name, func(t *testing.T) {
			const grace = time.Second // not the default
			cfg := play.Config{Role: "talk", Listens: talks(t), IdleGrace: grace}
			s, pid, addrs := talking(t, cfg)
			var idle, busy []*testbin.Wire
			gate := filepath.Join(t.TempDir(), "gate")
			for i, l := range cfg.Listens {
				w := testbin.Dial(t, l, addrs[i])
				say(t, w, "", pid)
				idle = append(idle, w)
				w = testbin.Dial(t, l, addrs[i])
				w.Send("until " + gate + "\n")
				busy = append(busy, w)
			}
			testbin.Poll(t, "the questions", func() bool { return count(s, pid, play.Asked, "") == len(busy) })
			begin := time.Now()
			end(s, pid)
			for _, w := range idle {
				w.WaitClosed()
			}
			if d := time.Since(begin); d < grace {
				t.Errorf("idle connections are closed after %v, before their time", d)
			}
			begin = time.Now()
			if err := os.WriteFile(gate, nil, 0o600); err != nil {
				t.Fatal(err)
			}
			for _, w := range busy {
				if got := w.Line(); got != fmt.Sprint(pid) {
					t.Errorf("answer %q", got)
				}
				w.WaitClosed()
			}
			if d := time.Since(begin); d < grace {
				t.Errorf("connections that became idle are closed after %v, before their time", d)
			}
			if e := s.WaitReturned(pid); e.Event != play.Returned || e.Text != "" {
				t.Errorf("%s %s", e.Event, e.Text)
			}
			// The handlers saw the end of what they read, and not an error of their
			// own doing. TLS tells of its absence.
			if n := logged(s, pid, back+"EOF") + logged(s, pid, back+"unexpected EOF"); n != 2*len(cfg.Listens) {
				t.Errorf("%d handlers came back as after the Close of a client, want %d", n, 2*len(cfg.Listens))
			}
		})
	}
}

// Nothing of a request that has come is lost: neither when it has come in the time
// of grace, nor a half one.
func TestRequestDuringGrace(t *testing.T) {
	for name, end := range ends {
		t.Run(name, func(t *testing.T) {
			for grace := 3 * time.Second; !requestDuringGrace(t, end, grace); grace *= 4 {
				t.Logf("the machine is too slow for a time of grace of %v", grace)
			}
		})
	}
}

// requestDuringGrace returns false if the time of grace may have been over before the
// requests were made.
func requestDuringGrace(t *testing.T, end func(*testbin.Service, int), grace time.Duration) (inTime bool) {
	t.Helper()
	cfg := play.Config{Role: "talk", Listens: talks(t), IdleGrace: grace}
	s, pid, addrs := talking(t, cfg)
	var half, idle []*testbin.Wire
	for i, l := range cfg.Listens {
		w := testbin.Dial(t, l, addrs[i])
		say(t, w, "", pid)
		half = append(half, w)
		w = testbin.Dial(t, l, addrs[i])
		say(t, w, "", pid)
		idle = append(idle, w)
	}
	begin := time.Now()
	end(s, pid)
	s.WaitLog(pid, "step=drain")
	for i := range half {
		_, _ = io.WriteString(half[i], "sleep")
		_, _ = io.WriteString(idle[i], "\n")
	}
	if time.Since(begin) >= grace {
		return false
	}
	for _, w := range idle {
		if got := w.Line(); got != fmt.Sprint(pid) {
			t.Errorf("answer %q", got)
		}
		w.WaitClosed() // the time of grace is over
	}
	for _, w := range half {
		w.Send(" 1ms\n")
		if got := w.Line(); got != fmt.Sprint(pid) {
			t.Errorf("answer %q", got)
		}
		_ = w.Close()
	}
	if e := s.WaitReturned(pid); e.Event != play.Returned || e.Text != "" {
		t.Errorf("%s %s", e.Event, e.Text)
	}
	return true
}

// A handler learns of the drain, and can say goodbye before the connection is
// closed, which then takes no time of grace.
func TestHandlerSaysGoodbye(t *testing.T) {
	for name, end := range ends {
		t.Run(name, func(t *testing.T) {
			cfg := play.Config{Role: "talk", Listens: talks(t), IdleGrace: time.Hour, Goodbye: true}
			s, pid, addrs := talking(t, cfg)
			var idle []*testbin.Wire
			for i, l := range cfg.Listens {
				w := testbin.Dial(t, l, addrs[i])
				say(t, w, "", pid)
				idle = append(idle, w)
			}
			if n := logged(s, pid, told); n != 0 {
				t.Errorf("%d handlers are told before there is something to tell", n)
			}
			end(s, pid)
			for _, w := range idle {
				if got := w.Line(); got != "bye" {
					t.Errorf("got %q", got)
				}
				say(t, w, "", pid) // it was on its way
				_ = w.Close()
			}
			if e := s.WaitReturned(pid); e.Event != play.Returned || e.Text != "" {
				t.Errorf("%s %s", e.Event, e.Text)
			}
		})
	}
}

// On standby nobody is told and nothing is closed: this process may serve on, and
// does if the child dies.
func TestStandbyTellsNobody(t *testing.T) {
	cfg := play.Config{Role: "talk", Listens: talks(t), IdleGrace: 50 * time.Millisecond, Standby: time.Hour, Goodbye: true}
	s, parent, addrs := talking(t, cfg)
	var kept []*testbin.Wire
	for i, l := range cfg.Listens {
		w := testbin.Dial(t, l, addrs[i])
		say(t, w, "", parent)
		kept = append(kept, w)
	}
	for range 2 {
		n := len(s.Events())
		child := s.RestartPID(parent)
		s.WaitAfter(n, "the standby", func(e play.Event) bool { return e.PID == parent && strings.Contains(e.Text, "step=standby") })
		for _, w := range kept {
			say(t, w, "", parent)
			w.StaysOpen(100 * time.Millisecond)
		}
		s.Signal(child, syscall.SIGKILL)
		s.WaitAfter(n, "the take-back", func(e play.Event) bool { return e.PID == parent && strings.Contains(e.Text, "step=take-back") })
		for i, w := range kept {
			say(t, w, "", parent)
			w.StaysOpen(100 * time.Millisecond)
			say(t, testbin.Dial(t, cfg.Listens[i], addrs[i]), "", parent)
		}
	}
	if n := logged(s, parent, told); n != 0 {
		t.Errorf("%d handlers are told of a drain that has not begun", n)
	}
	s.Signal(parent, syscall.SIGTERM)
	for _, w := range kept {
		if got := w.Line(); got != "bye" {
			t.Errorf("got %q", got)
		}
	}
	s.WaitGone()
}

// When the time is over connections are closed, and Wait returns when their
// handlers have come back.
func TestTermTimeout(t *testing.T) {
	for name, end := range ends {
		t.Run(name, func(t *testing.T) {
			cfg := play.Config{Role: "talk", Listens: talks(t), IdleGrace: time.Hour, TermTimeout: 200 * time.Millisecond}
			s, pid, addrs := talking(t, cfg)
			var kept []*testbin.Wire
			for i, l := range cfg.Listens {
				w := testbin.Dial(t, l, addrs[i])
				say(t, w, "linger 100ms", pid)
				kept = append(kept, w)
				w = testbin.Dial(t, l, addrs[i])
				say(t, w, "linger 100ms", pid)
				w.Send("half")
				kept = append(kept, w)
			}
			begin := time.Now()
			end(s, pid)
			for _, w := range kept {
				w.WaitClosed()
			}
			if d := time.Since(begin); d < cfg.TermTimeout {
				t.Errorf("connections are closed after %v, before their time", d)
			}
			if e := s.WaitReturned(pid); e.Text != "grace: TERM timeout in closing listeners" {
				t.Errorf("%s %s", e.Event, e.Text)
			}
			// They have a second, which a busy machine may need for something else.
			inTime := time.Since(begin) < cfg.TermTimeout+time.Second
			if n := logged(s, pid, back); n != len(kept) && inTime {
				t.Errorf("%d handlers came back before Wait returned, want %d", n, len(kept))
			}
		})
	}
}

// A handler that does not come back is not waited for any longer.
func TestTermTimeoutOfDeafHandler(t *testing.T) {
	cfg := play.Config{Role: "talk", Listens: talks(t)[:1], TermTimeout: 10 * time.Millisecond}
	s, pid, addrs := talking(t, cfg)
	w := testbin.Dial(t, cfg.Listens[0], addrs[0])
	w.Send("until " + filepath.Join(t.TempDir(), "never") + "\n")
	s.Wait("the question", func(e play.Event) bool { return e.Event == play.Asked })
	s.Signal(pid, syscall.SIGTERM)
	w.WaitClosed()
	if e := s.WaitReturned(pid); e.Text != "grace: TERM timeout in closing listeners" {
		t.Errorf("%s %s", e.Event, e.Text)
	}
	s.WaitGone()
}

// When the service manager must see at once that the new process has died, this one
// closes its connections and leaves.
func TestAbortClosesConnections(t *testing.T) {
	notify, _ := testbin.NotifySocket(t)
	cfg := play.Config{Role: "talk", Listens: talks(t), IdleGrace: time.Hour}
	s, old, addrs := talking(t, cfg, testbin.Env("NOTIFY_SOCKET="+notify))
	var kept []*testbin.Wire
	for i, l := range cfg.Listens {
		w := testbin.Dial(t, l, addrs[i])
		say(t, w, "", old)
		kept = append(kept, w)
	}
	new := s.RestartPID(old)
	s.WaitLog(old, "step=drain")
	for _, w := range kept {
		say(t, w, "", old)
	}
	s.Signal(new, syscall.SIGKILL)
	for _, w := range kept {
		w.WaitClosed()
	}
	if e := s.WaitReturned(old); e.Text != "grace: the successor died, closing listeners was cut short" {
		t.Errorf("%s %s", e.Event, e.Text)
	}
	s.WaitGone()
}

// A deadline that the program has set does not end the standby, and holds again
// when the listener is taken back.
func TestDeadlineAcrossTakeBack(t *testing.T) {
	const exceeded = "Accept: deadline exceeded"
	cfg := play.Config{Role: "talk", Listens: talks(t)[:1], Standby: time.Hour}
	s, parent, addrs := talking(t, cfg)
	w := testbin.Dial(t, cfg.Listens[0], addrs[0])
	set := func(after string) {
		t.Helper()
		w.Send("deadline " + after + "\n")
		if got := w.Line(); got != "no error" {
			t.Fatalf("SetDeadline: %s", got)
		}
	}
	set("1ms")
	s.WaitLog(parent, exceeded) // as ever
	set("1h")
	child := s.RestartPID(parent)
	s.WaitLog(parent, "step=standby")
	set("1ms")
	say(t, w, "sleep 100ms", parent)
	n := logged(s, parent, exceeded)
	if n != 1 {
		t.Errorf("the deadline has ended the standby")
	}
	n = len(s.Events())
	s.Signal(child, syscall.SIGKILL)
	s.WaitAfter(n, "the deadline", func(e play.Event) bool { return e.PID == parent && e.Text == exceeded })
	say(t, testbin.Dial(t, cfg.Listens[0], addrs[0]), "", parent)
	_ = w.Close()
	s.Signal(parent, syscall.SIGTERM)
	s.WaitGone()
}

// Clients that keep their connections and never try again lose nothing by twenty
// restarts, if the server says goodbye. The time of grace is for a busy machine: no
// client needs it.
func TestGoodbyeLosesNothing(t *testing.T) {
	listens := talks(t)
	cfg := play.Config{Role: "talk", Listens: listens, IdleGrace: testbin.Patience, Goodbye: true}
	s, pid, addrs := talking(t, cfg)
	var targets []testbin.Target
	var hangUps []func()
	for i := range 64 {
		target, hangUp := testbin.Talk(listens[i%len(listens)], addrs[i%len(listens)])
		targets = append(targets, target)
		t.Cleanup(hangUp)
		hangUps = append(hangUps, hangUp)
	}
	load := testbin.NewLoad(t, targets...)
	load.WaitPID(pid)
	for range 20 {
		load.WaitMore(2 * len(targets))
		old, new := s.Restart()
		load.WaitPID(new)
		s.WaitLog(new, waits)
		if e := s.WaitReturned(old); e.Event != play.Returned || e.Text != "" {
			t.Fatalf("pid %d: %s %s", old, e.Event, e.Text)
		}
	}
	load.Stop()
	for _, hangUp := range hangUps {
		hangUp()
	}
	s.Stop()
}
