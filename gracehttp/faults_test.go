//go:build unix

package gracehttp_test

import (
	"fmt"
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

// fault is something that is wrong with a new process. None of them may cost a
// request, or leave anything behind.
type fault struct {
	name   string
	damage func(t *testing.T, s *testbin.Service)
	reason string // what is logged
}

// faults are noticed at once.
var faults = []fault{
	{"missing", install("nothing"), "no such file or directory"},
	{"not executable", installFile("#!/bin/sh\n", 0o644), "permission denied"},
	{"unreadable", installFile("#!/bin/sh\n", 0), "permission denied"},
	{"directory", install("."), "is a directory"},
	{"wrong format", installFile("no program at all\n", 0o755), "exec format error"},
	{"no interpreter", installFile("#!/nonexistent/sh\n", 0o755), "no such file or directory"},
	{"no library", installFile("#!/bin/sh\nexit 3\n", 0o755), "exit status 3"},
	{"exits 0", deploy("exit 0"), "exited before it was ready: exit status 0"},
	{"exits", deploy("exit"), "exited before it was ready: exit status 7"},
	{"is killed", deploy("kill"), "exited before it was ready: signal: killed"},
	{"panics", deploy("panic"), "exited before it was ready: exit status 2"},
	{"panics in init", deploy("panic in init"), "exited before it was ready: exit status 2"},
	{"can't listen", func(t *testing.T, s *testbin.Service) {
		cfg := httpConfig()
		cfg.Listens = append([]play.Listen{{Addr: "192.0.2.1:1"}}, cfg.Listens...)
		s.Deploy(cfg)
	}, "new process failed: listen tcp 192.0.2.1:1: bind: cannot assign requested address"},
	{"rubbish on the control socket", deploy("rubbish"), "no message of a handover"},
	{"makes the sockets blocking", deploy("blocking"), "exited before it was ready: exit status 1"},
	{"leaves a process with the control socket", deploy("heir"), "exited before it was ready: exit status 1"},
	{"closes the control socket", deploy("close"), "closed its control socket"},
}

// hangs are noticed when the time to start is over.
var hangs = []fault{
	{"hangs before hello", installFile("#!/bin/sh\nexec sleep 1000\n", 0o755), "has not said hello"},
	{"hangs after hello", deploy("hang"), "not ready within 10s"},
	{"stops", deploy("stop"), "not ready within 10s"},
}

// hangTimeout is the time to start for those, in which a good program is ready also on a
// busy machine.
const hangTimeout = 10 * time.Second

// deploy lets the next process play a role.
func deploy(role string) func(*testing.T, *testbin.Service) {
	return func(_ *testing.T, s *testbin.Service) { s.Deploy(play.Config{Role: role}) }
}

// install puts another file of the directory of the service in its place.
func install(name string) func(*testing.T, *testbin.Service) {
	return func(_ *testing.T, s *testbin.Service) { s.Install(filepath.Join(s.Dir(), name)) }
}

// installFile puts a new file in the place of the program.
func installFile(content string, perm os.FileMode) func(*testing.T, *testbin.Service) {
	return func(t *testing.T, s *testbin.Service) { s.Install(write(t, s, "program", content, perm)) }
}

// fail lets an upgrade of pid fail and mends what is broken.
func fail(t *testing.T, s *testbin.Service, pid int, good play.Config, f fault) {
	t.Helper()
	n := len(s.Events())
	f.damage(t, s)
	s.Signal(pid, syscall.SIGUSR2)
	e := s.WaitAfter(n, "the failure to be logged", logged(pid, "restart failed"))
	if !strings.Contains(e.Text, f.reason) {
		t.Errorf("%s: logged %q, want the reason %q", f.name, e.Text, f.reason)
	}
	if c := testbin.Children(t, pid); len(c) != 0 {
		t.Errorf("%s: children are left: %v", f.name, c)
	}
	s.Deploy(good)
	s.Install(testbin.Executable(t))
}

// failing starts a service, and returns a function that lets an upgrade fail while
// clients ask, each of which rests between its requests, and one that checks what is left
// of it all. A new process has startTimeout, that of the library if it is 0.
func failing(t *testing.T, rest, startTimeout time.Duration) (each func(*testing.T, fault), end func()) {
	t.Helper()
	good := patient(httpConfig())
	good.StartTimeout = startTimeout
	temp := t.TempDir()
	s := testbin.Start(t, good, testbin.Env("TMPDIR="+temp))
	pid, addrs := s.Newest()
	target := targets(addrs)[0]
	var resting []testbin.Target
	for _, target := range targets(addrs) {
		resting = append(resting, func(question string) (string, error) {
			time.Sleep(rest)
			return target(question)
		})
	}
	load := testbin.NewLoad(t, resting...)
	load.WaitPID(pid)
	load.Pause()
	fds, goroutines := testbin.Ask(t, target, "fds"), count(t, target, "goroutines")
	load.Resume()
	failures := 0
	each = func(t *testing.T, f fault) {
		t.Helper()
		failures++
		fail(t, s, pid, good, f)
		load.WaitMore(3)
		if now := testbin.AskPID(t, target); now != pid {
			t.Errorf("%s: answered by %d, want %d", f.name, now, pid)
		}
	}
	end = func() {
		t.Helper()
		load.Pause()
		testbin.SameDescriptors(t, target, fds)
		// Connections that clients have just closed have goroutines, too.
		for deadline := time.Now().Add(testbin.Patience); ; time.Sleep(10 * time.Millisecond) {
			now := count(t, target, "goroutines")
			if now <= goroutines+2 {
				break
			}
			if time.Now().After(deadline) {
				t.Errorf("%d goroutines after %d failures, %d before", now, failures, goroutines)
				break
			}
		}
		load.Resume()
		reasons := 0
		for _, e := range s.Events() {
			if logged(pid, "restart failed")(e) {
				reasons++
			}
		}
		if reasons != failures {
			t.Errorf("%d failures gave %d reasons", failures, reasons)
		}
		if files, err := os.ReadDir(temp); err != nil || len(files) != 0 {
			t.Errorf("temporary files are left: %v, %v", files, err)
		}
		old, new := s.Restart()
		load.WaitPID(new)
		s.WaitReturned(old)
		load.Stop()
		s.Stop()
	}
	return each, end
}

// An upgrade that fails changes nothing, whatever is wrong, and a good program
// that is put back is then started.
func TestFailedUpgrade(t *testing.T) {
	each, end := failing(t, 0, 0)
	for _, f := range faults {
		t.Run(f.name, func(t *testing.T) { each(t, f) })
	}
	end()
}

// So it is with one that is given up.
func TestHangingUpgrade(t *testing.T) {
	for _, f := range hangs {
		t.Run(f.name, func(t *testing.T) {
			t.Parallel() // it waits most of the time
			each, end := failing(t, 10*time.Millisecond, hangTimeout)
			each(t, f)
			end()
		})
	}
}

// Nothing adds up. What clients notice of it is for TestFailedUpgrade; here they
// leave the processors to the processes that fail.
func TestHundredFailedUpgrades(t *testing.T) {
	each, end := failing(t, 10*time.Millisecond, 0)
	for i := range shorter(100, 20) {
		each(t, faults[i%(len(faults)-2)]) // the last two take longer
	}
	end()
}

// A child that says ready when it is not, and more than once, is believed the
// first time; requests wait until it does serve.
func TestReadyTwice(t *testing.T) {
	s := testbin.Start(t, patient(httpConfig()))
	parent, addrs := s.Newest()
	load := testbin.NewLoad(t, targets(addrs)...)
	load.WaitPID(parent)
	cfg := httpConfig()
	cfg.Role = "ready twice"
	s.Deploy(cfg)
	_, child := s.Restart()
	load.WaitPID(child)
	s.WaitReturned(parent)
	load.Stop()
	s.Stop()
}

// The sockets of the parent work as before after a child has made them blocking,
// which all processes share that hold them.
func TestChildMakesSocketsBlocking(t *testing.T) {
	good := httpConfig()
	s := testbin.Start(t, good)
	pid, addrs := s.Newest()
	for range 3 {
		s.Deploy(play.Config{Role: "blocking"})
		n := len(s.Events())
		s.Signal(pid, syscall.SIGUSR2)
		s.WaitAfter(n, "the harm", func(e play.Event) bool { return e.PID != pid && e.Text == "sockets are blocking" })
		// The accept loops come back to sockets that block.
		for _, target := range targets(addrs) {
			if now := testbin.AskPID(t, target); now != pid {
				t.Errorf("answered by %d, want %d", now, pid)
			}
		}
		s.WaitAfter(n, "the failure to be logged", logged(pid, "restart failed"))
	}
	s.Deploy(good)
	_, new := s.Restart()
	s.WaitReturned(pid)
	if now := testbin.AskPID(t, targets(addrs)[0]); now != new {
		t.Errorf("answered by %d, want %d", now, new)
	}
	s.Stop()
}

func TestFailedHook(t *testing.T) {
	for hook, reason := range map[string]string{
		"the index is locked": "pre-start hook: the index is locked",
		"panic":               "pre-start hook: panic: on purpose",
		"exit":                "pre-start hook: ended its goroutine",
	} {
		t.Run(hook, func(t *testing.T) {
			cfg := httpConfig()
			cfg.PreStart = hook
			s := testbin.Start(t, cfg)
			pid, addrs := s.Newest()
			for range 2 {
				n := len(s.Events())
				s.Signal(pid, syscall.SIGUSR2)
				e := s.WaitAfter(n, "the failure to be logged", logged(pid, "restart failed"))
				if !strings.Contains(e.Text, reason) {
					t.Errorf("logged %q, want the reason %q", e.Text, reason)
				}
			}
			if c := testbin.Children(t, pid); len(c) != 0 {
				t.Errorf("a process was started: %v", c)
			}
			if now := testbin.AskPID(t, targets(addrs)[0]); now != pid {
				t.Errorf("answered by %d, want %d", now, pid)
			}
			s.Stop()
		})
	}
}

// A hook that hangs holds up restarts and nothing else.
func TestHangingHook(t *testing.T) {
	cfg := httpConfig()
	cfg.PreStart = "hang"
	s := testbin.Start(t, cfg)
	pid, addrs := s.Newest()
	s.Signal(pid, syscall.SIGUSR2)
	s.WaitLog(pid, "the hook runs")
	s.Signal(pid, syscall.SIGUSR2)
	s.WaitLog(pid, `a restart is under way already, the signal is ignored now="the pre-start hook runs"`)
	if now := testbin.AskPID(t, targets(addrs)[0]); now != pid {
		t.Errorf("answered by %d, want %d", now, pid)
	}
	s.Stop()
	if e := s.WaitReturned(pid); e.Event != play.Returned || e.Text != "" {
		t.Errorf("%s %s", e.Event, e.Text)
	}
}

// count asks for a number.
func count(t *testing.T, target testbin.Target, question string) int {
	t.Helper()
	answer := testbin.Ask(t, target, question)
	n, err := strconv.Atoi(answer)
	if err != nil {
		t.Fatal(fmt.Errorf("asked for %s: %w", question, err))
	}
	return n
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
	if err := os.RemoveAll(path); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(path, []byte(content), perm); err != nil {
		t.Fatal(err)
	}
	return path
}
