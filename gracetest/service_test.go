//go:build unix

package gracetest_test

import (
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/facebookgo/grace/gracetest"
)

// shell starts a service that is a script.
func shell(tb gracetest.TB, script string) *gracetest.Service {
	tb.Helper()
	return gracetest.Launch(tb, "/bin/sh", func(*gracetest.Service) *exec.Cmd { return exec.Command("/bin/sh", "-c", script) })
}

func isLine(text string) func(gracetest.Line) bool {
	return func(l gracetest.Line) bool { return l.Text == text }
}

// expect fails the test unless told has all of want.
func expect(t *testing.T, told string, want ...string) {
	t.Helper()
	for _, w := range want {
		if !strings.Contains(told, w) {
			t.Errorf("told %q, want %q", told, w)
		}
	}
}

func TestFreeAddr(t *testing.T) {
	l, err := net.Listen("tcp", gracetest.FreeAddr(t))
	if err != nil {
		t.Fatal(err)
	}
	_ = l.Close()
}

func TestBuild(t *testing.T) {
	file := filepath.Join(t.TempDir(), "main.go")
	if err := os.WriteFile(file, []byte("package main\n\nvar text string\n\nfunc main() { print(text) }\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	out, err := exec.Command(gracetest.Build(t, file, "-ldflags=-X=main.text=built")).CombinedOutput()
	if string(out) != "built" || err != nil {
		t.Errorf("it prints %q, %v", out, err)
	}
	if err := os.WriteFile(file, []byte("package main\n\nfunc main() { missing() }\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	told := watch(t, func(tb testing.TB) { gracetest.Build(tb, file) })
	expect(t, told, "go build "+file+": exit status 1\n", "undefined: missing")
	told = watch(t, func(tb testing.TB) { gracetest.Build(tb, "../gracectl") })
	expect(t, told, "go build ../gracectl makes no program: is it a package main?")
}

func TestStartWithoutProgram(t *testing.T) {
	missing := filepath.Join(t.TempDir(), "missing")
	told := watch(t, func(tb testing.TB) { gracetest.Start(tb, exec.Command(missing)) })
	expect(t, told, missing, "no such file or directory")
	told = watch(t, func(tb testing.TB) { gracetest.Start(tb, exec.Command("no-such-program")) })
	expect(t, told, "no-such-program", "not found")
}

// A relative path begins in the directory of the command, as with os/exec.
func TestStartInDirectory(t *testing.T) {
	dir := t.TempDir()
	if err := os.WriteFile(filepath.Join(dir, "program"), []byte("#!/bin/sh\npwd\n"), 0o755); err != nil {
		t.Fatal(err)
	}
	cmd := exec.Command("./program")
	cmd.Dir = dir
	gracetest.Start(t, cmd).WaitLine(0, "its directory", isLine(dir))
}

// The process that was started belongs to the service even while its environment does
// not say so.
func TestStartKnowsTheProcess(t *testing.T) {
	s := gracetest.Launch(t, "/bin/sh", func(*gracetest.Service) *exec.Cmd {
		return exec.Command("/usr/bin/env", "-i", "/bin/sh", "-c", "echo without; exec sleep 1000")
	})
	s.WaitLine(0, "the process without an environment", isLine("without"))
	if got := s.Processes(); !slices.Equal(got, []int{s.PID()}) {
		t.Errorf("the processes are %v, want %d", got, s.PID())
	}
}

// What a service has started belongs to it also when it does not have the environment
// that it was given: nginx, for one, writes over its own.
func TestProcessesWithoutEnvironment(t *testing.T) {
	script := filepath.Join(t.TempDir(), "script")
	if err := os.WriteFile(script, []byte("#!/bin/sh\nenv -i sleep 1000 & echo $!; wait\n"), 0o755); err != nil {
		t.Fatal(err)
	}
	s := gracetest.Start(t, exec.Command(script))
	line := s.WaitLine(0, "a pid", func(l gracetest.Line) bool { return !l.Error })
	gracetest.Poll(t, "the environment to be empty", func() bool {
		b, err := os.ReadFile("/proc/" + line.Text + "/environ")
		return err == nil && len(b) == 0
	})
	if now := s.Processes(); len(now) != 2 || strconv.Itoa(now[1]) != line.Text {
		t.Errorf("the processes are %v, want %d and %s", now, s.PID(), line.Text)
	}
}

// What is run is a link of the service's own.
func TestStart(t *testing.T) {
	t.Setenv("LISTEN_FDS", "1")
	t.Setenv("NOTIFY_SOCKET", "/nowhere")
	t.Setenv("MINE", "1")
	s := gracetest.Start(t, exec.Command("/bin/sh", "-c", `echo "$0 $MINE $LISTEN_FDS $NOTIFY_SOCKET$LISTEN_PID"; echo error >&2; exec sleep 1000`, "zero"))
	s.WaitLine(0, "its environment", isLine("zero 1  "))
	if l := s.WaitLine(0, "its error", isLine("error")); !l.Error {
		t.Errorf("%+v is not from standard error", l)
	}
	target, err := os.Readlink(s.Path())
	if err != nil || target != "/bin/sh" || filepath.Dir(s.Path()) != s.Dir() {
		t.Errorf("%s is a link to %s, %v; the directory is %s", s.Path(), target, err, s.Dir())
	}
	if got := s.Processes(); !slices.Equal(got, []int{s.PID()}) {
		t.Errorf("the processes are %v, want %d", got, s.PID())
	}
	s.Install("/bin/ls")
	if target, _ := os.Readlink(s.Path()); target != "/bin/ls" {
		t.Errorf("after Install the link is one to %s", target)
	}
	s.Stop()
}

// What is written is recorded to the end, also to standard error after the end of
// standard output.
func TestWaitLine(t *testing.T) {
	s := shell(t, `echo first; exec >&-; echo late >&2; echo later >&2`)
	s.WaitLine(0, "the last line", isLine("later"))
	<-s.Gone()
	s.WaitGone()
	var got []string
	for _, l := range s.Lines() {
		got = append(got, l.Text)
	}
	slices.Sort(got) // the two pipes are not ordered
	if want := []string{"first", "late", "later"}; !slices.Equal(got, want) {
		t.Errorf("it wrote %q, want %q", got, want)
	}
	told := watch(t, func(tb testing.TB) { shell(tb, "echo something").WaitLine(0, "the impossible", isLine("else")) })
	expect(t, told, "all processes have gone; waited for the impossible")
	told = watch(t, func(tb testing.TB) {
		s := shell(tb, "exec sleep 1000")
		s.Patience = time.Millisecond
		s.WaitLine(0, "the impossible", isLine("else"))
	})
	expect(t, told, "waited in vain for the impossible")
}

// All that was written is recorded when the last process has gone.
func TestWaitGoneRecords(t *testing.T) {
	const lines = 20_000 // more than a pipe holds
	for range 5 {
		s := shell(t, fmt.Sprintf("exec seq %d", lines))
		s.WaitGone()
		if got := len(s.Lines()); got != lines {
			t.Fatalf("%d lines were recorded, want %d", got, lines)
		}
	}
}

// A service may close its standard output.
func TestWaitGone(t *testing.T) {
	s := shell(t, "exec >&- 2>&-; exec sleep 1000")
	<-s.Gone()
	told := watch(t, func(tb testing.TB) {
		s := shell(tb, "exec >&- 2>&-; exec sleep 1000")
		s.Patience = time.Millisecond
		s.WaitGone()
	})
	expect(t, told, "the processes [", "] are left")
	s.Stop()
	if got := s.Processes(); len(got) != 0 {
		t.Errorf("the processes %v are left", got)
	}
}

func TestWaitAnswer(t *testing.T) {
	n := 0
	s := shell(t, "exec sleep 1000")
	answer := s.WaitAnswer(gracetest.Func("late", func() (string, error) {
		if n++; n < 3 {
			return "", errOnPurpose
		}
		return "here", nil
	}))
	if answer != "here" {
		t.Errorf("the answer is %q", answer)
	}
	addr := gracetest.FreeAddr(t)
	told := watch(t, func(tb testing.TB) {
		shell(tb, "exit 3").WaitAnswer(gracetest.Raw(gracetest.Request{URL: "http://" + addr}))
	})
	expect(t, told, "the service has gone before it answered GET http://"+addr, "connection refused")
	told = watch(t, func(tb testing.TB) {
		s := shell(tb, "exec sleep 1000")
		s.Patience = time.Millisecond
		s.WaitAnswer(gracetest.Raw(gracetest.Request{URL: "http://" + addr}))
	})
	expect(t, told, "the service does not answer GET http://"+addr, "connection refused")
}

// What a service leaves is killed when the test ends, also what has gone to a group
// of its own, and a race that it reports fails the test.
func TestCleanup(t *testing.T) {
	var s *gracetest.Service
	var first, second int
	told := watch(t, func(tb testing.TB) {
		s = shell(tb, `sleep 1000 & echo "WARNING: DATA RACE" >&2; trap "" TERM; wait`)
		s.WaitLine(0, "the race", isLine("WARNING: DATA RACE"))
		first = s.PID()
		gracetest.Poll(tb, "two processes", func() bool { return len(s.Processes()) == 2 })
		second = s.Processes()[1]
		s.Follow(second)
		if s.PID() != second {
			tb.Errorf("PID is %d, want %d", s.PID(), second)
		}
	})
	if told != "a process reported a data race\n" {
		t.Errorf("told %q", told)
	}
	if left := s.Processes(); len(left) != 0 {
		t.Errorf("of %d and %d, %v are left", first, second, left)
	}
}

func TestSignals(t *testing.T) {
	s := shell(t, `trap "echo asked; exit" USR1; echo ready; while :; do sleep 0.01; done`)
	s.WaitLine(0, "the start", isLine("ready"))
	s.Freeze(s.PID())
	s.Signal(s.PID(), syscall.SIGCONT)
	s.Signal(s.PID(), syscall.SIGUSR1)
	s.WaitLine(0, "the signal", isLine("asked"))
	s.WaitExit(s.PID())
	s.WaitGone()
	told := watch(t, func(tb testing.TB) {
		s := shell(tb, "exit")
		s.WaitGone()
		gracetest.Poll(tb, "the end", func() bool { return syscall.Kill(s.PID(), 0) != nil })
		s.Signal(s.PID(), syscall.SIGUSR1)
	})
	expect(t, told, fmt.Sprintf("send %v to process ", syscall.SIGUSR1), "no such process")
}
