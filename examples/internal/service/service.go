//go:build unix

// Package service starts the programs of the examples in tests, and reads what they
// log with log/slog.
package service

import (
	"fmt"
	"os/exec"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/facebookgo/grace/gracetest"
)

// Service is a program of the examples, with its restarts.
type Service struct{ *gracetest.Service }

// serving is what a program logs when it is ready.
const serving = " serving "

// Start builds the program in the working directory, starts it and waits until it
// serves.
func Start(t testing.TB, args ...string) *Service {
	t.Helper()
	s := &Service{gracetest.Start(t, exec.Command(gracetest.Build(t, "."), args...))}
	s.wait(0, "the first process to serve", serving)
	return s
}

// wait waits for a line that has all of texts, after the first n lines.
func (s *Service) wait(n int, what string, texts ...string) gracetest.Line {
	return s.WaitLine(n, what, func(l gracetest.Line) bool {
		for _, text := range texts {
			if !strings.Contains(l.Text, text) {
				return false
			}
		}
		return true
	})
}

// WaitPID waits until the process pid has logged text.
func (s *Service) WaitPID(pid int, text string) {
	s.wait(0, fmt.Sprintf("process %d to log %q", pid, text), text, fmt.Sprintf("pid=%d", pid))
}

// Addr is where the service says that it serves.
func (s *Service) Addr() string {
	return Value(s.wait(0, "the first process to serve", serving), "addr")
}

// Handover asks for a restart and waits until the new process serves and the old
// one drains.
func (s *Service) Handover() (old, new int) {
	old = s.PID()
	n := len(s.Lines())
	s.Signal(old, syscall.SIGUSR2)
	new, _ = strconv.Atoi(Value(s.wait(n, "the next process to serve", serving), "pid"))
	s.Follow(new)
	s.WaitPID(old, " draining ")
	return old, new
}

// Value returns what follows key= in a line of slog.Default.
func Value(l gracetest.Line, key string) string {
	_, rest, _ := strings.Cut(l.Text, " "+key+"=")
	value, _, _ := strings.Cut(rest, " ")
	return value
}

// Against shows what a load has found beside the same load without a restart.
func Against(r, steady *gracetest.Report) string {
	text := fmt.Sprintf("%d requests, %d lost; without a restart %d, %d lost; latency as a ratio:", r.Requests, len(r.Losses), steady.Requests, len(steady.Losses))
	for _, part := range []float64{0.5, 0.99, 0.999, 1} {
		took := r.Latency(part)
		text += fmt.Sprintf(" p%g %.1f (%v)", 100*part, float64(took)/float64(steady.Latency(part)), took.Round(10*time.Microsecond))
	}
	return text
}
