//go:build unix

package gracenet_test

import (
	"errors"
	"fmt"
	"io/fs"
	"net"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/facebookgo/grace/internal/testbin"
	"github.com/facebookgo/grace/internal/testbin/play"
)

// askAll fails the test unless pid answers at each address.
func askAll(t *testing.T, cfg play.Config, addrs []string, pid int) {
	t.Helper()
	i := 0
	for _, l := range cfg.Listens {
		if l.Network == "file" {
			continue
		}
		target := testbin.Lines(l.Network, addrs[i])
		switch l.Network {
		case "named":
			target = testbin.Lines("tcp", addrs[i])
		case "packet":
			target = testbin.Datagrams("udp", addrs[i])
		case "udp", "udp4", "udp6", "unixgram":
			target = testbin.Datagrams(l.Network, addrs[i])
		}
		i++
		if got := testbin.AskPID(t, target); got != pid {
			t.Errorf("%s %s is answered by %d, want %d", l.Network, l.Addr, got, pid)
		}
	}
}

// restartedAlone is restarted; the old process no longer reads datagrams either.
func restartedAlone(s *testbin.Service) (pid int, addrs []string) {
	s.WaitOne()
	old, _ := s.Newest()
	pid, addrs = restarted(s)
	s.WaitExit(old)
	return pid, addrs
}

// freeUDP is an address that was free a moment ago.
func freeUDP(t *testing.T) string {
	t.Helper()
	c, err := net.ListenPacket("udp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	return c.LocalAddr().String()
}

// failedRestart deploys a program that exits, and restarts pid with that.
func failedRestart(s *testbin.Service, pid int) {
	s.WaitLog(pid, "signals restart and stop this process")
	s.Deploy(play.Config{Role: "exit"})
	n := len(s.Events())
	s.Signal(pid, syscall.SIGUSR2)
	s.WaitAfter(n, "the restart to fail", func(e play.Event) bool { return strings.Contains(e.Text, "restart failed") })
}

func gone(t *testing.T, path string) {
	t.Helper()
	if _, err := os.Lstat(path); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("%s: %v, want it gone", path, err)
	}
}

func there(t *testing.T, path string) {
	t.Helper()
	if _, err := os.Lstat(path); err != nil {
		t.Errorf("want the path there: %v", err)
	}
}

// Datagram sockets of all sorts are the same ones in each process, each for whom has
// asked for it. The path of one is there until the final stop.
func TestDatagrams(t *testing.T) {
	path := socketPath(t)
	cfg := play.Config{Role: "kinds", Listens: []play.Listen{
		{Network: "udp", Addr: ":0"},
		{Network: "udp", Addr: ":0"},
		{Network: "udp4", Addr: "127.0.0.1:0"},
		{Network: "udp6", Addr: "[::1]:0"},
		{Network: "udp", Addr: freeUDP(t)},
		{Network: "unixgram", Addr: path},
		{Network: "unixgram", Addr: "@" + path},
	}}
	s := testbin.Start(t, cfg)
	pid, addrs := s.Newest()
	askAll(t, cfg, addrs, pid)
	if addrs[0] == addrs[1] {
		t.Errorf("addresses: %v", addrs)
	}
	before := testbin.Ask(t, testbin.Datagrams("udp", addrs[0]), "fds")
	for range 3 {
		now, again := restartedAlone(s)
		if now == pid || !slices.Equal(again, addrs) {
			t.Errorf("process %d at %v became %d at %v", pid, addrs, now, again)
		}
		pid = now
		askAll(t, cfg, addrs, pid)
		testbin.SameDescriptors(t, testbin.Datagrams("udp", addrs[0]), before)
		failedRestart(s, pid)
		s.Deploy(cfg)
		askAll(t, cfg, addrs, pid)
		testbin.SameDescriptors(t, testbin.Datagrams("udp", addrs[0]), before)
	}
	// In other words they are found by their addresses.
	cfg.Listens = []play.Listen{{Network: "udp", Addr: ":0"}, {Network: "udp4", Addr: addrs[4]}, {Network: "unixgram", Addr: path}}
	s.Deploy(cfg)
	pid, again := restartedAlone(s)
	if want := []string{addrs[0], addrs[4], addrs[5]}; !slices.Equal(again, want) {
		t.Errorf("addresses: %v, want %v", again, want)
	}
	askAll(t, cfg, again, pid)
	// A process that exits has its sockets for a moment longer than its memory.
	testbin.Poll(t, "the address that was dropped to be free", func() bool {
		c, err := net.ListenPacket("udp", addrs[2])
		if err == nil {
			_ = c.Close()
		}
		return err == nil
	})
	s.WaitLog(pid, "signals restart and stop this process")
	s.Stop()
	gone(t, path)
}

// A unixgram socket's path goes with the process that is the last to have it, whoever
// that is, but not if it is someone else's by now.
func TestUnixgramPath(t *testing.T) {
	path := socketPath(t)
	cfg := play.Config{Role: "kinds", Listens: []play.Listen{{Network: "tcp", Addr: "127.0.0.1:0"}, {Network: "unixgram", Addr: path}}}
	without := cfg
	without.Listens = cfg.Listens[:1]

	// Dropped: it stays as long as the old process could serve it again.
	s := testbin.Start(t, cfg)
	without.Standby = time.Hour
	old, _ := s.Newest()
	s.WaitLog(old, "signals restart and stop this process")
	s.Deploy(without)
	_, child := s.Restart()
	s.WaitReturned(old)
	goes(t, path)
	s.Deploy(cfg)
	s.WaitLog(child, "signals restart and stop this process")
	s.Signal(child, syscall.SIGTERM)
	s.WaitGone()

	// In another process someone else's socket takes its place.
	s = testbin.Start(t, cfg)
	restartedAlone(s)
	if err := os.Remove(path); err != nil {
		t.Fatal(err)
	}
	other, err := net.ListenUnixgram("unixgram", &net.UnixAddr{Net: "unixgram", Name: path})
	if err != nil {
		t.Fatal(err)
	}
	defer other.Close()
	pid, _ := restartedAlone(s)
	s.WaitLog(pid, "signals restart and stop this process")
	s.Stop()
	there(t, path)
	if err := os.Remove(path); err != nil {
		t.Fatal(err)
	}

	// A crash leaves it behind, and it can be replaced.
	s = testbin.Start(t, cfg)
	pid, _ = s.Newest()
	cfg.ReplaceStale = true
	if why := fails(t, cfg); !strings.HasSuffix(why, "bind: address already in use") {
		t.Errorf("beside a living one it fails with %q", why)
	}
	s.Signal(pid, syscall.SIGKILL)
	s.WaitGone()
	cfg.ReplaceStale = false
	if why := fails(t, cfg); !strings.Contains(why, "bind: address already in use: nobody listens there") {
		t.Errorf("after a crash it fails with %q", why)
	}
	cfg.ReplaceStale = true
	s = testbin.Start(t, cfg)
	pid, addrs := restartedAlone(s)
	askAll(t, cfg, addrs, pid)
	s.WaitLog(pid, "signals restart and stop this process")
	s.Stop()
	gone(t, path)
}

// A program that has left its directory finds the path of its socket all the same, and
// removes nothing else that has the same name.
func TestUnixgramRelativePath(t *testing.T) {
	dir := filepath.Dir(socketPath(t))
	cfg := play.Config{Role: "kinds", Chdir: dir, Listens: []play.Listen{{Network: "unixgram", Addr: "s"}}}
	s := testbin.Start(t, cfg)
	same := filepath.Join(s.Dir(), "s")
	if err := os.WriteFile(same, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	pid, _ := restartedAlone(s)
	if got := testbin.AskPID(t, testbin.Datagrams("unixgram", filepath.Join(dir, "s"))); got != pid {
		t.Errorf("answered by %d, want %d", got, pid)
	}
	s.WaitLog(pid, "signals restart and stop this process")
	s.Stop()
	there(t, same)
	gone(t, filepath.Join(dir, "s"))
}

// A service manager passes datagram sockets, which are found by address and by name in
// each process. It keeps its paths, also of what nobody asks for.
func TestDatagramsOfAServiceManager(t *testing.T) {
	path, unusedPath := socketPath(t), socketPath(t)
	udp := func() (*os.File, string) {
		c, err := net.ListenPacket("udp", "127.0.0.1:0")
		if err != nil {
			t.Fatal(err)
		}
		defer c.Close()
		return file(t, c, nil), c.LocalAddr().String()
	}
	gram := func(path string) *os.File {
		c, err := net.ListenUnixgram("unixgram", &net.UnixAddr{Net: "unixgram", Name: path})
		if err != nil {
			t.Fatal(err)
		}
		defer c.Close()
		return file(t, c, nil)
	}
	dns, dnsAddr := udp()
	log1, log1Addr := udp()
	log2, log2Addr := udp()
	l, err := net.ListenUnix("unix", &net.UnixAddr{Net: "unix", Name: unusedPath})
	unused := file(t, l, err)
	l.SetUnlinkOnClose(false)
	l.Close()
	files := []*os.File{log1, dns, unused, gram(path), log2}
	cfg := play.Config{Role: "kinds", Listens: []play.Listen{
		{Network: "tcp", Addr: "127.0.0.1:0"},
		{Network: "packet", Addr: "log"},
		{Network: "udp", Addr: dnsAddr},
		{Network: "packet", Addr: "log"},
		{Network: "unixgram", Addr: path},
	}}
	s := testbin.Start(t, cfg, testbin.Files(files...), testbin.Env("LISTEN_FDS=5", "LISTEN_FDNAMES=log:dns:left:gram:log"), testbin.OwnListenPID())
	for _, f := range files {
		f.Close()
	}
	pid, addrs := s.Newest()
	s.WaitLog(pid, "signals restart and stop this process")
	if want := []string{addrs[0], log1Addr, dnsAddr, log2Addr, path}; !slices.Equal(addrs, want) {
		t.Errorf("addresses: %v, want %v", addrs, want)
	}
	askAll(t, cfg, addrs, pid)
	before := testbin.Ask(t, testbin.Lines("tcp", addrs[0]), "fds")
	for range 2 {
		pid, again := restartedAlone(s)
		if !slices.Equal(again, addrs) {
			t.Errorf("addresses: %v, want %v", again, addrs)
		}
		askAll(t, cfg, addrs, pid)
		testbin.SameDescriptors(t, testbin.Lines("tcp", addrs[0]), before)
	}
	// What has a name has an address, and the other way round.
	cfg.Listens = append(cfg.Listens[:1], play.Listen{Network: "udp", Addr: log2Addr}, play.Listen{Network: "packet", Addr: "dns"}, play.Listen{Network: "packet", Addr: "log"})
	s.Deploy(cfg)
	pid, again := restartedAlone(s)
	if want := []string{addrs[0], log2Addr, dnsAddr, log1Addr}; !slices.Equal(again, want) {
		t.Errorf("addresses: %v, want %v", again, want)
	}
	// The error tells what there is.
	cfg.Listens = []play.Listen{{Network: "named", Addr: "dns"}}
	s.Deploy(cfg)
	s.WaitLog(pid, "signals restart and stop this process")
	s.Signal(pid, syscall.SIGUSR2)
	s.Wait("the reason", func(e play.Event) bool {
		return e.Event == play.Failed && e.Text == `gracenet: no listener was inherited with the name "dns" (there is 127.0.0.1%3A0, log (a datagram socket), dns (a datagram socket)): file does not exist`
	})
	s.WaitLog(pid, "restart failed")
	s.Stop()
	there(t, path)
	there(t, unusedPath)
}

// inPlace restarts a process that keeps its pid, and waits until nothing but the new
// program is left.
func inPlace(t *testing.T, s *testbin.Service, pid int) (addrs []string) {
	t.Helper()
	n := len(s.Events())
	s.Signal(pid, syscall.SIGUSR2)
	interim := s.WaitAfter(n, "a process to serve in the interim", func(e play.Event) bool { return e.Event == play.Serving && e.PID != pid }).PID
	e := s.WaitAfter(n, "the program to be executed anew", func(e play.Event) bool { return e.Event == play.Serving && e.PID == pid })
	s.WaitAfter(n, "it to catch signals", func(e play.Event) bool {
		return e.PID == pid && strings.Contains(e.Text, "signals restart and stop this process")
	})
	s.WaitReturned(interim)
	s.WaitExit(interim)
	return e.Addrs
}

// All that there is comes through ten restarts of a process that keeps its pid, and no
// descriptor is left over.
func TestKeepPIDWithAllKinds(t *testing.T) {
	dir := t.TempDir()
	for _, listens := range [][]play.Listen{
		append(testbin.RawListens(dir),
			play.Listen{Network: "file", Addr: "a"},
			play.Listen{Network: "udp", Addr: ":0"},
			play.Listen{Network: "udp", Addr: ":0"},
			play.Listen{Network: "unixgram", Addr: filepath.Join(dir, "gram")},
			play.Listen{Network: "file", Addr: "b"}),
		{{Network: "udp", Addr: "127.0.0.1:0"}}, // and no listener
	} {
		cfg := play.Config{Role: "kinds", KeepPID: true, Listens: listens}
		s := testbin.Start(t, cfg)
		pid, addrs := s.Newest()
		s.WaitLog(pid, "signals restart and stop this process")
		udp := testbin.Datagrams("udp", addrs[slices.IndexFunc(listens, func(l play.Listen) bool { return l.Network == "udp" })-count(listens, "file", "udp")])
		before := testbin.Ask(t, udp, "fds")
		for range 10 {
			if again := inPlace(t, s, pid); !slices.Equal(again, addrs) {
				t.Errorf("addresses: %v, want %v", again, addrs)
			}
			askAll(t, cfg, addrs, pid)
		}
		testbin.SameDescriptors(t, udp, before)
		s.Stop()
	}
	for _, name := range []string{"stream", "packet", "gram"} {
		gone(t, filepath.Join(dir, name))
	}
}

// count is how many of network come before the first one of until.
func count(listens []play.Listen, network, until string) (n int) {
	for _, l := range listens {
		if l.Network == until {
			break
		}
		if l.Network == network {
			n++
		}
	}
	return n
}

// What the new program does not want is closed when the old one has drained, not only
// when the program that is executed in its place serves.
func TestKeepPIDDropsAddress(t *testing.T) {
	path := socketPath(t)
	cfg := play.Config{Role: "kinds", KeepPID: true, Listens: []play.Listen{{Network: "tcp", Addr: "127.0.0.1:0"}, {Network: "tcp", Addr: "127.0.0.1:0"}, {Network: "unix", Addr: path}}}
	s := testbin.Start(t, cfg)
	pid, addrs := s.Newest()
	s.WaitLog(pid, "signals restart and stop this process")
	release := filepath.Join(t.TempDir(), "release")
	done := make(chan error)
	go func() {
		_, err := testbin.Lines("tcp", addrs[0])("until " + release)
		done <- err
	}()
	s.Wait("the slow request", func(e play.Event) bool { return e.Event == play.Asked })
	cfg.Listens = cfg.Listens[:1]
	s.Deploy(cfg)
	_, interim := s.Restart()
	cfg.Delay = time.Hour // of the program that is executed anew
	s.Deploy(cfg)
	if err := os.WriteFile(release, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	if err := <-done; err != nil {
		t.Error(err)
	}
	s.WaitLog(pid, "program is executed anew")
	testbin.Poll(t, "the address to be free", func() bool {
		c, err := net.Dial("tcp", addrs[1])
		if err == nil {
			c.Close()
		}
		return errors.Is(err, syscall.ECONNREFUSED)
	})
	gone(t, path)
	if got := testbin.AskPID(t, testbin.Lines("tcp", addrs[0])); got != interim {
		t.Errorf("answered by %d, want %d", got, interim)
	}
}

// A stop that comes while the process of the interim still drains is the final one.
func TestKeepPIDStopDuringInterimDrain(t *testing.T) {
	path, gram := socketPath(t), socketPath(t)
	cfg := play.Config{Role: "kinds", KeepPID: true, Listens: []play.Listen{{Network: "unix", Addr: path}, {Network: "unixgram", Addr: gram}}}
	s := testbin.Start(t, cfg)
	pid, _ := s.Newest()
	s.WaitLog(pid, "signals restart and stop this process")
	dir := t.TempDir()
	answers := make(chan string, 2)
	until := func(name string) {
		n := len(s.Events())
		go func() {
			answer, err := testbin.Lines("unix", path)("until " + filepath.Join(dir, name))
			answers <- fmt.Sprint(answer, err)
		}()
		s.WaitAfter(n, "the slow request", func(e play.Event) bool { return e.Event == play.Asked })
	}
	release := func(name string) {
		if err := os.WriteFile(filepath.Join(dir, name), nil, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	until("first")
	n := len(s.Events())
	_, interim := s.Restart()
	s.WaitLog(pid, "draining, to execute the program anew")
	until("second")
	release("first")
	s.WaitAfter(n, "it to catch signals", func(e play.Event) bool {
		return e.PID == pid && strings.Contains(e.Text, "signals restart and stop this process")
	})
	s.WaitLog(interim, "msg=draining")
	testbin.Poll(t, "both to serve one client", func() bool { return testbin.AskPID(t, testbin.Lines("unix", path)) == pid })
	s.Signal(pid, syscall.SIGTERM)
	s.WaitReturned(pid)
	gone(t, path)
	gone(t, gram)
	release("second")
	s.WaitGone()
	for _, want := range []int{pid, interim} {
		if got := <-answers; got != fmt.Sprintf("%d<nil>", want) {
			t.Errorf("the slow requests: %s, want an answer of %d", got, want)
		}
	}
}
