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
	"golang.org/x/sys/unix"
)

// restarted restarts s and waits until the old process has gone.
func restarted(s *testbin.Service, again ...func()) (pid int, addrs []string) {
	pid, _ = s.Newest()
	s.WaitLog(pid, "signals restart and stop this process")
	old, _ := s.Restart()
	for _, f := range again {
		f()
	}
	s.WaitReturned(old)
	return s.Newest()
}

// What asks for any free port twice gets two, and the same two in each process.
func TestSamePorts(t *testing.T) {
	cfg := play.Config{Role: "net", Listens: []play.Listen{
		{Network: "tcp", Addr: ":0"}, {Network: "tcp", Addr: ":0"}, {Network: "tcp", Addr: "127.0.0.1:0"}, {Network: "tcp", Addr: "127.0.0.1:0"},
	}}
	s := testbin.Start(t, cfg)
	_, before := s.Newest()
	if len(slices.Compact(slices.Sorted(slices.Values(before)))) != 4 {
		t.Fatalf("addresses: %v", before)
	}
	for range 2 {
		if _, after := restarted(s); !slices.Equal(after, before) {
			t.Errorf("addresses changed from %v to %v", before, after)
		}
	}
	// One that nobody asks for any more is the last of its words.
	cfg.Listens = cfg.Listens[1:]
	s.Deploy(cfg)
	want := slices.Delete(slices.Clone(before), 1, 2)
	if _, after := restarted(s); !slices.Equal(after, want) {
		t.Errorf("addresses changed from %v to %v, want %v", before, after, want)
	}
	// Who asks for the port itself gets the socket, too.
	cfg.Listens = []play.Listen{{Network: "tcp", Addr: "127.0.0.1:0"}, {Network: "tcp", Addr: before[0]}}
	s.Deploy(cfg)
	want = []string{before[2], before[0]}
	if _, after := restarted(s); !slices.Equal(after, want) {
		t.Errorf("addresses changed from %v to %v, want %v", before, after, want)
	}
	pid, _ := s.Newest()
	s.WaitLog(pid, "signals restart and stop this process")
	s.Stop()
}

// No address is any free port, too, and the same one in each process.
func TestSamePortWithoutAddress(t *testing.T) {
	s := testbin.Start(t, play.Config{Role: "net", Listens: []play.Listen{{Network: "tcp"}}})
	_, before := s.Newest()
	if _, after := restarted(s); !slices.Equal(after, before) {
		t.Errorf("addresses changed from %v to %v", before, after)
	}
	pid, _ := s.Newest()
	s.WaitLog(pid, "signals restart and stop this process")
	s.Stop()
}

// Names are those of the service manager, whoever asks in which generation.
func TestNamed(t *testing.T) {
	admin, adminAddr := listenTCP(t)
	web1, web1Addr := listenTCP(t)
	web2, web2Addr := listenTCP(t)
	named := func(names ...string) (listens []play.Listen) {
		for _, name := range names {
			listens = append(listens, play.Listen{Network: "named", Addr: name})
		}
		return listens
	}
	cfg := play.Config{Role: "net", Listens: append(named("web", "admin", "web"), play.Listen{Network: "tcp", Addr: "127.0.0.1:0"})}
	s := testbin.Start(t, cfg, testbin.Env("LISTEN_FDS=3", "LISTEN_FDNAMES=admin:web:web"), testbin.Files(admin, web1, web2), testbin.OwnListenPID())
	for range 3 {
		_, addrs := s.Newest()
		if want := []string{web1Addr, adminAddr, web2Addr}; !slices.Equal(addrs[:3], want) {
			t.Errorf("addresses: %v, want %v", addrs, want)
		}
		restarted(s)
	}
	// What was asked for is a name, too.
	_, addrs := s.Newest()
	cfg.Listens = append(named("127.0.0.1:0", "admin"), play.Listen{Network: "tcp", Addr: web2Addr}, play.Listen{Network: "tcp", Addr: web1Addr})
	s.Deploy(cfg)
	if _, got := restarted(s); !slices.Equal(got, []string{addrs[3], adminAddr, web2Addr, web1Addr}) {
		t.Errorf("addresses: %v", got)
	}
	cfg.Listens = named("admin", "webb")
	s.Deploy(cfg)
	pid, _ := s.Newest()
	s.WaitLog(pid, "signals restart and stop this process")
	s.Signal(pid, syscall.SIGUSR2)
	s.Wait("the reason", func(e play.Event) bool {
		return e.Event == play.Failed && e.PID != pid &&
			e.Text == `gracenet: no listener was inherited with the name "webb" (there is 127.0.0.1%3A0, web): file does not exist`
	})
	s.Stop()
}

// roleFiles opens what its address says on its first start, and inherits it later. It
// answers what is asked of its files.
func roleFiles(cfg play.Config) error {
	l, err := testbin.ListenNet(cfg, cfg.Listens[0])
	if err != nil {
		return err
	}
	files := make(map[string]*os.File)
	for _, f := range cfg.Listens[1:] {
		opened, err := net1.File(f.Addr)
		if errors.Is(err, fs.ErrNotExist) && f.Network != "" {
			err = openFiles(f.Network, f.Addr, files)
			opened = files[f.Addr]
		}
		if err != nil {
			return err
		}
		files[f.Addr] = opened
	}
	return testbin.ServeLines(cfg, []net.Listener{l}, func(_ int, question string) string {
		verb, rest, _ := strings.Cut(question, " ")
		name, text, _ := strings.Cut(rest, " ")
		f := files[name]
		switch {
		case verb == "add":
			again, err := os.Open(os.DevNull)
			if err != nil {
				return err.Error()
			}
			return fmt.Sprint(net1.AddFile(name, again))
		case f == nil:
			return play.Answer(question)
		case verb == "write":
			_, err := f.WriteString(text)
			return fmt.Sprint(err)
		case verb == "read":
			b := make([]byte, 100)
			n, err := f.Read(b)
			return fmt.Sprint(string(b[:n]), err)
		case verb == "close":
			return fmt.Sprint(f.Close())
		}
		return "what is " + question + "?"
	})
}

// openFiles makes something new and hands it on.
func openFiles(what, name string, files map[string]*os.File) error {
	add := func(name string, f *os.File, err error) error {
		if err == nil {
			err = net1.AddFile(name, f)
		}
		files[name] = f
		return err
	}
	switch what {
	case "pipe":
		r, w, err := os.Pipe()
		return errors.Join(add(name, r, err), add(name+".write", w, err))
	}
	f, err := os.OpenFile(what, os.O_RDWR|os.O_CREATE|os.O_APPEND, 0o600)
	if err == nil {
		err = lock(f)
	}
	return add(name, f, err)
}

func lock(f *os.File) (err error) {
	raw, err := f.SyscallConn()
	if err != nil {
		return err
	}
	controlErr := raw.Control(func(fd uintptr) { err = unix.Flock(int(fd), unix.LOCK_EX|unix.LOCK_NB) })
	return errors.Join(err, controlErr)
}

// Files of every kind go from process to process, until they are closed or nobody
// asks for them.
func TestFiles(t *testing.T) {
	path := filepath.Join(t.TempDir(), "file")
	cfg := play.Config{Role: "files", Listens: []play.Listen{
		{Network: "tcp", Addr: "127.0.0.1:0"},
		{Network: "pipe", Addr: "pipe"},
		{Network: path, Addr: "lock"},
	}}
	s := testbin.Start(t, cfg)
	pid, addrs := s.Newest()
	target := testbin.Lines("tcp", addrs[0])
	ask := func(question, want string) {
		t.Helper()
		if got := testbin.Ask(t, target, question); got != want {
			t.Errorf("%s: %q, want %q", question, got, want)
		}
	}
	other, err := os.Open(path)
	if err != nil {
		t.Fatal(err)
	}
	defer other.Close()
	locked := func() {
		t.Helper()
		if err := lock(other); !errors.Is(err, unix.EWOULDBLOCK) {
			t.Errorf("lock: %v, want it held", err)
		}
	}
	s.WaitLog(pid, "signals restart and stop this process")
	before := testbin.Ask(t, target, "fds")
	ask("add lock", `gracenet: add file "lock": file already exists`)
	ask("add a:b", `gracenet: add file "a:b": the name must be printable ASCII without space and colon, as LISTEN_FDNAMES has it`)
	ask("add ", `gracenet: add file "": the name has 0 bytes, and must have 1 to 255`)
	cfg.Listens = append(cfg.Listens, play.Listen{Addr: "pipe.write"})
	cfg.Listens[1].Network, cfg.Listens[2].Network = "", "" // must be inherited
	s.Deploy(cfg)
	for range 3 {
		ask("write pipe.write hello", "<nil>")
		ask("write lock x", "<nil>")
		restarted(s, locked)
		ask("read pipe", "hello<nil>")
		locked()
		testbin.SameDescriptors(t, target, before)
	}
	if b, err := os.ReadFile(path); err != nil || string(b) != "xxx" {
		t.Errorf("the file has %q, %v", b, err)
	}
	// What is closed is not passed on, and what nobody asks for is closed.
	ask("close pipe.write", "<nil>")
	cfg.Listens = cfg.Listens[:2]
	s.Deploy(cfg)
	pid, _ = restarted(s)
	s.WaitLog(pid, "signals restart and stop this process")
	ask("read pipe", "EOF")
	testbin.Poll(t, "the lock to be free", func() bool { return lock(other) == nil })
	testbin.Poll(t, "two descriptors less than "+before, func() bool {
		return len(strings.Fields(testbin.Ask(t, target, "fds"))) == len(strings.Fields(before))-2
	})
	cfg.Listens = append(cfg.Listens, play.Listen{Addr: "lock"})
	s.Deploy(cfg)
	n := len(s.Events())
	s.Signal(pid, syscall.SIGUSR2)
	s.WaitAfter(n, "the reason", func(e play.Event) bool {
		return e.Event == play.Failed && e.Text == `gracenet: no file was inherited with the name "lock" (nothing that has a name is left): file does not exist`
	})
	s.Stop()
}

// A connection outlives the process.
func TestConnectedSocket(t *testing.T) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	connected, err := net.Dial("tcp", l.Addr().String())
	f := file(t, connected, err)
	_ = connected.Close()
	c, err := l.Accept()
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	r, w, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	defer w.Close()
	cfg := play.Config{Role: "files", Listens: []play.Listen{{Network: "tcp", Addr: "127.0.0.1:0"}, {Addr: "connection"}, {Addr: "fifo"}}}
	// It was passed by a service manager; so was the pipe.
	s := testbin.Start(t, cfg, testbin.Files(f, r), testbin.Env("LISTEN_FDS=2", "LISTEN_FDNAMES=connection:fifo"), testbin.OwnListenPID())
	f.Close()
	r.Close()
	_, addrs := s.Newest()
	target := testbin.Lines("tcp", addrs[0])
	for range 3 {
		if got := testbin.Ask(t, target, "write connection hello"); got != "<nil>" {
			t.Errorf("write: %s", got)
		}
		if err := c.SetDeadline(time.Now().Add(testbin.Patience)); err != nil {
			t.Fatal(err)
		}
		b := make([]byte, 5)
		if _, err := c.Read(b); err != nil || string(b) != "hello" {
			t.Errorf("read %q, %v", b, err)
		}
		if _, err := w.WriteString("line"); err != nil {
			t.Fatal(err)
		}
		if got := testbin.Ask(t, target, "read fifo"); got != "line<nil>" {
			t.Errorf("read: %s", got)
		}
		restarted(s)
	}
	pid, _ := s.Newest()
	s.WaitLog(pid, "signals restart and stop this process")
	s.Stop()
}

// The path of a unix socket outlives restarts and failed ones. One that a crash has
// left behind is named, and replaced if that is asked for.
func TestStalePath(t *testing.T) {
	for _, network := range []string{"unix", "unixpacket"} {
		path := socketPath(t)
		cfg := play.Config{Role: "net", Listens: []play.Listen{{Network: network, Addr: path}}}
		s := testbin.Start(t, cfg)
		for range 2 {
			restarted(s)
			pid, _ := s.Newest()
			s.WaitLog(pid, "signals restart and stop this process")
			s.Deploy(play.Config{Role: "exit"})
			n := len(s.Events())
			s.Signal(pid, syscall.SIGUSR2)
			s.WaitAfter(n, "the restart to fail", func(e play.Event) bool { return strings.Contains(e.Text, "restart failed") })
			s.Deploy(cfg)
			if got := testbin.AskPID(t, testbin.Lines(network, path)); got != pid {
				t.Errorf("answered by %d, want %d", got, pid)
			}
		}
		// One that somebody serves is not replaced.
		taken := cfg
		taken.ReplaceStale = true
		if why := fails(t, taken); !strings.HasSuffix(why, "bind: address already in use") {
			t.Errorf("beside a living one it fails with %q", why)
		}
		pid, _ := s.Newest()
		s.Signal(pid, syscall.SIGKILL)
		s.WaitGone()
		if why := fails(t, cfg); !strings.Contains(why, "bind: address already in use: nobody listens there") {
			t.Errorf("after a crash it fails with %q", why)
		}
		s = testbin.Start(t, taken)
		pid, _ = s.Newest()
		if got := testbin.AskPID(t, testbin.Lines(network, path)); got != pid {
			t.Errorf("answered by %d, want %d", got, pid)
		}
		restarted(s)
		pid, _ = s.Newest()
		s.WaitLog(pid, "signals restart and stop this process")
		s.Stop()
		if _, err := os.Lstat(path); !errors.Is(err, fs.ErrNotExist) {
			t.Errorf("path after the stop: %v, want it gone", err)
		}
		// What is no socket is left alone.
		if err := os.WriteFile(path, []byte("mine"), 0o600); err != nil {
			t.Fatal(err)
		}
		if why := fails(t, taken); !strings.HasSuffix(why, "bind: address already in use") {
			t.Errorf("with a file there it fails with %q", why)
		}
		if b, err := os.ReadFile(path); err != nil || string(b) != "mine" {
			t.Errorf("the file has %q, %v", b, err)
		}
	}
}

// fails starts a service that must not come up, and returns why.
func fails(t *testing.T, cfg play.Config) string {
	t.Helper()
	s := testbin.Launch(t, testbin.Executable(t), cfg)
	e := s.Wait("the process to fail", func(e play.Event) bool { return e.Event == play.Failed })
	s.WaitGone()
	return e.Text
}
