//go:build unix

package gracehttp_test

import (
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strconv"
	"syscall"
	"testing"
	"time"

	"github.com/facebookgo/grace/internal/testbin"
	"github.com/facebookgo/grace/internal/testbin/play"
)

// The program of docs/protocol.md, which is all that one needs for it, takes over from a
// server with this library, is taken back, and takes over for good.
func TestProtocolPage(t *testing.T) {
	program := filepath.Join(t.TempDir(), "child")
	page, err := os.ReadFile("../docs/protocol.md")
	if err != nil {
		t.Fatal(err)
	}
	source := regexp.MustCompile("(?ms)^```go\n(package main\n.*?)^```$").FindSubmatch(page)
	if source == nil {
		t.Fatal("docs/protocol.md has no program")
	}
	if err := os.WriteFile(program+".go", source[1], 0o600); err != nil {
		t.Fatal(err)
	}
	if out, err := exec.Command("go", "build", "-o", program, program+".go").CombinedOutput(); err != nil {
		t.Fatalf("go build: %v\n%s", err, out)
	}

	s := testbin.Start(t, play.Config{Role: "http", Listens: []play.Listen{{Addr: "127.0.0.1:0"}}, Standby: time.Hour})
	parent, addrs := s.Newest()
	target := testbin.HTTP("http", addrs[0])
	s.Install(program)
	restart := func() (child int) {
		n := len(s.Events())
		s.Signal(parent, syscall.SIGUSR2)
		s.WaitAfter(n, "the parent to stand by", logged(parent, "standing by"))
		child = testbin.AskPID(t, target)
		if child == parent {
			t.Fatalf("answered by %d, which stands by", parent)
		}
		return child
	}
	child := restart()
	n := len(s.Events())
	s.Signal(child, syscall.SIGKILL)
	s.WaitAfter(n, "the parent to serve again", logged(parent, "serves again"))
	if pid := testbin.AskPID(t, target); pid != parent {
		t.Errorf("answered by %d, want %d", pid, parent)
	}
	child = restart()
	s.Signal(parent, syscall.SIGTERM) // which ends the standby
	s.WaitReturned(parent)
	s.WaitExit(parent)
	if got := testbin.Ask(t, target, ""); got != strconv.Itoa(child) {
		t.Errorf("answered by %s, want %d", got, child)
	}
	s.Signal(child, syscall.SIGTERM)
	s.WaitGone()
}
