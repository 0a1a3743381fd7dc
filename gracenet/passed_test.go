//go:build unix

package gracenet_test

import (
	"net"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/facebookgo/grace/internal/testbin"
	"github.com/facebookgo/grace/internal/testbin/play"
)

// roleWeb is an HTTP server that has a datagram socket and a file besides: the last of
// its addresses.
func roleWeb(cfg play.Config) error {
	last := len(cfg.Listens) - 1
	c, err := net1.ListenPacket("udp", cfg.Listens[last].Addr)
	if err != nil {
		return err
	}
	go testbin.ServePackets(c)
	if err := testbin.OpenFile(&net1, "file"); err != nil {
		return err
	}
	cfg.Listens = cfg.Listens[:last]
	return testbin.ServeHTTP(cfg, http.HandlerFunc(play.Handle))
}

// A version that is built with the original comes between two that have more than
// listeners: it starts, serves and takes over, and what it can't use is there for the
// next. What the service manager has made is still known as that.
func TestOldProcessBetween(t *testing.T) {
	udp := freeUDP(t)
	path := socketPath(t)
	l, err := net.ListenUnix("unix", &net.UnixAddr{Net: "unix", Name: path})
	managed := file(t, l, err)
	l.SetUnlinkOnClose(false)
	l.Close()
	tcp, tcpAddr := listenTCP(t)
	cfg := play.Config{Role: "web", Listens: []play.Listen{{Addr: tcpAddr}, {Network: "unix", Addr: path}, {Network: "udp", Addr: udp}}}
	s := testbin.Start(t, cfg, testbin.Files(tcp, managed), testbin.Env("LISTEN_FDS=2", "LISTEN_FDNAMES=a:b"), testbin.OwnListenPID())
	tcp.Close()
	managed.Close()
	target := testbin.HTTP("http", tcpAddr)
	pid, addrs := s.Newest()
	load := testbin.NewLoad(t, target)
	load.WaitPID(pid)
	before := testbin.Ask(t, target, "fds")
	for range 2 {
		if got := testbin.AskPID(t, testbin.Datagrams("udp", udp)); got != pid {
			t.Errorf("%s is answered by %d, want %d", udp, got, pid)
		}
		s.Install(testbin.OldGrace(t))
		parent, old := s.Restart()
		s.WaitReturned(parent)
		s.WaitExit(parent)
		load.WaitPID(old)
		s.Install(testbin.Executable(t))
		_, pid = s.Restart()
		s.WaitReturned(old)
		s.WaitExit(old)
		load.WaitPID(pid)
		if _, again := s.Newest(); !slices.Equal(again, addrs) {
			t.Errorf("addresses: %v, want %v", again, addrs)
		}
		testbin.SameDescriptors(t, target, before)
	}
	if got := testbin.AskPID(t, testbin.Datagrams("udp", udp)); got != pid {
		t.Errorf("%s is answered by %d, want %d", udp, got, pid)
	}
	load.Stop()
	s.Stop()
	there(t, path)
}

// What has a name and is no socket that listens is a file, if it was passed to this
// very process; what has none is the clear error, and so is a marker that lies.
func TestWhatIsPassed(t *testing.T) {
	plain := file(t, any(must(os.Create(filepath.Join(t.TempDir(), "plain-file")))), nil)
	listener, _ := listenTCP(t)
	const noFile = `gracenet: no file was inherited with the name "x" (nothing that has a name is left): file does not exist`
	for _, test := range []struct {
		name  string
		env   []string
		ours  bool
		files []*os.File
		want  string // what the role "takes" reports
	}{
		{"named", []string{"LISTEN_FDS=1", "LISTEN_FDNAMES=x"}, true, []*os.File{plain}, "got x, listener: no error"},
		{"other name", []string{"LISTEN_FDS=1", "LISTEN_FDNAMES=y"}, true, []*os.File{plain},
			strings.Replace(noFile, "nothing that has a name is left", "there is y (a file)", 1)},
		{"no name", []string{"LISTEN_FDS=1"}, true, []*os.File{plain}, "error inheriting socket fd 3: getsockopt: socket operation on non-socket"},
		{"empty name", []string{"LISTEN_FDS=2", "LISTEN_FDNAMES=:"}, true, []*os.File{listener, plain}, "error inheriting socket fd 4: getsockopt: socket operation on non-socket"},
		{"unknown", []string{"LISTEN_FDS=1", "LISTEN_FDNAMES=unknown"}, true, []*os.File{plain}, "error inheriting socket fd 3: getsockopt: socket operation on non-socket"},
		{"named, for another", []string{"LISTEN_FDS=1", "LISTEN_FDNAMES=x", "LISTEN_PID=1"}, false, []*os.File{plain}, "error inheriting socket fd 3: getsockopt: socket operation on non-socket"},
		{"a listener of that name", []string{"LISTEN_FDS=1", "LISTEN_FDNAMES=x"}, true, []*os.File{listener},
			strings.Replace(noFile, "nothing that has a name is left", "there is x", 1)},
		{"extra that is closed", []string{"LISTEN_FDS=0", "GRACE_HANDOVER=1 parent=1 extras=30+++x+7"}, false, nil, "error inheriting socket fd 30: bad file descriptor"},
		{"extra that is another", []string{"LISTEN_FDS=0", "GRACE_HANDOVER=1 parent=1 extras=3++n+x+7"}, false, []*os.File{plain}, "error inheriting socket fd 3: bad file descriptor"},
		{"extra that is standard error", []string{"LISTEN_FDS=0", "GRACE_HANDOVER=1 parent=1 extras=2++n+x+7"}, false, nil, noFile},
		{"table that is closed", []string{"LISTEN_FDS=0", "GRACE_HANDOVER=1 parent=1 table=30 tableinode=7"}, false, nil, noFile},
		{"table that is another", []string{"LISTEN_FDS=0", "GRACE_HANDOVER=1 parent=1 table=3 tableinode=7"}, false, []*os.File{plain}, noFile},
	} {
		t.Run(test.name, func(t *testing.T) {
			options := []testbin.Option{testbin.Env(test.env...), testbin.Files(test.files...)}
			if test.ours {
				options = append(options, testbin.OwnListenPID())
			}
			s := testbin.Launch(t, testbin.Executable(t), play.Config{Role: "takes"}, options...)
			e := s.Wait("the result", func(e play.Event) bool { return e.Event == play.Log })
			if e.Text != test.want {
				t.Errorf("got %q, want %q", e.Text, test.want)
			}
			s.WaitGone()
		})
	}
}

// roleTakes asks for the file x, and then for a listener.
func roleTakes(play.Config) error {
	f, err := net1.File("x")
	text := ""
	if err == nil {
		_, err := net1.Listen("tcp", "127.0.0.1:0")
		text = "got " + f.Name() + ", listener: no error"
		if err != nil {
			text = err.Error()
		}
	} else {
		text = err.Error()
	}
	play.Emit(play.Event{Event: play.Log, Text: text})
	return nil
}

// systemd keeps listeners and datagram sockets, and gives them back with the names that
// they were kept under. Files and what has a path it does not get.
func TestStore(t *testing.T) {
	notify, told := testbin.NotifySocket(t)
	cfg := play.Config{Role: "kinds", FDStore: true, Listens: []play.Listen{
		{Network: "tcp", Addr: "127.0.0.1:0"},
		{Network: "udp", Addr: ":0"},
		{Network: "file", Addr: "x"},
		{Network: "unixgram", Addr: socketPath(t)},
	}}
	s := testbin.Start(t, cfg, testbin.Env("NOTIFY_SOCKET="+notify))
	const tcp, udp = "FDNAME=grace.tcp.127.0.0.1%3A0", "FDNAME=grace.udp.%3A0"
	for _, want := range []string{"READY=1", "FDSTORE=1\n" + tcp + "\na descriptor", "FDSTORE=1\n" + udp + "\na descriptor"} {
		testbin.ExpectTold(t, told, want)
	}
	// Who does not ask for them any more says so.
	cfg.Listens = cfg.Listens[:1]
	s.Deploy(cfg)
	restarted(s)
	pid, _ := s.Newest()
	if got := testbin.WaitTold(t, told, "FDSTOREREMOVE=1"); got != "FDSTOREREMOVE=1\n"+udp {
		t.Errorf("told %q", got)
	}
	s.WaitLog(pid, "signals restart and stop this process")
	s.Stop()

	// After a crash.
	l, addr := listenTCP(t)
	c, err := net.ListenPacket("udp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	stored := file(t, c, nil)
	c.Close()
	cfg.Listens = []play.Listen{{Network: "tcp", Addr: "127.0.0.1:0"}, {Network: "udp", Addr: ":0"}}
	s = testbin.Start(t, cfg, testbin.Files(stored, l), testbin.Env("LISTEN_FDS=2", "LISTEN_FDNAMES=grace.udp.%3A0:grace.tcp.127.0.0.1%3A0"), testbin.OwnListenPID())
	for range 2 {
		pid, addrs := s.Newest()
		if want := []string{addr, c.LocalAddr().String()}; !slices.Equal(addrs, want) {
			t.Errorf("addresses: %v, want %v", addrs, want)
		}
		askAll(t, cfg, addrs, pid)
		restartedAlone(s)
	}
	pid, _ = s.Newest()
	s.WaitLog(pid, "signals restart and stop this process")
	s.Stop()
}
