//go:build linux

package supervisors_test

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"

	"github.com/facebookgo/grace/internal/testbin"
	"github.com/facebookgo/grace/internal/testbin/play"
)

const adminPath = "/run/app-admin.sock"

// dgramSocket is one that the server does not know what to do with.
const dgramSocket = `[Socket]
ListenDatagram=127.0.0.1:8125
FileDescriptorName=statistics
Service=app.service
`

// inode tells whether a path is still the same socket.
func inode(t *testing.T, path string) uint64 {
	t.Helper()
	info, err := os.Lstat(path)
	if err != nil {
		t.Fatal(err)
	}
	return info.Sys().(*syscall.Stat_t).Ino
}

// The first connection starts the service. It gets all sockets, each under its
// name, and passes them on when it is reloaded. After a stop the next connection
// starts it again.
func TestSocketActivation(t *testing.T) {
	cfg := httpConfig()
	cfg.Listens = append(cfg.Listens, play.Listen{Network: "unix", Addr: adminPath})
	a := install(t, "app.service", cfg)
	a.example("app.socket")
	a.example("app-admin.socket")
	a.add("app-statistics.socket", dgramSocket)
	a.systemctl("daemon-reload")
	a.systemctl("start", "app.socket", "app-admin.socket", "app-statistics.socket")
	a.expect("ActiveState=inactive")
	before := inode(t, adminPath)

	http, admin := testbin.HTTP("http", addr), testbin.HTTP("unix", adminPath)
	for _, first := range []testbin.Target{http, admin} {
		a.expect("ActiveState=inactive")
		pid := testbin.AskPID(t, first)
		a.waitMain(pid)
		names := strings.Split(testbin.Ask(t, http, "env LISTEN_FDNAMES"), ":")
		slices.Sort(names)
		if got, want := fmt.Sprint(names), "[admin http statistics]"; got != want {
			t.Errorf("the sockets are %s, want %s", got, want)
		}
		load := newLoad(t, admin)
		for range 2 {
			old := pid
			pid = a.reload()
			load.WaitPID(pid)
			a.waitMain(pid)
			a.waitReturned(old)
			for _, target := range []testbin.Target{http, admin} {
				if got := testbin.AskPID(t, target); got != pid {
					t.Errorf("pid %d answers, want %d", got, pid)
				}
			}
			names := strings.Split(testbin.Ask(t, http, "env LISTEN_FDNAMES"), ":")
			for _, want := range []string{"admin", "http"} {
				if !slices.Contains(names, want) {
					t.Errorf("after a reload the sockets are %v, without %s", names, want)
				}
			}
			a.expect(unharmed...)
		}
		load.Stop()
		a.stop()
		a.expectStopped(pid)
		if inode(t, adminPath) != before {
			t.Errorf("%s is another socket", adminPath)
		}
	}
}

// With a socket of systemd no client notices that the service is stopped and
// started.
func TestRestartBehindSocket(t *testing.T) {
	a := install(t, "app.service", httpConfig())
	a.example("app.socket")
	a.systemctl("daemon-reload")
	a.systemctl("start", "app.socket", "app.service")
	load := newLoad(t)
	pid := a.mainPID()
	load.WaitPID(pid)
	for range 3 {
		a.systemctl("restart", "app.service")
		next := a.mainPID()
		if next == pid {
			t.Fatalf("pid %d is still the main process", pid)
		}
		pid = next
		load.WaitPID(pid)
	}
	load.Stop()
}

// activate makes systemd-socket-activate start the server, with these arguments.
func activate(args ...string) testbin.Option {
	return func(_ *testbin.Service, cmd *exec.Cmd) {
		path, err := exec.LookPath("systemd-socket-activate")
		if err != nil {
			path = err.Error() // which the start then says
		}
		// It empties the environment.
		cmd.Args = append([]string{path, "-E", play.EnvConfig, "-E", "GORACE"}, append(args, cmd.Path)...)
		cmd.Path = path
	}
}

// systemd-socket-activate is how developers try it out.
func TestSocketActivate(t *testing.T) {
	unixPath := filepath.Join(t.TempDir(), "socket")
	for _, test := range []struct {
		name   string
		args   []string
		listen play.Listen
		target testbin.Target
	}{
		{name: "tcp", args: []string{"-l", "127.0.0.1:8081", "--fdname=web"},
			listen: play.Listen{Addr: "127.0.0.1:8081"}, target: testbin.HTTP("http", "127.0.0.1:8081")},
		{name: "unix", args: []string{"-l", unixPath, "--fdname=local"},
			listen: play.Listen{Network: "unix", Addr: unixPath}, target: testbin.HTTP("unix", unixPath)},
		// A name too many, and a socket that nobody asks for.
		{name: "two sockets", args: []string{"-l", "127.0.0.1:8082", "-l", "127.0.0.1:8083", "--fdname=web:more:names"},
			listen: play.Listen{Addr: "127.0.0.1:8083"}, target: testbin.HTTP("http", "127.0.0.1:8083")},
	} {
		t.Run(test.name, func(t *testing.T) {
			cfg := httpConfig()
			cfg.Listens = []play.Listen{test.listen}
			s := testbin.Launch(t, testbin.Executable(t), cfg, activate(test.args...))
			testbin.Poll(t, "the socket", func() bool {
				_, err := test.target("")
				return err == nil
			})
			pid := s.Wait("the service", func(e play.Event) bool { return e.Event == play.Serving }).PID
			load := testbin.NewLoad(t, test.target, test.target)
			load.WaitPID(pid)
			for range 2 {
				old, next := s.Restart()
				load.WaitPID(next)
				s.WaitReturned(old)
			}
			load.Stop()
			s.Stop()
			// The path is that of the one who made the socket.
			if test.name == "unix" {
				inode(t, unixPath)
			}
		})
	}
}

// Datagram sockets are found by their address and by their name, and pass from process
// to process.
func TestSocketActivateDatagram(t *testing.T) {
	const log, dns = "127.0.0.1:8084", "127.0.0.1:8085"
	gram := filepath.Join(t.TempDir(), "socket")
	cfg := play.Config{Role: "kinds", Listens: []play.Listen{{Network: "udp", Addr: dns}, {Network: "packet", Addr: "log"}, {Network: "unixgram", Addr: gram}}}
	s := testbin.Launch(t, testbin.Executable(t), cfg, activate("-d", "-l", log, "-l", dns, "-l", gram, "--fdname=log:dns:gram"))
	testbin.Poll(t, "the sockets", func() bool { _, err := os.Lstat(gram); return err == nil })
	pid := testbin.AskPID(t, testbin.Datagrams("udp", log)) // which starts the service
	for range 3 {
		for network, addr := range map[string]string{"udp": log, "udp4": dns, "unixgram": gram} {
			if got := testbin.AskPID(t, testbin.Datagrams(network, addr)); got != pid {
				t.Errorf("%s is answered by %d, want %d", addr, got, pid)
			}
		}
		s.WaitLog(pid, "signals restart and stop this process")
		old, next := s.Restart()
		s.WaitReturned(old)
		s.WaitExit(old)
		pid = next
	}
	s.WaitLog(pid, "signals restart and stop this process")
	s.Stop()
	inode(t, gram)
}
