//go:build unix

// Package service runs the programs of the examples in tests, and restarts them.
package service

import (
	"bufio"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"runtime/debug"
	"slices"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"
)

// Patience is how long a test waits for what must happen.
const Patience = 60 * time.Second

// Service is a program, and the processes that come after it. They share standard
// error, so its end of file shows that all are gone.
type Service struct {
	t testing.TB

	mu      sync.Mutex
	changed chan struct{} // closed at each line
	lines   []Line
	ended   chan struct{} // closed at end of file
}

// serving is what a program logs when it is ready.
const serving = " serving "

// Line is a line of the log: of slog.Default.
type Line string

// Value returns what follows key=.
func (l Line) Value(key string) string {
	_, rest, ok := strings.Cut(string(l), " "+key+"=")
	if !ok {
		return ""
	}
	value, _, _ := strings.Cut(rest, " ")
	return value
}

// PID is the process that has written the line.
func (l Line) PID() int {
	pid, _ := strconv.Atoi(l.Value("pid"))
	return pid
}

// Start builds the program in the working directory, starts it and waits until it
// serves. What is left of it when the test ends is killed.
func Start(t testing.TB, args ...string) *Service {
	t.Helper()
	program := filepath.Join(t.TempDir(), "server")
	build := exec.Command("go", "build", "-race="+strconv.FormatBool(race()), "-o", program, ".")
	if out, err := build.CombinedOutput(); err != nil {
		t.Fatalf("go build: %v\n%s", err, out)
	}
	r, w, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	cmd := exec.Command(program, args...)
	cmd.Stderr = w
	cmd.Env = append(os.Environ(), "GORACE=atexit_sleep_ms=0") // else each process takes a second to exit
	err = cmd.Start()
	w.Close()
	if err != nil {
		t.Fatal(err)
	}
	s := &Service{t: t, changed: make(chan struct{}), ended: make(chan struct{})}
	go s.read(r)
	go func() { _ = cmd.Wait() }() // ends with the first process
	t.Cleanup(s.cleanup)
	s.Wait("the first process to serve", serving)
	return s
}

// race reports whether the test has the race detector. The program has it then, too.
func race() bool {
	info, _ := debug.ReadBuildInfo()
	return slices.Contains(info.Settings, debug.BuildSetting{Key: "-race", Value: "true"})
}

func (s *Service) read(r *os.File) {
	defer r.Close()
	defer close(s.ended)
	for lines := bufio.NewScanner(r); lines.Scan(); {
		s.mu.Lock()
		s.lines = append(s.lines, Line(lines.Text()))
		close(s.changed)
		s.changed = make(chan struct{})
		s.mu.Unlock()
	}
}

// cleanup kills the processes that are left. One that has not said "serving" has a
// parent that kills it, or sees its end.
func (s *Service) cleanup() {
	for {
		for _, l := range s.all() {
			if strings.Contains(string(l), serving) && !s.gone(l.PID()) {
				_ = syscall.Kill(l.PID(), syscall.SIGKILL)
			}
		}
		select {
		case <-s.ended:
		case <-time.After(50 * time.Millisecond):
			continue
		}
		break
	}
	for _, l := range s.all() {
		if strings.Contains(string(l), "DATA RACE") {
			s.t.Error("a process reported a data race")
		}
	}
	if s.t.Failed() {
		for _, l := range s.all() {
			s.t.Log(l)
		}
	}
}

// gone reports whether the process pid has said that it ends.
func (s *Service) gone(pid int) bool {
	return slices.ContainsFunc(s.all(), func(l Line) bool {
		return l.PID() == pid && strings.Contains(string(l), " drained ")
	})
}

func (s *Service) all() []Line {
	s.mu.Lock()
	defer s.mu.Unlock()
	return slices.Clone(s.lines)
}

// Lines returns the lines that have come and contain text.
func (s *Service) Lines(text string) []Line {
	return slices.DeleteFunc(s.all(), func(l Line) bool { return !strings.Contains(string(l), text) })
}

// Wait returns the first line that has all of texts.
func (s *Service) Wait(what string, texts ...string) Line { return s.waitAfter(0, what, texts...) }

func (s *Service) waitAfter(n int, what string, texts ...string) Line {
	s.t.Helper()
	timeout := time.After(Patience)
	for {
		s.mu.Lock()
		lines, changed := s.lines, s.changed
		s.mu.Unlock()
		for ; n < len(lines); n++ {
			missing := func(text string) bool { return !strings.Contains(string(lines[n]), text) }
			if !slices.ContainsFunc(texts, missing) {
				return lines[n]
			}
		}
		select {
		case <-changed:
		case <-s.ended:
			if s.mu.Lock(); n == len(s.lines) {
				s.mu.Unlock()
				s.t.Fatalf("all processes have gone; waited for %s", what)
			}
			s.mu.Unlock()
		case <-timeout:
			s.t.Fatalf("waited in vain for %s", what)
		}
	}
}

// WaitPID is Wait for a line of the process pid.
func (s *Service) WaitPID(pid int, text string) Line {
	s.t.Helper()
	return s.Wait(fmt.Sprintf("process %d to log %q", pid, text), text, fmt.Sprintf("pid=%d", pid))
}

// Newest returns the last process that said it serves, and its address.
func (s *Service) Newest() (pid int, addr string) {
	s.t.Helper()
	lines := s.Lines(serving)
	last := lines[len(lines)-1]
	return last.PID(), last.Value("addr")
}

// Signal sends sig to a process of the service.
func (s *Service) Signal(pid int, sig syscall.Signal) {
	s.t.Helper()
	if err := syscall.Kill(pid, sig); err != nil {
		s.t.Fatalf("send %v to %d: %v", sig, pid, err)
	}
}

// Restart restarts the newest process and waits until the old one drains.
func (s *Service) Restart() (old, new int) {
	s.t.Helper()
	old, _ = s.Newest()
	n := len(s.all())
	s.Signal(old, syscall.SIGUSR2)
	new = s.waitAfter(n, "the next process to serve", serving).PID()
	s.WaitPID(old, " draining ")
	return old, new
}

// Stop stops the newest process and waits until all have gone.
func (s *Service) Stop() {
	s.t.Helper()
	pid, _ := s.Newest()
	s.Signal(pid, syscall.SIGTERM)
	select {
	case <-s.ended:
	case <-time.After(Patience):
		s.t.Fatal("processes are left")
	}
}
