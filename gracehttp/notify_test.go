//go:build unix

package gracehttp_test

import (
	"fmt"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/facebookgo/grace/internal/testbin"
	"github.com/facebookgo/grace/internal/testbin/play"
)

// The service manager hears from the process that it takes for the main one, and
// from no other: ready once, the next main process at each restart, and the end.
func TestServiceManagerIsTold(t *testing.T) {
	path, told := testbin.NotifySocket(t)
	expect := func(want string) { t.Helper(); testbin.ExpectTold(t, told, want) }

	// INVOCATION_ID stands for systemd: a second SIGTERM does not kill.
	s := testbin.Start(t, httpConfig(), testbin.Env("NOTIFY_SOCKET="+path, "INVOCATION_ID=1"))
	expect("READY=1")
	for range 2 {
		old, new := s.Restart()
		s.WaitReturned(old)
		expect("RELOADING=1")
		expect(fmt.Sprintf("MAINPID=%d\nREADY=1", new))
	}
	pid, addrs := s.Newest()
	release := filepath.Join(t.TempDir(), "release")
	answer := make(chan error)
	go func() {
		_, err := targets(addrs)[0]("until " + release)
		answer <- err
	}()
	s.Wait("the request to begin", asked("until "+release))
	s.Signal(pid, syscall.SIGTERM)
	expect("STOPPING=1")
	s.Signal(pid, syscall.SIGTERM)
	s.WaitLog(pid, "draining already")
	create(t, release)
	if err := <-answer; err != nil {
		t.Errorf("request in flight: %v", err)
	}
	s.WaitGone()
	for len(told) > 0 {
		if more := testbin.Essence(<-told); more != "" {
			t.Errorf("told %q as well", more)
		}
	}
}

// The manager shows people what the service does, also while a restart fails.
func TestServiceManagerIsToldTheStatus(t *testing.T) {
	path, told := testbin.NotifySocket(t)
	cfg := httpConfig()
	cfg.Standby = time.Hour
	cfg.StopTimeout = time.Hour
	s := testbin.Start(t, cfg, testbin.Env("NOTIFY_SOCKET="+path))
	first, addrs := s.Newest()
	status := func(line, want string) {
		t.Helper()
		if got := testbin.WaitTold(t, told, line); !strings.Contains(got, "\nSTATUS="+want) && !strings.HasPrefix(got, "STATUS="+want) {
			t.Errorf("told %q, want the status %q", got, want)
		}
	}
	status("READY=1", "generation 1 serves")
	s.Deploy(play.Config{Role: "exit"})
	s.Signal(first, syscall.SIGUSR2)
	status("RELOADING=1", "generation 1 serves, the next one starts")
	status("READY=1", "generation 1 serves, since the restart failed: new process exited before it was ready: exit status 7")
	s.Deploy(cfg)
	died := s.RestartPID(first)
	s.WaitLog(first, "standing by")
	s.Signal(died, syscall.SIGKILL)
	status("RELOADING=1", "generation 1 serves, the next one starts")
	standing := fmt.Sprintf("STATUS=generation 2 serves as process %d, generation 1 stands by", died)
	status(standing, "generation 2 serves as process")
	status("READY=1", "generation 1 serves, since the restart failed: new process died: signal: killed")
	child := s.RestartPID(first)
	s.WaitLog(first, fmt.Sprintf("standing by child=%d", child))
	s.Signal(first, syscall.SIGTERM)
	status(fmt.Sprintf("MAINPID=%d", child), "generation 2 serves")
	s.WaitReturned(first)
	c := testbin.Dial(t, play.Listen{}, addrs[0])
	c.Ask("")
	s.WaitLog(child, "the old process is told")
	s.Signal(child, syscall.SIGTERM)
	status("STOPPING=1", "generation 2 stops")
	// Of the hour that it may take, half a minute at a time.
	testbin.WaitTold(t, told, "EXTEND_TIMEOUT_USEC=30000000")
	c.Close()
	s.WaitGone()
}

// The main process shows that it lives, in every generation.
func TestWatchdog(t *testing.T) {
	path, told := testbin.NotifySocket(t)
	s := testbin.Start(t, httpConfig(), testbin.Env("NOTIFY_SOCKET="+path, "WATCHDOG_USEC=100000"), testbin.OwnWatchdogPID())
	for range 3 {
		for range 3 {
			testbin.WaitTold(t, told, "WATCHDOG=1")
		}
		old, _ := s.Restart()
		s.WaitReturned(old)
		testbin.WaitTold(t, told, "RELOADING=1") // what was told before that is past
	}
	testbin.WaitTold(t, told, "WATCHDOG=1")
	s.Stop()
}

// The manager keeps what this process listens on, and no longer what the next one
// does not.
func TestServiceManagerKeepsSockets(t *testing.T) {
	path, told := testbin.NotifySocket(t)
	cfg := play.Config{Role: "http", FDStore: true, Listens: []play.Listen{
		{Addr: "127.0.0.1:0"},
		{Addr: "localhost:0"},
		{Network: "unix", Addr: filepath.Join(t.TempDir(), "s")},
	}}
	s := testbin.Start(t, cfg, testbin.Env("NOTIFY_SOCKET="+path))
	expect := func(want ...string) {
		t.Helper()
		for _, want := range want {
			testbin.ExpectTold(t, told, want)
		}
	}
	const one, two = "FDNAME=grace.tcp.127.0.0.1%3A0", "FDNAME=grace.tcp.localhost%3A0"
	expect("READY=1", "FDSTORE=1\n"+one+"\na descriptor", "FDSTORE=1\n"+two+"\na descriptor")
	cfg.Listens = cfg.Listens[1:]
	s.Deploy(cfg)
	old, child := s.Restart()
	s.WaitReturned(old)
	expect("RELOADING=1", fmt.Sprintf("MAINPID=%d\nREADY=1", child),
		"FDSTOREREMOVE=1\n"+one, "FDSTORE=1\n"+two+"\na descriptor")
	s.Stop()
}

// A manager does not learn that the main process has died before its parent has
// gone. So the parent leaves; without a manager it finishes what it has.
func TestMainProcessDiesDuringDrain(t *testing.T) {
	for _, managed := range []bool{true, false} {
		t.Run(fmt.Sprintf("managed=%v", managed), func(t *testing.T) {
			path, _ := testbin.NotifySocket(t)
			env := testbin.Env("NOTIFY_SOCKET=" + path)
			if !managed {
				env = testbin.Env()
			}
			s := testbin.Start(t, httpConfig(), env)
			_, addrs := s.Newest()
			release := filepath.Join(t.TempDir(), "release")
			c := testbin.Dial(t, play.Listen{}, addrs[0])
			c.Send(testbin.Request("until " + release))
			s.Wait("the slow request", asked("until "+release))
			old, child := s.Restart()
			s.WaitLog(old, "requests in flight are waited for")
			s.Signal(child, syscall.SIGKILL)
			if managed {
				c.WaitClosed()
				s.WaitLog(old, "the new process died, this one leaves at once")
			} else {
				s.WaitExit(child)
				touch(t, release)
				if got := c.Receive(); got.Body != strconv.Itoa(old) {
					t.Errorf("got %+v, want an answer of %d", got, old)
				}
			}
			s.WaitReturned(old)
			s.WaitGone()
		})
	}
}

// A main process that hands over in its turn, or stops, has not died.
func TestMainProcessLeavesDuringDrain(t *testing.T) {
	path, _ := testbin.NotifySocket(t)
	s := testbin.Start(t, httpConfig(), testbin.Env("NOTIFY_SOCKET="+path))
	_, addrs := s.Newest()
	release := filepath.Join(t.TempDir(), "release")
	c := testbin.Dial(t, play.Listen{}, addrs[0])
	c.Send(testbin.Request("until " + release))
	s.Wait("the slow request", asked("until "+release))
	first, second := s.Restart()
	s.WaitLog(first, "requests in flight are waited for")
	s.WaitLog(second, "the old process is told")
	third := s.RestartPID(second)
	s.WaitReturned(second)
	s.WaitLog(third, "the old process is told")
	s.Signal(third, syscall.SIGTERM)
	s.WaitReturned(third)
	s.WaitExit(second)
	touch(t, release)
	if got := c.Receive(); got.Body != strconv.Itoa(first) {
		t.Errorf("got %+v, want an answer of %d", got, first)
	}
	s.WaitGone()
}
