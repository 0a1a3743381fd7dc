//go:build unix

package gracenet_test

import (
	"errors"
	"fmt"
	"io/fs"
	"net"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/facebookgo/grace/internal/testbin"
	"github.com/facebookgo/grace/internal/testbin/play"
	"golang.org/x/sys/unix"
)

// Many processes find one stale path at the same time: one of them gets it, and its
// path stays.
func TestReplaceStaleRace(t *testing.T) {
	for _, network := range []string{"unix", "unixgram"} {
		path := socketPath(t)
		l := play.Listen{Network: network, Addr: path}
		cfg := play.Config{Role: "kinds", ReplaceStale: true, Listens: []play.Listen{l}}
		s := testbin.Start(t, cfg)
		for range 3 {
			pid, _ := s.Newest()
			s.Signal(pid, syscall.SIGKILL)
			s.WaitGone()
			there(t, path)
			var all []*testbin.Service
			for range 20 {
				all = append(all, testbin.Launch(t, testbin.Executable(t), cfg))
			}
			s = nil
			for _, one := range all {
				e := one.Wait("it to serve or to fail", func(e play.Event) bool { return e.Event == play.Serving || e.Event == play.Failed })
				switch {
				case e.Event == play.Serving && s == nil:
					s = one
				case e.Event == play.Serving:
					t.Error("two processes serve one path")
				case !strings.HasSuffix(e.Text, "bind: address already in use"):
					t.Errorf("a process fails with %q", e.Text)
				}
			}
			if s == nil {
				t.Fatal("no process serves")
			}
			pid, addrs := s.Newest()
			askAll(t, cfg, addrs, pid)
		}
	}
}

// A path is bound under the lock: for a moment it looks like a stale one.
func TestReplaceStaleLocks(t *testing.T) {
	path := socketPath(t)
	dir, err := os.Open(filepath.Dir(path))
	if err != nil {
		t.Fatal(err)
	}
	defer dir.Close()
	if err := lock(dir); err != nil {
		t.Fatal(err)
	}
	s := testbin.Launch(t, testbin.Executable(t), play.Config{Role: "kinds", ReplaceStale: true, Listens: []play.Listen{{Network: "unix", Addr: path}}})
	info, err := dir.Stat()
	if err != nil {
		t.Fatal(err)
	}
	waits := fmt.Sprintf(":%d 0 EOF", info.Sys().(*syscall.Stat_t).Ino)
	testbin.Poll(t, "the process to wait for the lock", func() bool {
		locks, err := os.ReadFile("/proc/locks")
		if err != nil {
			t.Fatal(err)
		}
		for line := range strings.Lines(string(locks)) {
			if strings.Contains(line, "-> FLOCK") && strings.HasSuffix(strings.TrimSpace(line), waits) {
				return true
			}
		}
		return false
	})
	gone(t, path)
	raw, err := dir.SyscallConn()
	if err != nil {
		t.Fatal(err)
	}
	if controlErr := raw.Control(func(fd uintptr) { err = unix.Flock(int(fd), unix.LOCK_UN) }); controlErr != nil || err != nil {
		t.Fatal(controlErr, err)
	}
	pid := s.Wait("it to serve", func(e play.Event) bool { return e.Event == play.Serving }).PID
	if got := testbin.AskPID(t, testbin.Lines("unix", path)); got != pid {
		t.Errorf("answered by %d, want %d", got, pid)
	}
}

// The path of a socket that the new process does not want goes with the old one, and
// not before it is certain that this does not serve again.
func TestDroppedPath(t *testing.T) {
	stream, gram := socketPath(t), socketPath(t)
	cfg := play.Config{Role: "kinds", Standby: time.Hour, Listens: []play.Listen{{Network: "tcp", Addr: "127.0.0.1:0"}, {Network: "unix", Addr: stream}, {Network: "unixgram", Addr: gram}}}
	without := cfg
	without.Listens = cfg.Listens[:1]
	both := func(test func(*testing.T, string)) {
		t.Helper()
		test(t, stream)
		test(t, gram)
	}
	s := testbin.Start(t, cfg)
	old, addrs := s.Newest()
	s.WaitLog(old, "signals restart and stop this process")
	s.Deploy(without)
	_, child := s.Restart()
	s.WaitLog(old, fmt.Sprintf("standing by\" step=standby pid=%d child=%d", old, child))
	both(there)
	s.Signal(child, syscall.SIGKILL) // the old process serves them again
	s.WaitLog(old, "this process serves again")
	both(there)
	askAll(t, cfg, addrs, old)

	n := len(s.Events())
	s.Signal(old, syscall.SIGUSR2)
	child = s.WaitAfter(n, "the next process", func(e play.Event) bool { return e.Event == play.Serving }).PID
	s.WaitLog(old, fmt.Sprintf("standing by\" step=standby pid=%d child=%d", old, child))
	both(there)
	s.Signal(old, syscall.SIGTERM) // which ends the standby
	s.WaitReturned(old)
	both(gone)
	s.WaitLog(child, "the old process is told")
	s.WaitLog(child, "signals restart and stop this process")
	s.Stop()

	// One that has taken over itself does the same.
	cfg.Standby, without.Standby = 0, 0
	s = testbin.Start(t, cfg)
	pid, _ := restartedAlone(s)
	both(there)
	s.Deploy(without)
	restartedAlone(s)
	both(gone)
	s.WaitLog(pid, "signals restart and stop this process")
	pid, _ = s.Newest()
	s.WaitLog(pid, "signals restart and stop this process")
	s.Stop()
}

func goes(t *testing.T, path string) {
	t.Helper()
	testbin.Poll(t, path+" to be gone", func() bool { _, err := os.Lstat(path); return errors.Is(err, fs.ErrNotExist) })
}

// If there is no old process any more, or it is not told what is unused, the new one
// removes the path.
func TestDroppedPathWithoutParent(t *testing.T) {
	stream, gram := socketPath(t), socketPath(t)
	cfg := play.Config{Role: "kinds", Listens: []play.Listen{{Network: "tcp", Addr: "127.0.0.1:0"}, {Network: "unix", Addr: stream}, {Network: "unixgram", Addr: gram}}}
	without := cfg
	without.Listens = cfg.Listens[:1]

	release := filepath.Join(t.TempDir(), "release")
	s := testbin.Start(t, cfg)
	old, _ := s.Newest()
	s.WaitLog(old, "signals restart and stop this process")
	without.Role = "later"
	without.Chdir = filepath.Dir(release)
	s.Deploy(without)
	s.Signal(old, syscall.SIGUSR2)
	s.WaitLog(old, "new process takes part")
	s.Signal(old, syscall.SIGKILL)
	s.WaitExit(old)
	if err := os.WriteFile(release, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	pid := s.Wait("the new process", func(e play.Event) bool { return e.Event == play.Serving && e.PID != old }).PID
	s.WaitLog(pid, "signals restart and stop this process")
	goes(t, stream) // at once, or when it has noticed
	goes(t, gram)
	s.Stop()

	// The old process dies on standby.
	s = testbin.Start(t, func() play.Config { c := cfg; c.Standby = time.Hour; return c }())
	old, _ = s.Newest()
	s.WaitLog(old, "signals restart and stop this process")
	without.Role = "kinds"
	s.Deploy(without)
	_, pid = s.Restart()
	s.WaitLog(old, "standing by")
	there(t, stream)
	there(t, gram)
	s.Signal(old, syscall.SIGKILL)
	goes(t, stream)
	goes(t, gram)
	s.WaitLog(pid, "signals restart and stop this process")
	s.Stop()

	// A parent that the program has made itself is told by a signal alone.
	role := play.Config{Role: "startprocess", Listens: []play.Listen{{Network: "tcp", Addr: "127.0.0.1:0"}, {Network: "unix", Addr: stream}}}
	s = testbin.Start(t, role)
	old, _ = s.Newest()
	s.Deploy(without)
	s.Restart()
	s.WaitReturned(old)
	pid, _ = s.Newest()
	s.WaitLog(pid, "signals restart and stop this process")
	gone(t, stream)
	s.Stop()
}

// roleLater is testbin.ServeKinds as soon as there is a file "release".
func roleLater(cfg play.Config) error {
	play.Answer("until release")
	return testbin.ServeKinds(cfg)
}

// What the program has closed is not passed on, and the address is free.
func TestClosedIsNotPassedOn(t *testing.T) {
	cfg := play.Config{Role: "closes", Listens: []play.Listen{{Network: "tcp", Addr: "127.0.0.1:0"}, {Network: "tcp", Addr: "127.0.0.1:0"}, {Network: "udp", Addr: freeUDP(t)}, {Network: "unix", Addr: socketPath(t)}}}
	s := testbin.Start(t, cfg)
	for range 2 {
		pid, addrs := s.Newest()
		s.WaitLog(pid, "signals restart and stop this process")
		target := testbin.Lines("tcp", addrs[0])
		if got := testbin.Ask(t, target, "env LISTEN_FDS"); got != "" && got != "1" {
			t.Errorf("%s listeners were passed, want 1", got)
		}
		if c, err := net.Dial("tcp", addrs[1]); !errors.Is(err, syscall.ECONNREFUSED) {
			t.Errorf("dial: %v, %v, want it refused", c, err)
		}
		gone(t, cfg.Listens[3].Addr)
		restarted(s)
	}
	pid, _ := s.Newest()
	s.WaitLog(pid, "signals restart and stop this process")
	s.Stop()
}

// roleCloses closes all that it has opened but for the first.
func roleCloses(cfg play.Config) error {
	var listeners []net.Listener
	for _, l := range cfg.Listens {
		if l.Network == "udp" {
			c, err := net1.ListenPacket(l.Network, l.Addr)
			if err != nil {
				return err
			}
			if err := c.Close(); err != nil {
				return err
			}
			continue
		}
		l, err := testbin.ListenNet(cfg, l)
		if err != nil {
			return err
		}
		if listeners = append(listeners, l); len(listeners) == 1 {
			continue
		}
		if err := l.Close(); err != nil {
			return err
		}
	}
	return testbin.ServeLines(cfg, listeners[:1], func(_ int, question string) string { return play.Answer(question) }, listeners[1].Addr().String())
}
