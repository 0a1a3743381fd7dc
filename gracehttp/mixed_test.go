//go:build unix

package gracehttp_test

import (
	"strconv"
	"syscall"
	"testing"

	"github.com/facebookgo/grace/internal/testbin"
	"github.com/facebookgo/grace/internal/testbin/play"
)

// A program that is built with the original is replaced by one that is built
// with this library, and the other way round, without a failed request.
func TestMixedGenerations(t *testing.T) {
	cfg := play.Config{Role: "http", Listens: []play.Listen{{Network: "tcp", Addr: "127.0.0.1:0"}, {Network: "tcp", Addr: "127.0.0.1:0"}}}
	cfg.IdleGrace = testbin.Patience // as in loadedConfig
	oldGrace := testbin.OldGrace(t)  // it takes time to build, in which the ports could be lost
	for _, test := range []struct {
		name string
		env  []string
	}{
		{"no LISTEN_PID", nil},
		{"stale LISTEN_PID", []string{"LISTEN_PID=1"}},
	} {
		t.Run(test.name, func(t *testing.T) {
			// The sockets of the original are found by their addresses, so
			// these are fixed: what a first process was given is asked for.
			ports := testbin.Start(t, cfg)
			_, addrs := ports.Newest()
			ports.Stop()
			fixed := cfg
			fixed.Listens = []play.Listen{{Network: "tcp", Addr: addrs[0]}, {Network: "tcp", Addr: addrs[1]}}

			s := testbin.StartProgram(t, oldGrace, fixed, testbin.Env(test.env...))
			load := testbin.NewLoad(t, testbin.HTTP("http", addrs[0]), testbin.HTTP("http", addrs[1]), testbin.HTTP("http", addrs[1]))
			for _, program := range []string{
				testbin.Executable(t), // old to new
				testbin.Executable(t), // new to new
				oldGrace,              // new to old
				oldGrace,              // old to old
				testbin.Executable(t), // and back
			} {
				s.Install(program)
				old, new := s.Restart()
				load.WaitPID(new)
				if e := s.WaitReturned(old); e.Text != "" || e.Event != play.Returned {
					t.Fatalf("pid %d: %s %s", old, e.Event, e.Text)
				}
				if pid := testbin.AskPID(t, testbin.HTTP("http", addrs[0])); pid != new {
					t.Errorf("answered by %d, want %d", pid, new)
				}
			}
			load.Stop()
			s.Stop()
		})
	}
}

// The child of an original is ready when all it inherited is served; the parent
// gets exactly the signal it waits for.
func TestOriginalParentIsLogged(t *testing.T) {
	s := testbin.StartProgram(t, testbin.OldGrace(t), play.Config{Role: "http", Listens: []play.Listen{{Network: "tcp", Addr: "127.0.0.1:0"}}})
	old, addrs := s.Newest()
	cfg := play.Config{Role: "http", Listens: []play.Listen{{Network: "tcp", Addr: addrs[0]}}}
	s.Deploy(cfg)
	s.Install(testbin.Executable(t))
	_, new := s.Restart()
	s.WaitLog(new, "Graceful handoff of "+addrs[0]+" with new pid "+strconv.Itoa(new)+" and old pid "+strconv.Itoa(old))
	s.WaitReturned(old)
	s.Stop()
}

// A program that starts its successor itself, by StartProcess, and may be gone
// before that one is ready.
func TestStartProcessLivesOn(t *testing.T) {
	cfg := play.Config{Role: "startprocess", Listens: []play.Listen{{Network: "tcp", Addr: "127.0.0.1:0"}}}
	s := testbin.Start(t, cfg)
	old, addrs := s.Newest()
	slow := cfg
	slow.Delay = 1e9
	s.Deploy(slow)
	n := len(s.Events())
	s.Signal(old, syscall.SIGUSR2)
	s.WaitLog(old, "StartProcess: pid")
	s.Signal(old, syscall.SIGTERM)
	s.WaitReturned(old)
	e := s.WaitAfter(n, "the new process to serve", func(e play.Event) bool { return e.Event == play.Serving })
	if pid := testbin.AskPID(t, testbin.Lines("tcp", addrs[0])); pid != e.PID {
		t.Errorf("answered by %d, want %d", pid, e.PID)
	}
	s.Stop()
}
