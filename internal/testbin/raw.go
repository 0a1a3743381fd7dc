//go:build unix

package testbin

import (
	"fmt"
	"os"
	"path/filepath"
	"runtime"
	"syscall"
	"testing"
	"time"

	"github.com/facebookgo/grace/internal/testbin/play"
)

// RawListens are listeners of all networks; the paths of unix sockets are in
// dir.
func RawListens(dir string) []play.Listen {
	listens := []play.Listen{
		{Network: "tcp", Addr: "127.0.0.1:0"},
		{Network: "tcp", Addr: ":0"},
		{Network: "tcp4", Addr: "127.0.0.1:0"},
		{Network: "tcp6", Addr: "[::1]:0"},
		{Network: "unix", Addr: filepath.Join(dir, "stream")},
	}
	if runtime.GOOS == "linux" {
		listens = append(listens,
			play.Listen{Network: "unix", Addr: "@" + dir},
			play.Listen{Network: "unixpacket", Addr: filepath.Join(dir, "packet")})
	}
	return listens
}

// RestartRaw restarts a raw server of any role five times under load, and checks
// what it leaves behind.
func RestartRaw(t *testing.T, role string) {
	dir := t.TempDir()
	cfg := play.Config{Role: role, Listens: RawListens(dir)}
	s := Start(t, cfg)
	first, addrs := s.Newest()
	var targets []Target
	for i, l := range cfg.Listens {
		targets = append(targets, Lines(l.Network, addrs[i]))
	}
	load := NewLoad(t, targets...)
	load.WaitPID(first)
	s.waitSignals(first)
	before := Ask(t, targets[0], "fds")
	for range 5 {
		old, new := s.Restart()
		load.WaitPID(new)
		s.waitSignals(new)
		if e := s.WaitReturned(old); e.Event != play.Returned || e.Text != "" {
			t.Fatalf("pid %d: %s %s", old, e.Event, e.Text)
		}
		for j, target := range targets {
			if pid := AskPID(t, target); pid != new {
				t.Errorf("%s is answered by %d, want %d", addrs[j], pid, new)
			}
		}
		if _, now := s.Newest(); fmt.Sprint(now) != fmt.Sprint(addrs) {
			t.Errorf("addresses changed from %v to %v", addrs, now)
		}
		SameDescriptors(t, targets[0], before)
	}
	load.Stop()
	s.Stop()
	// The last process of the family removes the paths, and no other.
	for _, name := range []string{"stream", "packet"} {
		if _, err := os.Lstat(filepath.Join(dir, name)); !os.IsNotExist(err) {
			t.Errorf("path of the unix socket: %v, want it gone", err)
		}
	}
}

// StandbyRaw lets the child of a raw server die on standby.
func StandbyRaw(t *testing.T, role string) {
	dir := t.TempDir()
	cfg := play.Config{Role: role, Listens: RawListens(dir), Standby: time.Hour}
	s := Start(t, cfg)
	parent, addrs := s.Newest()
	s.waitSignals(parent)
	for range 2 {
		child := s.RestartPID(parent)
		s.WaitLog(parent, fmt.Sprintf("step=standby pid=%d child=%d", parent, child))
		// These wait in the kernel while nobody accepts.
		s.Freeze(child)
		answers := make(chan string)
		for i, l := range cfg.Listens {
			go func() {
				answer, err := Lines(l.Network, addrs[i])("")
				answers <- fmt.Sprintf("%s %v", answer, err)
			}()
		}
		s.Signal(child, syscall.SIGKILL)
		for range cfg.Listens {
			if got, want := <-answers, fmt.Sprintf("%d %v", parent, error(nil)); got != want {
				t.Errorf("got %s, want %s", got, want)
			}
		}
		for _, name := range []string{"stream", "packet"} {
			if _, err := os.Lstat(filepath.Join(dir, name)); err != nil && (name == "stream" || runtime.GOOS == "linux") {
				t.Errorf("path of the unix socket: %v, want it there", err)
			}
		}
	}
	s.Signal(parent, syscall.SIGTERM)
	s.WaitGone()
	for _, name := range []string{"stream", "packet"} {
		if _, err := os.Lstat(filepath.Join(dir, name)); !os.IsNotExist(err) {
			t.Errorf("path of the unix socket: %v, want it gone", err)
		}
	}
}

// waitSignals waits until pid is in grace.Wait. A signal that comes before has
// the effect that Go gives it.
func (s *Service) waitSignals(pid int) {
	s.t.Helper()
	s.WaitLog(pid, "signals restart and stop this process")
}
