//go:build unix

package gracehttp_test

import (
	"fmt"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/facebookgo/grace/internal/testbin"
	"github.com/facebookgo/grace/internal/testbin/play"
)

// signalGroup sends sig to a process and all others of its group, as a terminal
// and "systemctl kill" do.
func signalGroup(t *testing.T, leader int, sig syscall.Signal) {
	t.Helper()
	if err := syscall.Kill(-leader, sig); err != nil {
		t.Fatal(err)
	}
}

// starts counts the processes that pid and those after it have started.
func starts(s *testbin.Service) (n int) {
	for _, e := range s.Events() {
		if e.Event == play.Log && strings.HasPrefix(e.Text, "new process started") {
			n++
		}
	}
	return n
}

// A request to restart that reaches all processes of the service starts one more,
// whatever they do at the moment.
func TestRestartOfTheGroup(t *testing.T) {
	cfg := patient(httpConfig())
	cfg.Standby = time.Hour // until it is stopped
	s := testbin.Start(t, cfg, testbin.OwnGroup())
	first, addrs := s.Newest()
	cfg.Standby = 200 * time.Millisecond
	s.Deploy(cfg)
	load := testbin.NewLoad(t, targets(addrs)...)
	load.WaitPID(first)

	// One process is there.
	signalGroup(t, first, syscall.SIGUSR2)
	s.WaitLog(first, "standing by")
	second, _ := s.Newest()
	if n := starts(s); n != 1 {
		t.Errorf("%d processes were started, want 1", n)
	}
	s.WaitLog(second, "the old process is told")

	// The first one stands by for the second.
	signalGroup(t, first, syscall.SIGUSR2)
	s.WaitLog(first, "restart is passed on")
	s.Signal(first, syscall.SIGTERM)
	s.WaitLog(second, "standing by")
	third, _ := s.Newest()
	s.WaitReturned(first)
	s.WaitReturned(second)
	s.WaitOne()
	if n := starts(s); n != 2 {
		t.Errorf("%d processes were started, want 2", n)
	}

	// The third one drains while the fourth one serves.
	slow := testbin.Dial(t, play.Listen{}, addrs[0])
	release := filepath.Join(t.TempDir(), "release")
	slow.Send(testbin.Request("until " + release))
	s.Wait("the slow request", asked("until "+release))
	_, fourth := s.Restart()
	s.WaitLog(third, "draining")
	s.WaitLog(fourth, "the old process is told")
	signalGroup(t, first, syscall.SIGUSR2)
	s.WaitLog(third, "draining already, the request to restart is ignored")
	s.WaitLog(fourth, "standing by")
	touch(t, release)
	if got := slow.Receive(); got.Body != fmt.Sprint(third) {
		t.Errorf("got %+v, want an answer of %d", got, third)
	}
	_ = slow.Close()
	s.WaitOne()
	if n := starts(s); n != 4 {
		t.Errorf("%d processes were started, want 4", n)
	}
	load.Stop()
	s.Stop()
}

// Who sends SIGUSR2 to all processes one by one may find the new one before it can
// catch it, and kill it. Another one is started, but not for ever.
func TestNewProcessIsStruck(t *testing.T) {
	s := testbin.Start(t, patient(httpConfig()))
	first, addrs := s.Newest()
	load := testbin.NewLoad(t, targets(addrs)...)
	load.WaitPID(first)
	times := filepath.Join(s.Dir(), "times")
	script := fmt.Sprintf("#!/bin/sh\necho x >>%[1]s\ntest $(wc -l <%[1]s) -ge $(cat %[1]s.max) || kill -USR2 $$\nexec %[2]s\n", times, testbin.Executable(t))
	s.Install(write(t, s, "struck", script, 0o755))
	write(t, s, "times.max", "4", 0o644)
	s.Signal(first, syscall.SIGUSR2)
	s.WaitLog(first, "restart failed")
	if n := starts(s); n != 3 {
		t.Errorf("%d processes were started, want 3", n)
	}
	write(t, s, "times.max", "6", 0o644)
	_, child := s.Restart()
	s.WaitReturned(first)
	if n := starts(s); n != 6 {
		t.Errorf("%d processes were started, want 3 more", n)
	}
	load.WaitPID(child)
	load.Stop()
	s.Stop()
}

// Ctrl-C, or SIGTERM for all, stops all of them and cuts no request.
func TestStopOfTheGroup(t *testing.T) {
	for _, sig := range []syscall.Signal{syscall.SIGINT, syscall.SIGTERM} {
		for _, standby := range []time.Duration{0, time.Hour} {
			t.Run(fmt.Sprintf("%v, standby %v", sig, standby), func(t *testing.T) {
				cfg := httpConfig()
				cfg.Standby = standby
				s := testbin.Start(t, cfg, testbin.OwnGroup())
				first, addrs := s.Newest()
				slow, release := testbin.Dial(t, play.Listen{}, addrs[0]), filepath.Join(t.TempDir(), "release")
				slow.Send(testbin.Request("until " + release))
				s.Wait("the slow request", asked("until "+release))
				child := s.RestartPID(first)
				if standby == 0 {
					s.WaitLog(first, "draining")
				} else {
					s.WaitLog(first, "standing by")
				}
				s.WaitLog(child, "the old process is told")
				other, releaseOther := testbin.Dial(t, play.Listen{}, addrs[0]), filepath.Join(t.TempDir(), "release")
				other.Send(testbin.Request("until " + releaseOther))
				s.Wait("the other one", asked("until "+releaseOther))
				signalGroup(t, first, sig)
				s.WaitLog(first, "draining")
				s.WaitLog(child, "draining")
				touch(t, release)
				touch(t, releaseOther)
				for c, pid := range map[*testbin.Wire]int{slow: first, other: child} {
					if got := c.Receive(); got.Body != fmt.Sprint(pid) {
						t.Errorf("got %+v, want an answer of %d", got, pid)
					}
				}
				s.WaitGone()
			})
		}
	}
}

// What nohup does lasts: a new process ignores SIGHUP, too.
func TestNohup(t *testing.T) {
	nohup, err := exec.LookPath("nohup")
	if err != nil {
		t.Fatal(err)
	}
	s := testbin.Start(t, httpConfig(), testbin.Under(nohup))
	for range 2 {
		old, child := s.Restart()
		s.WaitReturned(old)
		s.Signal(child, syscall.SIGHUP)
		_, addrs := s.Newest()
		if got := testbin.AskPID(t, targets(addrs)[0]); got != child {
			t.Errorf("answered by %d, want %d", got, child)
		}
	}
	s.Stop()
}
