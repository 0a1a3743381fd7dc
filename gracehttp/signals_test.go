//go:build unix

package gracehttp_test

import (
	"fmt"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/facebookgo/grace/internal/testbin"
	"github.com/facebookgo/grace/internal/testbin/play"
)

// 200 requests to restart within a second lead to few restarts and to one
// process; at no time more than two serve.
func TestBurstOfRestarts(t *testing.T) {
	for _, test := range []struct {
		name    string
		standby time.Duration
	}{
		{"no standby", 0},
		{"standby", 300 * time.Millisecond},
	} {
		t.Run(test.name, func(t *testing.T) {
			cfg := patient(httpConfig())
			cfg.Standby = test.standby
			s := testbin.Start(t, cfg)
			first, addrs := s.Newest()
			load := testbin.NewLoad(t, targets(addrs)...)
			load.WaitPID(first)
			tick := time.NewTicker(time.Second / 200)
			defer tick.Stop()
			for i := range 200 {
				<-tick.C
				// By turns the one that was asked first and the one that serves.
				pid, _ := s.Newest()
				if i%2 == 0 {
					pid = first
				}
				if err := syscall.Kill(pid, syscall.SIGUSR2); err != nil && err != syscall.ESRCH {
					t.Fatal(err)
				}
			}
			s.WaitOne()
			last, _ := s.Newest()
			if last == first {
				t.Error("the first process was never replaced")
			}
			load.WaitPID(last)
			load.Stop()
			if n := mostAtOnce(s.Events()); n > 2 {
				t.Errorf("%d processes served at once", n)
			}
			s.Stop()
		})
	}
}

// mostAtOnce is the largest number of processes that served at the same time:
// that had begun to and did not drain yet.
func mostAtOnce(events []play.Event) (most int) {
	serve := map[int]bool{}
	for _, e := range events {
		switch {
		case e.Event == play.Serving:
			serve[e.PID] = true
		case e.Event == play.Log && strings.HasPrefix(e.Text, "draining"):
			delete(serve, e.PID)
		}
		most = max(most, len(serve))
	}
	return most
}

// SIGTERM and SIGINT at every point of an upgrade, to the parent, the child, or
// both.
func TestStopDuringUpgrade(t *testing.T) {
	for _, point := range []struct {
		name  string
		reach func(t *testing.T) (s *testbin.Service, parent, child int)
	}{
		{"starting", starting},
		{"on standby", onStandby},
		{"draining", drainingParent},
	} {
		for _, sig := range []syscall.Signal{syscall.SIGTERM, syscall.SIGINT} {
			t.Run(fmt.Sprintf("%s, %v to the parent", point.name, sig), func(t *testing.T) {
				s, parent, child := point.reach(t)
				if point.name == "draining" {
					kill(s, parent, sig)
				} else {
					s.Signal(parent, sig)
					s.WaitExit(parent)
				}
				openGate(t, s)
				s.Wait("the child to serve", func(e play.Event) bool { return e.Event == play.Serving && e.PID == child })
				_, addrs := s.Newest()
				for _, target := range targets(addrs) {
					if pid := testbin.AskPID(t, target); pid != child {
						t.Errorf("answered by %d, want %d", pid, child)
					}
				}
				s.WaitOne()
				s.Stop()
				if e := s.WaitReturned(child); e.Event != play.Returned || e.Text != "" {
					t.Errorf("the child: %s %s", e.Event, e.Text)
				}
			})
			t.Run(fmt.Sprintf("%s, %v to both", point.name, sig), func(t *testing.T) {
				s, parent, child := point.reach(t)
				if point.name == "draining" {
					s.Signal(child, sig)
					kill(s, parent, sig)
				} else {
					s.Signal(parent, sig)
					s.Signal(child, sig)
				}
				s.WaitGone()
			})
		}
	}
}

// A child that is told to stop before it is ready stops; the parent serves on.
func TestStopOfChildThatStarts(t *testing.T) {
	s, parent, child := starting(t)
	s.Signal(child, syscall.SIGTERM)
	s.WaitLog(parent, "exited before it was ready: signal: terminated")
	_, addrs := s.Newest()
	if pid := testbin.AskPID(t, targets(addrs)[0]); pid != parent {
		t.Errorf("answered by %d, want %d", pid, parent)
	}
	s.Stop()
}

// SIGTERM while the pre-start hook runs: there is no child to leave.
func TestStopDuringHook(t *testing.T) {
	cfg := httpConfig()
	cfg.PreStart = "hang"
	s := testbin.Start(t, cfg)
	pid, _ := s.Newest()
	s.Signal(pid, syscall.SIGUSR2)
	s.WaitLog(pid, "the hook runs")
	s.Stop()
	if e := s.WaitReturned(pid); e.Event != play.Returned || e.Text != "" {
		t.Errorf("%s %s", e.Event, e.Text)
	}
}

// A second restart while a child starts, and one while the parent drains, are
// answered by a line in the log.
func TestSecondRestart(t *testing.T) {
	s, parent, child := starting(t)
	s.Signal(parent, syscall.SIGUSR2)
	s.WaitLog(parent, "a restart is under way already")
	if c := testbin.Children(t, parent); len(c) != 1 || c[0] != child {
		t.Errorf("children: %v, want %d", c, child)
	}
	openGate(t, s)
	s.WaitReturned(parent)
	s.Stop()

	s, parent, child = drainingParent(t)
	s.Signal(parent, syscall.SIGUSR2)
	s.WaitLog(parent, "draining already, the request to restart is ignored")
	if c := testbin.Children(t, parent); len(c) != 1 || c[0] != child {
		t.Errorf("children: %v, want %d", c, child)
	}
	kill(s, parent, syscall.SIGTERM)
	s.Stop()
}

// kill ends a process that drains since a restart: the first signal does not.
func kill(s *testbin.Service, pid int, sig syscall.Signal) {
	s.Signal(pid, sig)
	s.WaitLog(pid, "draining already, the request to stop changes nothing")
	s.Signal(pid, sig)
	s.WaitExit(pid)
}

// Generation after generation is replaced while it still has a long request.
// Each finishes what it has.
func TestThreeGenerationsAtOnce(t *testing.T) {
	s := testbin.Start(t, httpConfig())
	done := filepath.Join(t.TempDir(), "done")
	type result struct {
		answer string
		err    error
		pid    int
	}
	results := make(chan result)
	var pids []int
	for range 3 {
		pid, addrs := s.Newest()
		pids = append(pids, pid)
		go func() {
			answer, err := targets(addrs)[0]("until " + done)
			results <- result{answer, err, pid}
		}()
		s.Wait("the long request to begin", func(e play.Event) bool { return e.PID == pid && e.Event == play.Asked })
		if len(pids) < 3 {
			s.Restart()
			s.WaitLog(pid, "draining")
		}
	}
	if alive := s.Processes(); len(alive) != 3 {
		t.Errorf("alive: %v, want %v", alive, pids)
	}
	_, addrs := s.Newest()
	if pid := testbin.AskPID(t, targets(addrs)[0]); pid != pids[2] {
		t.Errorf("answered by %d, want %d", pid, pids[2])
	}
	create(t, done)
	for range pids {
		if r := <-results; r.err != nil || r.answer != fmt.Sprint(r.pid) {
			t.Errorf("long request: answer %q, %v, want %d", r.answer, r.err, r.pid)
		}
	}
	for _, pid := range pids[:2] {
		if e := s.WaitReturned(pid); e.Event != play.Returned || e.Text != "" {
			t.Errorf("%d: %s %s", pid, e.Event, e.Text)
		}
	}
	s.WaitOne()
	s.Stop()
}

func init() { roles = append(roles, testbin.Role{Name: "gated", Serve: serveGated}) }

// serveGated serves as soon as there is a file that openGate makes.
func serveGated(cfg play.Config) error {
	for {
		if _, err := os.Stat(gate); err == nil {
			return testbin.ServeHTTP(cfg, http.HandlerFunc(play.Handle))
		}
		time.Sleep(5 * time.Millisecond)
	}
}

const gate = "gate"

func openGate(t *testing.T, s *testbin.Service) {
	t.Helper()
	create(t, filepath.Join(s.Dir(), gate))
}

// starting returns a service with a child that has said hello, and becomes ready when
// openGate is called.
func starting(t *testing.T) (s *testbin.Service, parent, child int) {
	t.Helper()
	cfg := httpConfig()
	s = testbin.Start(t, cfg)
	parent, _ = s.Newest()
	cfg.Role = "gated"
	s.Deploy(cfg)
	s.Signal(parent, syscall.SIGUSR2)
	s.WaitLog(parent, "takes part in the handover")
	children := testbin.Children(t, parent)
	if len(children) != 1 {
		t.Fatalf("children: %v, want one", children)
	}
	return s, parent, children[0]
}

// onStandby returns a service with a parent on standby.
func onStandby(t *testing.T) (s *testbin.Service, parent, child int) {
	t.Helper()
	cfg := httpConfig()
	cfg.Standby = time.Hour
	s = testbin.Start(t, cfg)
	parent, child = s.Restart()
	s.WaitLog(parent, "standing by")
	return s, parent, child
}

// drainingParent returns a service whose parent still has a request.
func drainingParent(t *testing.T) (s *testbin.Service, parent, child int) {
	t.Helper()
	s = testbin.Start(t, httpConfig())
	_, addrs := s.Newest()
	c := dial(t, addrs[0])
	fmt.Fprint(c, "GET /until%20never HTTP/1.1\r\nHost: x\r\n\r\n")
	s.Wait("the request to begin", asked("until never"))
	parent, child = s.Restart()
	s.WaitLog(parent, "draining")
	return s, parent, child
}
