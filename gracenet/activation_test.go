//go:build unix

package gracenet_test

import (
	"fmt"
	"net"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"

	"github.com/facebookgo/grace/internal/testbin"
	"github.com/facebookgo/grace/internal/testbin/play"
)

// file returns the file of a listener or connection, closed with the test.
func file(t *testing.T, c any, err error) *os.File {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
	if f, ok := c.(*os.File); ok {
		t.Cleanup(func() { f.Close() })
		return f
	}
	f, err := c.(interface{ File() (*os.File, error) }).File()
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { f.Close() })
	return f
}

func listenTCP(t *testing.T) (*os.File, string) {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	return file(t, l, nil), l.Addr().String()
}

// What is announced wrongly is a clear error, once, or is left alone. Nothing
// that is not ours is closed.
func TestBrokenEnvironment(t *testing.T) {
	listener, _ := listenTCP(t)
	plain := file(t, any(must(os.Create(filepath.Join(t.TempDir(), "plain-file")))), nil)
	conn, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	c, err := net.Dial("tcp", conn.Addr().String())
	connected := file(t, c, err)
	defer c.Close()
	udp, err := net.ListenPacket("udp", "127.0.0.1:0")
	datagram := file(t, udp, err)
	defer udp.Close()

	const none = "no error"
	for _, test := range []struct {
		name  string
		env   []string
		ours  bool // LISTEN_PID is that of the process
		files []*os.File
		err   string // of the first Listen
		open  string // must still be open
	}{
		{name: "not set", err: none},
		{name: "empty", env: []string{"LISTEN_FDS="}, ours: true, err: none},
		{name: "zero", env: []string{"LISTEN_FDS=0"}, ours: true, err: none},
		{name: "not a number", env: []string{"LISTEN_FDS=x"}, err: "found invalid count value: LISTEN_FDS=x"},
		{name: "negative", env: []string{"LISTEN_FDS=-1"}, err: "found invalid count value: LISTEN_FDS=-1"},
		{name: "huge", env: []string{"LISTEN_FDS=2000000000"}, err: "found invalid count value: LISTEN_FDS=2000000000"},
		{name: "beyond an int", env: []string{"LISTEN_FDS=99999999999999999999"}, err: "found invalid count value: LISTEN_FDS=99999999999999999999"},
		{name: "more than are open", env: []string{"LISTEN_FDS=2"}, ours: true, files: []*os.File{listener},
			err: "error inheriting socket fd 4: bad file descriptor"},
		{name: "none is open", env: []string{"LISTEN_FDS=2"}, ours: true,
			err: "error inheriting socket fd 3: bad file descriptor"},
		{name: "regular file", env: []string{"LISTEN_FDS=1"}, ours: true, files: []*os.File{plain},
			err: "error inheriting socket fd 3: getsockopt: socket operation on non-socket", open: "plain-file"},
		{name: "connected socket", env: []string{"LISTEN_FDS=1"}, ours: true, files: []*os.File{connected},
			err: "error inheriting socket fd 3: socket does not listen, or is connected"},
		{name: "second is bad", env: []string{"LISTEN_FDS=2"}, ours: true, files: []*os.File{listener, plain},
			err: "error inheriting socket fd 4: getsockopt: socket operation on non-socket", open: "plain-file"},
		{name: "datagram socket", env: []string{"LISTEN_FDS=1"}, ours: true, files: []*os.File{datagram}, err: none},
		{name: "for another process", env: []string{"LISTEN_FDS=2", "LISTEN_PID=1"}, err: none},
		{name: "for another process, no pid", env: []string{"LISTEN_FDS=2"}, err: none},
		{name: "for another process, bad pid", env: []string{"LISTEN_FDS=2", "LISTEN_PID=me"}, err: none},
		{name: "in between", env: []string{"LISTEN_FDS=2", "LISTEN_PID=1"}, files: []*os.File{listener},
			err: "error inheriting socket fd 4: bad file descriptor"},
		{name: "in between, regular file", env: []string{"LISTEN_FDS=1"}, files: []*os.File{plain},
			err: "error inheriting socket fd 3: getsockopt: socket operation on non-socket", open: "plain-file"},
		{name: "rubbish marker", env: []string{"LISTEN_FDS=1", "GRACE_HANDOVER=rubbish"}, err: none},
		{name: "stale marker", env: []string{"LISTEN_FDS=1", "GRACE_HANDOVER=1 parent=1 control=3 inode=1"}, err: none},
		{name: "marker without LISTEN_FDS", env: []string{"GRACE_HANDOVER=1 parent=1"}, err: none},
		{name: "marker without descriptors", env: []string{"LISTEN_FDS=1", "GRACE_HANDOVER=1 parent=1"},
			err: "error inheriting socket fd 3: bad file descriptor"},
	} {
		t.Run(test.name, func(t *testing.T) {
			options := []testbin.Option{testbin.Env(test.env...), testbin.Files(test.files...)}
			if test.ours {
				options = append(options, testbin.OwnListenPID())
			}
			cfg := play.Config{Role: "env", Listens: []play.Listen{{Network: "tcp", Addr: "127.0.0.1:0"}, {Network: "tcp", Addr: "127.0.0.1:0"}}}
			s := testbin.Launch(t, testbin.Executable(t), cfg, options...)
			s.WaitGone()
			var got []string
			for _, e := range s.Events() {
				got = append(got, e.Text)
			}
			// The first Listen, the second, Inherit, the descriptors.
			if len(got) != 5 {
				t.Fatalf("got %q", got)
			}
			// No command of the program must take the marker for its own.
			if !strings.HasSuffix(got[0], `GRACE_HANDOVER=""`) {
				t.Errorf("the environment is %s", got[0])
			}
			if want := "listen: " + test.err; got[1] != want {
				t.Errorf("first: %q, want %q", got[1], want)
			}
			if got[2] != "listen: "+none {
				t.Errorf("second: %q, want no error", got[2])
			}
			want := "inherit: " + test.err
			if test.err == none {
				want = "inherit: grace: no inherited listeners"
			}
			if got[3] != want {
				t.Errorf("%q, want %q", got[3], want)
			}
			if !strings.Contains(got[4], test.open) {
				t.Errorf("%q: %s is not open any more", got[4], test.open)
			}
		})
	}
}

func must(f *os.File, err error) *os.File {
	if err != nil {
		panic(err)
	}
	return f
}

// A service manager passes sockets with names; so does each generation, and in
// none of them the path of the manager's unix socket is removed.
func TestServiceManager(t *testing.T) {
	dir := t.TempDir()
	path := filepath.Join(dir, "managed")
	l, err := net.ListenUnix("unix", &net.UnixAddr{Net: "unix", Name: path})
	if err != nil {
		t.Fatal(err)
	}
	l.SetUnlinkOnClose(false)
	unix := file(t, l, nil)
	l.Close()
	tcp, addr := listenTCP(t)
	unused, unusedAddr := listenTCP(t)

	cfg := play.Config{Role: "net", Listens: []play.Listen{{Network: "unix", Addr: path}, {Network: "tcp", Addr: addr}, {Network: "tcp", Addr: "127.0.0.1:0"}}}
	s := testbin.Start(t, cfg, testbin.Env("LISTEN_FDS=3", "LISTEN_FDNAMES=web:web:left"), testbin.Files(tcp, unix, unused), testbin.OwnListenPID())
	tcp.Close()
	unix.Close()
	unused.Close()
	target := testbin.Lines("tcp", addr)
	load := testbin.NewLoad(t, target, testbin.Lines("unix", path))
	for i := range 3 {
		pid, addrs := s.Newest()
		load.WaitPID(pid)
		if i > 0 {
			// Ours has the name that it was asked for by.
			if got, want := testbin.Ask(t, target, "env LISTEN_FDNAMES"), "web:web:127.0.0.1%3A0"; got != want {
				t.Errorf("LISTEN_FDNAMES=%s, want %s", got, want)
			}
		}
		if got, want := testbin.Ask(t, target, "env LISTEN_PID"), strconv.Itoa(pid); got != want {
			t.Errorf("LISTEN_PID=%s, want %s", got, want)
		}
		if len(addrs) != 3 {
			t.Errorf("addresses: %v", addrs)
		}
		s.WaitLog(pid, "signals restart and stop this process")
		// What nobody asked for is closed when the process is ready.
		if c, err := net.Dial("tcp", unusedAddr); err == nil {
			c.Close()
			t.Errorf("%s is open, though nobody asked for it", unusedAddr)
		}
		old, _ := s.Restart()
		s.WaitReturned(old)
	}
	pid, _ := s.Newest()
	load.WaitPID(pid)
	s.WaitLog(pid, "signals restart and stop this process")
	load.Stop()
	s.Stop()
	if _, err := os.Lstat(path); err != nil {
		t.Errorf("the path of the manager: %v", err)
	}
}

// What announces no pid, or that of a wrapper, is taken if all of it listens;
// the parent is no grace process and gets no signal: it is this test.
func TestWrapper(t *testing.T) {
	for _, pid := range []string{"", "LISTEN_PID=1", fmt.Sprintf("LISTEN_PID=%d", os.Getpid())} {
		tcp, addr := listenTCP(t)
		s := testbin.Start(t, play.Config{Role: "net", Listens: []play.Listen{{Network: "tcp", Addr: addr}}},
			testbin.Env("LISTEN_FDS=1", pid), testbin.Files(tcp))
		tcp.Close()
		first, _ := s.Newest()
		if got := testbin.AskPID(t, testbin.Lines("tcp", addr)); got != first {
			t.Errorf("answered by %d, want %d", got, first)
		}
		s.WaitLog(first, "signals restart and stop this process")
		s.Stop()
	}
}
