//go:build unix

package gracetest_test

import (
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"testing"

	"github.com/facebookgo/grace/gracetest"
)

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
