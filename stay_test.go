//go:build unix

package grace_test

import (
	"syscall"
	"testing"
	"time"

	"github.com/facebookgo/grace/internal/testbin"
	"github.com/facebookgo/grace/internal/testbin/play"
)

// keepPID is a server whose pid does not change.
func keepPID() play.Config {
	return play.Config{Role: "grace", Listens: []play.Listen{{Network: "tcp", Addr: "127.0.0.1:0"}}, KeepPID: true}
}

// The process that is to come back is killed before the one that serves in the interim is
// ready: that one makes room all the same.
func TestKeepPIDParentIsKilledAtTheStart(t *testing.T) {
	cfg := keepPID()
	s := testbin.Start(t, cfg)
	pid, _ := s.Newest()
	s.WaitLog(pid, waits)
	cfg.Delay = time.Second // or else it is a parent that is killed later
	s.Deploy(cfg)
	s.Signal(pid, syscall.SIGUSR2)
	s.WaitLog(pid, "new process takes part")
	interim := testbin.Children(t, pid)[0]
	s.Freeze(interim)
	s.Signal(pid, syscall.SIGKILL)
	s.WaitExit(pid)
	s.Signal(interim, syscall.SIGCONT)
	s.WaitReturned(interim)
	s.WaitGone()
}

// A program that ends its service itself while it stands by, to come back in its own
// process, does not come back, and leaves nobody behind.
func TestKeepPIDServiceEnds(t *testing.T) {
	s, pid := runAsking(t, true)
	interim := s.RestartPID(pid)
	s.WaitLog(pid, "standing by")
	s.WaitLog(interim, waits)
	s.Signal(pid, syscall.SIGHUP)
	s.WaitLog(pid, "drain, ready:")
	if e := s.WaitReturned(pid); e.Text != "seen enough" {
		t.Errorf("%s %s", e.Event, e.Text)
	}
	s.WaitReturned(interim)
	s.WaitGone()
	if n := count(s, pid, play.Serving, ""); n != 1 {
		t.Errorf("process %d has served %d times, want once", pid, n)
	}
}
