//go:build unix

package grace_test

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/facebookgo/grace"
	"github.com/facebookgo/grace/internal/testbin"
	"github.com/facebookgo/grace/internal/testbin/play"
)

func TestRestartUnderLoad(t *testing.T) { testbin.RestartRaw(t, "grace") }
func TestStandbyTakesBack(t *testing.T) { testbin.StandbyRaw(t, "grace") }

// A program that calls Restart is told by SIGTERM that the new process is ready,
// and drains as for any other restart.
func TestProgramCallsRestart(t *testing.T) {
	dir := t.TempDir()
	path := filepath.Join(dir, "socket")
	cfg := play.Config{Role: "grace", Listens: []play.Listen{{Network: "tcp", Addr: "127.0.0.1:0"}, {Network: "unix", Addr: path}}}
	s := testbin.Start(t, cfg)
	first, addrs := s.Newest()
	load := testbin.NewLoad(t, testbin.Lines("tcp", addrs[0]), testbin.Lines("unix", path))
	load.WaitPID(first)
	for range 3 {
		old, _ := s.Newest()
		s.WaitLog(old, waits)
		n := len(s.Events())
		s.Signal(old, syscall.SIGHUP)
		new := s.WaitAfter(n, "the new process", func(e play.Event) bool { return e.Event == play.Serving }).PID
		load.WaitPID(new)
		if e := s.WaitReturned(old); e.Event != play.Returned || e.Text != "" {
			t.Fatalf("pid %d: %s %s", old, e.Event, e.Text)
		}
		if pid := testbin.AskPID(t, testbin.Lines("unix", path)); pid != new {
			t.Errorf("answered by %d, want %d", pid, new)
		}
	}
	last, _ := s.Newest()
	s.WaitLog(last, waits)
	load.Stop()
	s.Stop()
	if _, err := os.Lstat(path); !os.IsNotExist(err) {
		t.Errorf("path of the unix socket: %v, want it gone", err)
	}
}

func TestRestartNeedsListeners(t *testing.T) {
	if err := grace.Restart(nil); err == nil {
		t.Error("Restart without listeners = nil")
	}
}

// A child that the program itself has replaced during the standby has not died.
// The parent goes, and names the process that serves to the service manager.
func TestChildIsReplacedOnStandby(t *testing.T) {
	notify, told := testbin.NotifySocket(t)
	path := filepath.Join(t.TempDir(), "socket")
	cfg := play.Config{Role: "grace", Listens: []play.Listen{{Network: "unix", Addr: path}}, Standby: time.Hour}
	s := testbin.Start(t, cfg, testbin.Env("NOTIFY_SOCKET="+notify))
	testbin.ExpectTold(t, told, "READY=1")
	first, _ := s.Newest()
	s.WaitLog(first, waits)
	second := s.RestartPID(first)
	s.WaitLog(first, "standing by")
	s.WaitLog(second, waits)
	n := len(s.Events())
	s.Signal(second, syscall.SIGHUP)
	third := s.WaitAfter(n, "the third generation", func(e play.Event) bool { return e.Event == play.Serving }).PID
	s.WaitReturned(second)
	s.WaitReturned(first)
	s.WaitLog(first, fmt.Sprintf("child=%d successor=%d", second, third))
	testbin.ExpectTold(t, told, "RELOADING=1")
	// Once from the second, which is not believed, and once from the first.
	for range 2 {
		testbin.ExpectTold(t, told, fmt.Sprintf("MAINPID=%d\nREADY=1", third))
	}
	if pid := testbin.AskPID(t, testbin.Lines("unix", path)); pid != third {
		t.Errorf("answered by %d, want %d", pid, third)
	}
	s.WaitLog(third, waits)
	s.Stop()
	if _, err := os.Lstat(path); !os.IsNotExist(err) {
		t.Errorf("path of the unix socket: %v, want it gone", err)
	}
}

// A server that is told to stop goes on accepting for the StopDelay, but not if
// another one follows. Under a service manager a second SIGTERM changes nothing.
func TestStopDelay(t *testing.T) {
	cfg := play.Config{Role: "grace", Listens: []play.Listen{{Network: "tcp", Addr: "127.0.0.1:0"}}, StopDelay: time.Hour}
	s := testbin.Start(t, cfg, testbin.Env("INVOCATION_ID=1"))
	first, addrs := s.Newest()
	s.WaitLog(first, waits)
	_, pid := s.Restart()
	s.WaitReturned(first)
	s.WaitLog(pid, waits)
	s.Signal(pid, syscall.SIGTERM)
	s.WaitLog(pid, "step=stop")
	s.Signal(pid, syscall.SIGTERM)
	s.WaitLog(pid, "the request to stop changes nothing")
	if got := testbin.AskPID(t, testbin.Lines("tcp", addrs[0])); got != pid {
		t.Errorf("answered by %d, want %d", got, pid)
	}
	for _, e := range s.Events() {
		if e.PID == first && strings.Contains(e.Text, "step=stop") {
			t.Errorf("the old process logs %q", e.Text)
		}
	}
	s.Signal(pid, syscall.SIGKILL)
	s.WaitGone()

	cfg.StopDelay = 500 * time.Millisecond
	s = testbin.Start(t, cfg)
	pid, _ = s.Newest()
	s.WaitLog(pid, waits)
	begin := time.Now()
	s.Signal(pid, syscall.SIGTERM)
	if e := s.WaitReturned(pid); e.Event != play.Returned || e.Text != "" {
		t.Errorf("%s %s", e.Event, e.Text)
	}
	if d := time.Since(begin); d < cfg.StopDelay {
		t.Errorf("it stops after %v", d)
	}
	s.WaitGone()
}

// A child is told to stop before it has learned that its parent has gone. It is
// the last one all the same, and removes the path.
func TestStopRightAfterTheParent(t *testing.T) {
	for range 5 {
		path := filepath.Join(t.TempDir(), "socket")
		cfg := play.Config{Role: "grace", Listens: []play.Listen{{Network: "unix", Addr: path}}, Standby: time.Hour}
		s := testbin.Start(t, cfg)
		parent, _ := s.Newest()
		s.WaitLog(parent, waits)
		child := s.RestartPID(parent)
		s.WaitLog(parent, "standing by")
		s.WaitLog(child, waits)
		s.Freeze(child)
		s.Signal(parent, syscall.SIGTERM)
		s.WaitExit(parent)
		s.Signal(child, syscall.SIGTERM)
		s.Signal(child, syscall.SIGCONT)
		s.WaitGone()
		if _, err := os.Lstat(path); !os.IsNotExist(err) {
			t.Fatalf("path of the unix socket: %v, want it gone", err)
		}
	}
}
