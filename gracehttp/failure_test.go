//go:build unix

package gracehttp_test

import (
	"bufio"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/facebookgo/grace/internal/testbin"
	"github.com/facebookgo/grace/internal/testbin/play"
)

// An upgrade that fails changes nothing, whatever is wrong, and a good program
// that is put back is then started.
func TestFailedUpgrade(t *testing.T) {
	good := httpConfig()
	faults := []struct {
		name   string
		damage func(t *testing.T, s *testbin.Service)
		reason string
	}{
		{"missing", func(t *testing.T, s *testbin.Service) {
			s.Install(filepath.Join(s.Dir(), "nothing"))
		}, "no such file or directory"},
		{"not executable", func(t *testing.T, s *testbin.Service) {
			s.Install(write(t, s, "plain", "#!/bin/sh\n", 0o644))
		}, "permission denied"},
		{"directory", func(t *testing.T, s *testbin.Service) {
			s.Install(s.Dir())
		}, "is a directory"},
		{"wrong format", func(t *testing.T, s *testbin.Service) {
			s.Install(write(t, s, "rubbish", "no program at all\n", 0o755))
		}, "exec format error"},
		{"no library", func(t *testing.T, s *testbin.Service) {
			s.Install(write(t, s, "script", "#!/bin/sh\nexit 3\n", 0o755))
		}, "exit status 3"},
		{"exits at once", func(t *testing.T, s *testbin.Service) {
			s.Deploy(play.Config{Role: "exit"})
		}, "exit status 7"},
		{"panics", func(t *testing.T, s *testbin.Service) {
			s.Deploy(play.Config{Role: "panic"})
		}, "exit status 2"},
		{"can't listen", func(t *testing.T, s *testbin.Service) {
			cfg := good
			cfg.Listens = append([]play.Listen{{Addr: "192.0.2.1:1"}}, good.Listens...)
			s.Deploy(cfg)
		}, "exit status 1"},
		{"rubbish on the control socket", func(t *testing.T, s *testbin.Service) {
			s.Deploy(play.Config{Role: "rubbish"})
		}, "no message of a handover"},
		{"closes its descriptors", func(t *testing.T, s *testbin.Service) {
			s.Deploy(play.Config{Role: "close"})
		}, "closed its control socket"},
		{"never ready", func(t *testing.T, s *testbin.Service) {
			s.Deploy(play.Config{Role: "hang"})
		}, "not ready within 3s"},
	}
	cfg := good
	cfg.StartTimeout = 3 * time.Second // for hang; the others fail before that
	s := testbin.Start(t, cfg)
	pid, addrs := s.Newest()
	target := targets(addrs)[0]
	load := testbin.NewLoad(t, targets(addrs)...)
	load.WaitPID(pid)
	before := testbin.Ask(t, target, "fds")
	for _, f := range faults {
		t.Run(f.name, func(t *testing.T) {
			n := len(s.Events())
			f.damage(t, s)
			s.Signal(pid, syscall.SIGUSR2)
			e := s.WaitAfter(n, "the failure to be logged", logged(pid, "restart failed"))
			if !strings.Contains(e.Text, f.reason) {
				t.Errorf("logged %q, want the reason %q", e.Text, f.reason)
			}
			if c := testbin.Children(t, pid); len(c) != 0 {
				t.Errorf("children are left: %v", c)
			}
			testbin.SameDescriptors(t, target, before)
			if now := testbin.AskPID(t, target); now != pid {
				t.Errorf("answered by %d, want %d", now, pid)
			}
			load.WaitMore(10)
			// What was broken is mended.
			s.Deploy(cfg)
			s.Install(testbin.Executable(t))
		})
	}
	old, new := s.Restart()
	load.WaitPID(new)
	s.WaitReturned(old)
	load.Stop()
	s.Stop()
}

func TestFailedHook(t *testing.T) {
	cfg := httpConfig()
	cfg.PreStart = "the index is locked"
	s := testbin.Start(t, cfg)
	pid, addrs := s.Newest()
	s.Signal(pid, syscall.SIGUSR2)
	s.WaitLog(pid, "the index is locked")
	if c := testbin.Children(t, pid); len(c) != 0 {
		t.Errorf("a process was started: %v", c)
	}
	if now := testbin.AskPID(t, targets(addrs)[0]); now != pid {
		t.Errorf("answered by %d, want %d", now, pid)
	}
	s.Stop()
}

// The directory of the start is gone: the message must not blame the program.
func TestDirectoryIsGone(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "release")
	if err := os.Mkdir(dir, 0o755); err != nil {
		t.Fatal(err)
	}
	s := testbin.Start(t, httpConfig(), testbin.Dir(dir))
	pid, _ := s.Newest()
	if err := os.Remove(dir); err != nil {
		t.Fatal(err)
	}
	s.Signal(pid, syscall.SIGUSR2)
	if e := s.WaitLog(pid, "restart failed"); !strings.Contains(e.Text, "directory where this process was started") {
		t.Errorf("logged %q", e.Text)
	}
	s.Stop()
}

// A child that dies when it was ready already is replaced by its parent.
func TestStandbyTakesBack(t *testing.T) {
	cfg := httpConfig()
	cfg.Standby = time.Hour // ended by SIGTERM
	s := testbin.Start(t, cfg)
	parent, addrs := s.Newest()
	load := testbin.NewLoad(t, targets(addrs)...)
	for range 3 {
		n := len(s.Events())
		child := s.RestartPID(parent)
		s.WaitAfter(n, "the parent to stand by", logged(parent, "standing by"))
		for range 20 {
			if pid := testbin.AskPID(t, targets(addrs)[0]); pid != child {
				t.Errorf("answered by %d while %d stands by for %d", pid, parent, child)
			}
		}
		// No request may be in the child when it dies.
		load.Pause()
		s.Signal(child, syscall.SIGKILL)
		load.Resume()
		s.WaitAfter(n, "the parent to serve again", logged(parent, "serves again"))
		for _, target := range targets(addrs) {
			if pid := testbin.AskPID(t, target); pid != parent {
				t.Errorf("answered by %d, want %d", pid, parent)
			}
		}
		if c := testbin.Children(t, parent); len(c) != 0 {
			t.Errorf("children are left: %v", c)
		}
	}
	// And still it can be upgraded; on standby SIGTERM makes it drain.
	child := s.RestartPID(parent)
	load.WaitPID(child)
	s.WaitLog(parent, fmt.Sprintf("standing by child=%d", child))
	s.Signal(parent, syscall.SIGTERM)
	s.WaitReturned(parent)
	load.WaitPID(child)
	load.Stop()
	s.Stop()
}

// On standby the parent answers on the connections it has, and asks the clients
// to make their next one elsewhere; when it serves again it does not.
func TestAnswersOnStandby(t *testing.T) {
	cfg := play.Config{Role: "http", Listens: []play.Listen{{Addr: "127.0.0.1:0"}}, Standby: time.Hour}
	s := testbin.Start(t, cfg)
	parent, addrs := s.Newest()
	ask := func(c net.Conn, closes bool) {
		t.Helper()
		fmt.Fprint(c, "GET / HTTP/1.1\r\nHost: x\r\n\r\n")
		resp, err := http.ReadResponse(bufio.NewReader(c), nil)
		if err != nil {
			t.Fatal(err)
		}
		defer resp.Body.Close()
		b, err := io.ReadAll(resp.Body)
		if err != nil || string(b) != strconv.Itoa(parent) {
			t.Errorf("answer %q, %v, want %d", b, err, parent)
		}
		if resp.Close != closes {
			t.Errorf("the answer closes the connection: %t, want %t", resp.Close, closes)
		}
	}
	unused := dial(t, addrs[0])
	used := dial(t, addrs[0])
	ask(used, false) // so unused, which came before, is accepted as well
	child := s.RestartPID(parent)
	s.WaitLog(parent, "standing by")
	ask(used, true)
	ask(unused, true)
	s.Signal(child, syscall.SIGKILL)
	s.WaitLog(parent, "serves again")
	ask(dial(t, addrs[0]), false)
	s.Signal(parent, syscall.SIGTERM)
	s.WaitGone()
}

// A child that the operator stops has not died.
func TestStopOfChildEndsStandby(t *testing.T) {
	cfg := httpConfig()
	cfg.Standby = time.Hour
	s := testbin.Start(t, cfg)
	parent, child := s.Restart()
	s.WaitLog(parent, "standing by")
	s.Signal(child, syscall.SIGTERM)
	s.WaitGone()
	s.WaitLog(parent, "told to stop")
	for _, pid := range []int{parent, child} {
		if e := s.WaitReturned(pid); e.Text != "" {
			t.Errorf("%d returned %q", pid, e.Text)
		}
	}
}

// A restart that reaches the parent on standby is passed on, and the parent goes
// when its child has been replaced.
func TestRestartOnStandbyIsPassedOn(t *testing.T) {
	cfg := httpConfig()
	cfg.Standby = time.Hour
	s := testbin.Start(t, cfg)
	first, second := s.Restart()
	s.WaitLog(first, "standing by")
	cfg.Standby = 0
	s.Deploy(cfg)
	n := len(s.Events())
	s.Signal(first, syscall.SIGUSR2)
	e := s.WaitAfter(n, "the third generation", func(e play.Event) bool { return e.Event == play.Serving })
	// The second stands by for the third as it was told when it was started.
	s.WaitLog(second, "standing by")
	s.Signal(second, syscall.SIGTERM)
	s.WaitReturned(second)
	s.WaitReturned(first)
	_, addrs := s.Newest()
	if pid := testbin.AskPID(t, targets(addrs)[0]); pid != e.PID {
		t.Errorf("answered by %d, want %d", pid, e.PID)
	}
	s.Stop()
}

// Each generation stands by for the next one; the stop of the newest ends them
// all.
func TestStopEndsAllStandbys(t *testing.T) {
	cfg := httpConfig()
	cfg.Standby = time.Hour
	s := testbin.Start(t, cfg)
	var olds []int
	for range 3 {
		old, new := s.Restart()
		s.WaitLog(old, "standing by")
		olds = append(olds, old)
		_, addrs := s.Newest()
		if pid := testbin.AskPID(t, targets(addrs)[0]); pid != new {
			t.Errorf("answered by %d, want %d", pid, new)
		}
	}
	s.Stop()
	for _, pid := range olds {
		if e := s.WaitReturned(pid); e.Event != play.Returned || e.Text != "" {
			t.Errorf("pid %d: %s %s", pid, e.Event, e.Text)
		}
	}
}

// SIGTERM while an upgrade is pending drains the parent and leaves the child.
func TestStopDuringUpgradeLeavesChild(t *testing.T) {
	s, parent := pendingUpgrade(t)
	s.Signal(parent, syscall.SIGTERM)
	if e := s.WaitReturned(parent); e.Text != "" {
		t.Errorf("Serve returned %q", e.Text)
	}
	child := s.Wait("the child to serve", func(e play.Event) bool { return e.Event == play.Serving && e.PID != parent })
	if pid := testbin.AskPID(t, targets(child.Addrs)[0]); pid != child.PID {
		t.Errorf("answered by %d, want %d", pid, child.PID)
	}
	s.Stop()
}

// Two signals at once start one child.
func TestSecondRestartWhileOneIsUnderWay(t *testing.T) {
	s, parent := pendingUpgrade(t)
	s.Signal(parent, syscall.SIGUSR2)
	s.WaitLog(parent, "under way already")
	if c := testbin.Children(t, parent); len(c) != 1 {
		t.Errorf("children: %v, want one", c)
	}
	s.WaitReturned(parent)
	s.Stop()
}

// The parent is killed while the child starts: the child serves and signals
// nobody.
func TestParentIsKilled(t *testing.T) {
	s, parent := pendingUpgrade(t)
	s.Signal(parent, syscall.SIGKILL)
	child := s.Wait("the child to serve", func(e play.Event) bool { return e.Event == play.Serving && e.PID != parent })
	if pid := testbin.AskPID(t, targets(child.Addrs)[0]); pid != child.PID {
		t.Errorf("answered by %d, want %d", pid, child.PID)
	}
	old, _ := s.Restart()
	s.WaitReturned(old)
	s.Stop()
}

// pendingUpgrade starts a service and its upgrade, with a child that has said
// hello and takes a second to become ready.
func pendingUpgrade(t *testing.T) (s *testbin.Service, parent int) {
	t.Helper()
	cfg := httpConfig()
	s = testbin.Start(t, cfg)
	parent, _ = s.Newest()
	cfg.Delay = time.Second
	s.Deploy(cfg)
	s.Signal(parent, syscall.SIGUSR2)
	s.WaitLog(parent, "takes part in the handover")
	return s, parent
}

func logged(pid int, text string) func(play.Event) bool {
	return func(e play.Event) bool {
		return e.Event == play.Log && e.PID == pid && strings.Contains(e.Text, text)
	}
}

// write makes a file in the directory of the service.
func write(t *testing.T, s *testbin.Service, name, content string, perm os.FileMode) string {
	t.Helper()
	path := filepath.Join(s.Dir(), name)
	if err := os.WriteFile(path, []byte(content), perm); err != nil {
		t.Fatal(err)
	}
	return path
}
