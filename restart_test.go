//go:build unix

package grace_test

import (
	"os"
	"path/filepath"
	"syscall"
	"testing"

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
		s.WaitLog(old, "signals restart and stop this process")
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
	s.WaitLog(last, "signals restart and stop this process")
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
