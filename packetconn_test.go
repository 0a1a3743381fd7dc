//go:build unix

package grace_test

import (
	"errors"
	"fmt"
	"io/fs"
	"net"
	"net/netip"
	"os"
	"path/filepath"
	"runtime"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/facebookgo/grace"
	"github.com/facebookgo/grace/gracenet"
	"github.com/facebookgo/grace/internal/testbin"
	"github.com/facebookgo/grace/internal/testbin/play"
)

// asker sends datagrams, and never again when no answer comes.
type asker struct {
	net.Conn
	number int
}

func newAsker(t *testing.T, network, addr string) *asker {
	t.Helper()
	var c net.Conn
	var err error
	if network == "unixgram" {
		// It needs an address that can be answered.
		own := filepath.Join(t.TempDir(), "client")
		c, err = net.DialUnix(network, &net.UnixAddr{Net: network, Name: own}, &net.UnixAddr{Net: network, Name: addr})
	} else {
		c, err = net.Dial(network, addr)
	}
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = c.Close() })
	return &asker{Conn: c}
}

func (a *asker) send(question string) error {
	a.number++
	_, err := fmt.Fprintf(a, "%d %s", a.number, question)
	return err
}

// answer returns the answer to the last question. One to another is an error, since
// none is sent twice.
func (a *asker) answer() (string, error) {
	if err := a.SetReadDeadline(time.Now().Add(testbin.Patience)); err != nil {
		return "", err
	}
	b := make([]byte, 1<<16)
	n, err := a.Read(b)
	if err != nil {
		return "", fmt.Errorf("datagram %d is lost: %w", a.number, err)
	}
	number, answer, _ := strings.Cut(string(b[:n]), " ")
	if number != strconv.Itoa(a.number) {
		return "", fmt.Errorf("got an answer to %s, want one to %d", number, a.number)
	}
	return answer, nil
}

func (a *asker) target(question string) (string, error) {
	if err := a.send(question); err != nil {
		return "", err
	}
	return a.answer()
}

func packetListens(dir string) []play.Listen {
	return []play.Listen{
		{Network: "udp", Addr: "127.0.0.1:0"},
		{Network: "udp4", Addr: "127.0.0.1:0"},
		{Network: "udp6", Addr: "[::1]:0"},
		{Network: "udp", Addr: ":0"},
		{Network: "unixgram", Addr: filepath.Join(dir, "datagrams")},
	}
}

// dialable is an address that a client can send to.
func dialable(addr string) string {
	if port, ok := strings.CutPrefix(addr, "[::]:"); ok {
		return "127.0.0.1:" + port
	}
	return addr
}

// Under a load of questions and answers not one datagram is lost, as none is without
// a restart; and the sockets are the same in each process.
func TestPacketsUnderLoad(t *testing.T) {
	for _, standby := range []time.Duration{0, 100 * time.Millisecond} {
		t.Run(standby.String(), func(t *testing.T) {
			dir := t.TempDir()
			cfg := play.Config{Role: "packets", Listens: packetListens(dir), Standby: standby}
			s := testbin.Start(t, cfg)
			pid, addrs := s.Newest()
			s.WaitLog(pid, waits)
			var targets []testbin.Target
			for i, l := range cfg.Listens {
				for range 4 {
					targets = append(targets, newAsker(t, l.Network, dialable(addrs[i])).target)
				}
			}
			load := testbin.NewLoad(t, targets...)
			load.WaitMore(2000)
			for range 10 {
				old, new := s.Restart()
				load.WaitPID(new)
				s.WaitReturned(old)
				s.WaitLog(new, waits)
				load.WaitMore(500)
			}
			load.Stop()
			if _, now := s.Newest(); fmt.Sprint(now) != fmt.Sprint(addrs) {
				t.Errorf("addresses changed from %v to %v", addrs, now)
			}
			s.Stop()
			if _, err := os.Lstat(filepath.Join(dir, "datagrams")); !errors.Is(err, fs.ErrNotExist) {
				t.Errorf("path after the stop: %v, want it gone", err)
			}
		})
	}
}

// On standby the old process reads nothing; it reads again when the new one dies, and
// what has come meanwhile is not lost.
func TestPacketsOnStandby(t *testing.T) {
	dir := t.TempDir()
	cfg := play.Config{Role: "packets", Listens: packetListens(dir), Standby: time.Hour}
	s := testbin.Start(t, cfg)
	parent, addrs := s.Newest()
	s.WaitLog(parent, waits)
	for range 2 {
		child := s.RestartPID(parent)
		s.WaitLog(parent, fmt.Sprintf("step=standby pid=%d child=%d", parent, child))
		s.Freeze(child)
		var askers []*asker
		for i, l := range cfg.Listens {
			for range 5 {
				a := newAsker(t, l.Network, dialable(addrs[i]))
				if err := a.send(""); err != nil {
					t.Fatal(err)
				}
				askers = append(askers, a)
			}
		}
		s.Signal(child, syscall.SIGKILL)
		for _, a := range askers {
			if got, err := a.answer(); err != nil || got != strconv.Itoa(parent) {
				t.Errorf("answer %q, %v, want one of %d", got, err, parent)
			}
		}
	}
	s.Signal(parent, syscall.SIGTERM)
	s.WaitGone()
}

// What the old process has read it answers, also when the new one reads already.
func TestSlowPacket(t *testing.T) {
	release := filepath.Join(t.TempDir(), "release")
	cfg := play.Config{Role: "packets", Listens: packetListens(t.TempDir())[:1]}
	s := testbin.Start(t, cfg)
	old, addrs := s.Newest()
	s.WaitLog(old, waits)
	slow, quick := newAsker(t, "udp", addrs[0]), newAsker(t, "udp", addrs[0])
	if err := slow.send("until " + release); err != nil {
		t.Fatal(err)
	}
	s.Wait("the slow question", func(e play.Event) bool { return e.Event == play.Asked })
	_, new := s.Restart()
	s.WaitLog(old, "draining")
	if got, err := quick.target(""); err != nil || got != strconv.Itoa(new) {
		t.Errorf("answer %q, %v, want one of %d", got, err, new)
	}
	if err := os.WriteFile(release, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	if got, err := slow.answer(); err != nil || got != strconv.Itoa(old) {
		t.Errorf("answer %q, %v, want one of %d", got, err, old)
	}
	s.WaitReturned(old)
	s.WaitLog(new, waits)
	s.Stop()
}

// A stop answers what has come before: there is more than can be read before the stop.
func TestStopAnswersPackets(t *testing.T) {
	cfg := play.Config{Role: "packets", Listens: packetListens(t.TempDir())}
	s := testbin.Start(t, cfg)
	pid, addrs := s.Newest()
	s.WaitLog(pid, waits)
	s.Freeze(pid)
	var askers []*asker
	for i, l := range cfg.Listens {
		n := 20
		if l.Network == "unixgram" {
			n = 1 // the socket holds 10 by default
		}
		for range 8 {
			a := newAsker(t, l.Network, dialable(addrs[i]))
			for range n {
				if err := a.send(""); err != nil {
					t.Fatal(err)
				}
			}
			askers = append(askers, a)
		}
	}
	s.Signal(pid, syscall.SIGTERM)
	s.Signal(pid, syscall.SIGCONT)
	b := make([]byte, 100)
	for _, a := range askers {
		if err := a.SetReadDeadline(time.Now().Add(testbin.Patience)); err != nil {
			t.Fatal(err)
		}
		for i := range a.number {
			if _, err := a.Read(b); err != nil {
				t.Fatalf("%s: %d of %d datagrams are answered: %v", a.RemoteAddr(), i, a.number, err)
			}
		}
	}
	s.WaitGone()
}

// A program that does not close its sockets holds the stop up for the TermTimeout.
func TestPacketsTermTimeout(t *testing.T) {
	s := testbin.Start(t, play.Config{Role: "packets", PreStart: "deaf", Listens: packetListens(t.TempDir())[:1], TermTimeout: 50 * time.Millisecond})
	pid, _ := s.Newest()
	s.WaitLog(pid, waits)
	s.Signal(pid, syscall.SIGTERM)
	if e := s.WaitReturned(pid); e.Text != "grace: TERM timeout in closing listeners" {
		t.Errorf("Wait returned %q", e.Text)
	}
	s.WaitGone()
}

// A process that is not ready yet reads nothing, whatever it has called.
func TestPacketsBeforeReady(t *testing.T) {
	cfg := play.Config{Role: "packets", Listens: packetListens(t.TempDir()), Standby: time.Hour}
	s := testbin.Start(t, cfg)
	parent, addrs := s.Newest()
	s.WaitLog(parent, waits)
	cfg.Says.Until = filepath.Join(t.TempDir(), "release")
	s.Deploy(cfg)
	s.Signal(parent, syscall.SIGUSR2)
	child := s.Wait("the new process to wait", func(e play.Event) bool { return e.Event == play.Asked }).PID
	answeredBy := func(pid int) {
		t.Helper()
		for i, l := range cfg.Listens {
			a := newAsker(t, l.Network, dialable(addrs[i]))
			for range 50 {
				if got, err := a.target(""); err != nil || got != strconv.Itoa(pid) {
					t.Fatalf("%s: answer %q, %v, want one of %d", l.Network, got, err, pid)
				}
			}
		}
	}
	answeredBy(parent)
	if err := os.WriteFile(cfg.Says.Until, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	s.WaitLog(parent, fmt.Sprintf("step=standby pid=%d child=%d", parent, child))
	answeredBy(child)
	s.Signal(child, syscall.SIGKILL)
	s.WaitLog(parent, fmt.Sprintf("step=take-back pid=%d child=%d", parent, child))
	answeredBy(parent)
	s.Signal(parent, syscall.SIGTERM)
	s.WaitGone()
}

// listenPacket is a packet connection of this process.
func listenPacket(t testing.TB) *grace.PacketConn {
	t.Helper()
	var n gracenet.Net
	c, err := n.ListenPacket("udp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	p := grace.NewPacketConn(c)
	t.Cleanup(func() { _ = p.Close() })
	return p
}

// bothWays runs a test with Forward and without, where there is Forward.
func bothWays(t *testing.T, test func(t *testing.T, c *grace.PacketConn)) {
	t.Run("plain", func(t *testing.T) { test(t, listenPacket(t)) })
	if runtime.GOOS == "linux" {
		t.Run("forward", func(t *testing.T) { test(t, listenForward(t)) })
	}
}

// listenForward is listenPacket with Forward.
func listenForward(t testing.TB) *grace.PacketConn {
	t.Helper()
	c := listenPacket(t)
	if err := c.Forward(func([]byte, netip.AddrPort) bool { return false }); err != nil {
		t.Fatal(err)
	}
	return c
}

func TestPacketConnDeadline(t *testing.T) {
	bothWays(t, func(t *testing.T, c *grace.PacketConn) {
		b := make([]byte, 100)
		for range 3 {
			if err := c.SetReadDeadline(time.Unix(1, 0)); err != nil {
				t.Fatal(err)
			}
			for range 2 {
				if _, _, err := c.ReadFrom(b); !errors.Is(err, os.ErrDeadlineExceeded) {
					t.Errorf("ReadFrom after the deadline: %v", err)
				}
				if _, _, err := c.ReadFromUDPAddrPort(b); !errors.Is(err, os.ErrDeadlineExceeded) {
					t.Errorf("ReadFromUDPAddrPort after the deadline: %v", err)
				}
			}
			if err := c.SetDeadline(time.Time{}); err != nil {
				t.Fatal(err)
			}
			if _, err := c.WriteTo([]byte("x"), c.LocalAddr()); err != nil {
				t.Fatal(err)
			}
			if n, from, err := c.ReadFrom(b); n != 1 || err != nil || from.String() != c.LocalAddr().String() {
				t.Errorf("read %d bytes from %v, %v", n, from, err)
			}
			read := make(chan error)
			go func() {
				_, _, err := c.ReadFrom(b)
				read <- err
			}()
			if err := c.SetReadDeadline(time.Now().Add(time.Millisecond)); err != nil {
				t.Fatal(err)
			}
			if err := <-read; !errors.Is(err, os.ErrDeadlineExceeded) {
				t.Errorf("ReadFrom at the deadline: %v", err)
			}
		}
	})
}

// Several readers get each datagram once, and Close ends them all.
func TestPacketConnReaders(t *testing.T) {
	bothWays(t, func(t *testing.T, c *grace.PacketConn) {
		const readers, datagrams = 4, 1000
		got, ended := make(chan string), make(chan error)
		for range readers {
			go func() {
				b := make([]byte, 100)
				for {
					n, _, err := c.ReadFrom(b)
					if err != nil {
						ended <- err
						return
					}
					got <- string(b[:n])
				}
			}()
		}
		seen := make(map[string]bool)
		for i := range datagrams {
			if _, err := c.WriteTo([]byte(strconv.Itoa(i)), c.LocalAddr()); err != nil {
				t.Fatal(err)
			}
			text := <-got // the socket holds only some of them
			if seen[text] {
				t.Errorf("datagram %s is read twice", text)
			}
			seen[text] = true
		}
		_ = c.Close()
		for range readers {
			if err := <-ended; err != grace.ErrAlreadyClosed {
				t.Errorf("a reader ends with %v, want ErrAlreadyClosed", err)
			}
		}
		if err := c.Close(); !errors.Is(err, net.ErrClosed) {
			t.Errorf("second Close: %v, want net.ErrClosed", err)
		}
	})
}

func TestPacketConnAllocatesNothing(t *testing.T) {
	bothWays(t, func(t *testing.T, c *grace.PacketConn) {
		send := toItself(t, c)
		if n := testing.AllocsPerRun(100, func() { send(1) }); n != 0 {
			t.Errorf("a datagram that is sent and read allocates %v times", n)
		}
	})
}

// udpConn is what a PacketConn and a connection of package net have for UDP.
type udpConn interface {
	net.PacketConn
	ReadFromUDPAddrPort([]byte) (int, netip.AddrPort, error)
	WriteToUDPAddrPort([]byte, netip.AddrPort) (int, error)
}

// toItself returns a function that sends n datagrams to c and reads them.
func toItself(tb testing.TB, c udpConn) func(n int) {
	to, b := netip.MustParseAddrPort(c.LocalAddr().String()), make([]byte, 100)
	return func(n int) {
		for range n {
			if _, err := c.WriteToUDPAddrPort(b[:10], to); err != nil {
				tb.Fatal(err)
			}
			if n, from, err := c.ReadFromUDPAddrPort(b); n != 10 || from != to || err != nil {
				tb.Fatal(n, from, err)
			}
		}
	}
}
