//go:build unix

package grace_test

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"github.com/facebookgo/grace/internal/testbin"
	"github.com/facebookgo/grace/internal/testbin/play"
)

// A child that has written the PID file and fails after that leaves it to the process
// that serves on.
func TestPIDFileAfterFailure(t *testing.T) {
	path := filepath.Join(t.TempDir(), "pid")
	cfg := play.Config{Role: "grace", Listens: []play.Listen{{Network: "tcp", Addr: "127.0.0.1:0"}}, PIDFile: path}
	s := testbin.Start(t, cfg)
	pid, addrs := s.Newest()
	s.WaitLog(pid, waits)
	fails := cfg
	fails.ControlSocket = "config" // is a file
	s.Deploy(fails)
	for range 2 {
		n := len(s.Events())
		s.Signal(pid, syscall.SIGUSR2)
		s.WaitAfter(n, "the restart to fail", func(e play.Event) bool {
			return strings.Contains(e.Text, "restart failed") && strings.Contains(e.Text, "there is a file that is no socket")
		})
		if b, err := os.ReadFile(path); string(b) != fmt.Sprintln(pid) {
			t.Errorf("PID file %q, %v, want %d", b, err, pid)
		}
	}
	if got := testbin.AskPID(t, testbin.Lines("tcp", addrs[0])); got != pid {
		t.Errorf("answered by %d, want %d", got, pid)
	}
	s.Signal(pid, syscall.SIGTERM)
	s.WaitGone()
	if entries, err := os.ReadDir(filepath.Dir(path)); err != nil || len(entries) != 0 {
		t.Errorf("left after the stop: %v, %v", entries, err)
	}
}

// A first process that fails after it has written the PID file leaves none.
func TestPIDFileOfNobody(t *testing.T) {
	path := filepath.Join(t.TempDir(), "pid")
	cfg := play.Config{Role: "grace", Listens: []play.Listen{{Network: "tcp", Addr: "127.0.0.1:0"}}, PIDFile: path, ControlSocket: "config"}
	s := testbin.Launch(t, testbin.Executable(t), cfg)
	s.Wait("the process to fail", func(e play.Event) bool {
		return e.Event == play.Failed && strings.Contains(e.Text, "there is a file that is no socket")
	})
	s.WaitGone()
	if exists(t, path) {
		t.Error("the PID file is left behind")
	}
}
