//go:build unix

package gracehttp_test

import (
	"fmt"
	"os"
	"os/signal"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"github.com/facebookgo/grace/internal/testbin"
	"github.com/facebookgo/grace/internal/testbin/play"
)

// The parent is killed: the child serves, and signals nobody. We are the process
// that it gets for a parent then, and would notice.
func TestParentIsKilled(t *testing.T) {
	for _, test := range []struct {
		name string
		kill func(t *testing.T, s *testbin.Service, cfg play.Config, parent int)
	}{
		{"before hello", killBeforeHello},
		{"after hello", func(t *testing.T, s *testbin.Service, cfg play.Config, parent int) {
			start(t, s, cfg, parent)
			s.Signal(parent, syscall.SIGKILL)
		}},
		{"with ready on its way", func(t *testing.T, s *testbin.Service, cfg play.Config, parent int) {
			start(t, s, cfg, parent)
			s.Freeze(parent)
			e := s.Wait("the child to serve", func(e play.Event) bool { return e.Event == play.Serving && e.PID != parent })
			s.WaitLog(e.PID, "Graceful handoff")
			s.Signal(parent, syscall.SIGKILL)
		}},
		{"on standby", func(t *testing.T, s *testbin.Service, _ play.Config, parent int) {
			s.RestartPID(parent)
			s.WaitLog(parent, "standing by")
			s.Signal(parent, syscall.SIGKILL)
		}},
	} {
		for _, role := range []string{"http", "mixed"} {
			t.Run(test.name+", "+role, func(t *testing.T) {
				signals := make(chan os.Signal, 10)
				signal.Notify(signals, syscall.SIGTERM)
				defer signal.Stop(signals)
				adopt(t)
				path := filepath.Join(t.TempDir(), "socket")
				cfg := mixedConfig(path)
				if role == "http" {
					cfg.Listens = cfg.Listens[:3]
				}
				cfg.Role = role
				s := testbin.Start(t, cfg)
				parent, addrs := s.Newest()
				test.kill(t, s, cfg, parent)
				e := s.Wait("the child to serve", func(e play.Event) bool { return e.Event == play.Serving && e.PID != parent })
				s.WaitExit(parent)
				all := targets(addrs)
				if role == "mixed" {
					all = append(all, testbin.Lines("unix", path))
				}
				for _, target := range all {
					if pid := testbin.AskPID(t, target); pid != e.PID {
						t.Errorf("answered by %d, want %d", pid, e.PID)
					}
				}
				// It can be upgraded in its turn, and it can be stopped.
				s.Deploy(cfg)
				s.Install(testbin.Executable(t))
				new := s.RestartPID(e.PID)
				s.WaitLog(e.PID, "standing by")
				s.Signal(e.PID, syscall.SIGTERM)
				s.WaitReturned(e.PID)
				if pid := testbin.AskPID(t, all[0]); pid != new {
					t.Errorf("answered by %d, want %d", pid, new)
				}
				s.Stop()
				if _, err := os.Lstat(path); !os.IsNotExist(err) {
					t.Errorf("path of the unix socket: %v, want it gone", err)
				}
				select {
				case sig := <-signals:
					t.Errorf("a process that is no parent was sent %v", sig)
				default:
				}
			})
		}
	}
}

// The same for a parent that waits for a signal.
func TestOriginalParentIsKilled(t *testing.T) {
	signals := make(chan os.Signal, 10)
	signal.Notify(signals, syscall.SIGTERM)
	defer signal.Stop(signals)
	adopt(t)
	cfg := play.Config{Role: "http", Listens: []play.Listen{{Network: "tcp", Addr: "127.0.0.1:0"}}}
	s := testbin.StartProgram(t, testbin.OldGrace(t), cfg)
	parent, addrs := s.Newest()
	cfg.Listens[0].Addr = addrs[0]
	s.Deploy(cfg)
	s.Install(testbin.Executable(t))
	gate := filepath.Join(s.Dir(), "gate")
	s.Install(write(t, s, "wrapper", wrapper(gate, s.Dir(), testbin.Executable(t)), 0o755))
	s.Signal(parent, syscall.SIGUSR2)
	waitFor(t, gate+".reached")
	s.Signal(parent, syscall.SIGKILL)
	s.WaitExit(parent)
	create(t, gate)
	e := s.Wait("the child to serve", func(e play.Event) bool { return e.Event == play.Serving && e.PID != parent })
	if pid := testbin.AskPID(t, testbin.HTTP("http", addrs[0])); pid != e.PID {
		t.Errorf("answered by %d, want %d", pid, e.PID)
	}
	s.Stop()
	select {
	case sig := <-signals:
		t.Errorf("a process that is no parent was sent %v", sig)
	default:
	}
}

// mixedConfig is httpConfig with raw listeners in the same process.
func mixedConfig(path string) play.Config {
	cfg := httpConfig()
	cfg.Role = "mixed"
	cfg.Standby = 1 << 40 // 18 minutes
	for i := range cfg.Listens {
		cfg.Listens[i].Network = "tcp"
	}
	cfg.Listens = append(cfg.Listens,
		play.Listen{Network: "tcp4", Addr: "127.0.0.1:0"},
		play.Listen{Network: "unix", Addr: path})
	return cfg
}

// start starts an upgrade, and returns when the child has said hello. It takes a
// second to become ready.
func start(t *testing.T, s *testbin.Service, cfg play.Config, parent int) {
	t.Helper()
	cfg.Delay = 1e9
	s.Deploy(cfg)
	s.Signal(parent, syscall.SIGUSR2)
	s.WaitLog(parent, "takes part in the handover")
}

// killBeforeHello kills the parent while its child is a shell that will become
// the server.
func killBeforeHello(t *testing.T, s *testbin.Service, _ play.Config, parent int) {
	t.Helper()
	gate := filepath.Join(s.Dir(), "gate")
	s.Install(write(t, s, "wrapper", wrapper(gate, s.Dir(), testbin.Executable(t)), 0o755))
	s.Signal(parent, syscall.SIGUSR2)
	waitFor(t, gate+".reached")
	s.Signal(parent, syscall.SIGKILL)
	s.WaitExit(parent)
	create(t, gate)
}

// wrapper is a script that waits for the file gate and runs program under a name
// of its own, which restarts find.
func wrapper(gate, dir, program string) string {
	name := filepath.Join(dir, "real")
	return strings.Join([]string{"#!/bin/sh",
		fmt.Sprintf("ln -sf '%s' '%s'", program, name),
		fmt.Sprintf(": >'%s.reached'", gate),
		fmt.Sprintf("while [ ! -e '%s' ]; do sleep 0.01; done", gate),
		fmt.Sprintf("exec '%s'", name), ""}, "\n")
}

func create(t *testing.T, path string) {
	t.Helper()
	if err := os.WriteFile(path, nil, 0o644); err != nil {
		t.Fatal(err)
	}
}

// waitFor waits until there is a file.
func waitFor(t *testing.T, path string) {
	t.Helper()
	testbin.Poll(t, "the file "+path, func() bool {
		_, err := os.Lstat(path)
		return err == nil
	})
}
