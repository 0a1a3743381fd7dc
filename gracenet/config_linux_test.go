package gracenet_test

import (
	"errors"
	"fmt"
	"net"
	"os"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/facebookgo/grace/gracenet"
	"github.com/facebookgo/grace/internal/testbin"
	"github.com/facebookgo/grace/internal/testbin/play"
	"golang.org/x/sys/unix"
)

func init() { roles = append(roles, testbin.Role{Name: "options", Serve: roleOptions}) }

var errControl = errors.New("control was called")

// control sets options of a fresh socket.
func control(network, _ string, c syscall.RawConn) (err error) {
	controlErr := c.Control(func(fd uintptr) {
		err = unix.SetsockoptInt(int(fd), unix.SOL_SOCKET, unix.SO_PRIORITY, 3)
		if err == nil && strings.HasPrefix(network, "tcp") {
			err = unix.SetsockoptInt(int(fd), unix.IPPROTO_TCP, unix.TCP_FASTOPEN, 16)
		}
	})
	return errors.Join(controlErr, err)
}

// options tells what is set: the priority, whether there is fast open, and the protocol.
func options(c any) string {
	raw, err := c.(syscall.Conn).SyscallConn()
	if err != nil {
		return err.Error()
	}
	var text string
	get := func(fd uintptr, level, option int) int {
		v, _ := unix.GetsockoptInt(int(fd), level, option)
		return v
	}
	err = raw.Control(func(fd uintptr) {
		text = fmt.Sprint(get(fd, unix.SOL_SOCKET, unix.SO_PRIORITY), get(fd, unix.IPPROTO_TCP, unix.TCP_FASTOPEN) == 16, get(fd, unix.SOL_SOCKET, unix.SO_PROTOCOL))
	})
	if err != nil {
		return err.Error()
	}
	return text
}

// roleOptions sets options of its sockets, the first time only. The first listener has
// multipath TCP.
func roleOptions(cfg play.Config) error {
	var configured, multipath gracenet.Net
	configured.ListenConfig.Control = control
	configured.ListenConfig.SetMultipathTCP(false)
	multipath.ListenConfig.SetMultipathTCP(true)
	if os.Getenv("LISTEN_FDS") != "" { // nobody must ask for it
		fails := func(string, string, syscall.RawConn) error { return errControl }
		configured.ListenConfig.Control, multipath.ListenConfig.Control = fails, fails
	}
	var listeners []net.Listener
	var set []string
	for i, l := range cfg.Listens {
		n := &configured
		if i == 0 {
			n = &multipath
		}
		var c any
		var err error
		switch l.Network {
		case "udp", "unixgram":
			c, err = n.ListenPacket(l.Network, l.Addr)
		default:
			var l2 net.Listener
			l2, err = n.Listen(l.Network, l.Addr)
			c, listeners = l2, append(listeners, l2)
		}
		if err != nil {
			return err
		}
		set = append(set, options(c))
	}
	return testbin.ServeLines(cfg, listeners, func(int, string) string { return strings.Join(set, ", ") })
}

// Options are set when a socket is made, and belong to it in each process.
func TestListenConfig(t *testing.T) {
	cfg := play.Config{Role: "options", Listens: []play.Listen{
		{Network: "tcp", Addr: "127.0.0.1:0"},
		{Network: "tcp", Addr: "127.0.0.1:0"},
		{Network: "unix", Addr: socketPath(t)},
		{Network: "udp", Addr: "127.0.0.1:0"},
		{Network: "unixgram", Addr: socketPath(t)},
	}}
	multipath := unix.IPPROTO_MPTCP
	if setting, err := os.ReadFile("/proc/sys/net/mptcp/enabled"); err != nil || strings.TrimSpace(string(setting)) != "1" {
		multipath = unix.IPPROTO_TCP // the kernel has none
	}
	want := fmt.Sprintf("0 false %d, 3 true 6, 3 false 0, 3 false 17, 3 false 0", multipath)
	s := testbin.Start(t, cfg)
	for range 3 {
		pid, addrs := s.Newest()
		if got := testbin.Ask(t, testbin.Lines("tcp", addrs[0]), ""); got != want {
			t.Errorf("options in process %d: %s, want %s", pid, got, want)
		}
		restarted(s)
	}
	pid, _ := s.Newest()
	s.WaitLog(pid, "signals restart and stop this process")
	s.Stop()
}

// The error of Control comes back, and nothing is left of the socket.
func TestListenConfigError(t *testing.T) {
	n := gracenet.Net{ReplaceStale: true}
	n.ListenConfig.Control = func(string, string, syscall.RawConn) error { return errControl }
	path := socketPath(t)
	var errs []error
	for _, network := range []string{"tcp", "tcp4", "unix", "unixpacket"} {
		addr := "127.0.0.1:0"
		if strings.HasPrefix(network, "unix") {
			addr = path
		}
		l, err := n.Listen(network, addr)
		if l != nil {
			t.Errorf("%s: there is a listener on %v", network, l.Addr())
		}
		errs = append(errs, err)
	}
	for _, network := range []string{"udp", "udp4", "unixgram"} {
		addr := "127.0.0.1:0"
		if network == "unixgram" {
			addr = path
		}
		c, err := n.ListenPacket(network, addr)
		if c != nil {
			t.Errorf("%s: there is a socket on %v", network, c.LocalAddr())
		}
		errs = append(errs, err)
	}
	for i, err := range errs {
		var op *net.OpError
		if !errors.Is(err, errControl) || !errors.As(err, &op) {
			t.Errorf("call %d: %v", i, err)
		}
	}
	gone(t, path)
}

// Keep-alive probes are those of the configuration.
func TestListenConfigKeepAlive(t *testing.T) {
	n := gracenet.Net{ListenConfig: net.ListenConfig{KeepAliveConfig: net.KeepAliveConfig{Enable: true, Idle: 77 * time.Second}}}
	l := listen(t, &n, "tcp", "127.0.0.1:0")
	client, err := net.Dial("tcp", l.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	defer client.Close()
	c, err := l.Accept()
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	raw, err := c.(*net.TCPConn).SyscallConn()
	if err != nil {
		t.Fatal(err)
	}
	idle := 0
	if controlErr := raw.Control(func(fd uintptr) { idle, err = unix.GetsockoptInt(int(fd), unix.IPPROTO_TCP, unix.TCP_KEEPIDLE) }); controlErr != nil || err != nil {
		t.Fatal(controlErr, err)
	}
	if idle != 77 {
		t.Errorf("probes after %d s, want 77", idle)
	}
}
