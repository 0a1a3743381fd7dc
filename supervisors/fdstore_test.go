//go:build linux

package supervisors_test

import (
	"fmt"
	"slices"
	"strings"
	"syscall"
	"testing"

	"github.com/facebookgo/grace/internal/testbin"
	"github.com/facebookgo/grace/internal/testbin/play"
)

// other is a second address.
const other = "127.0.0.1:8086"

// The sockets are in systemd's store: no connection is refused when the service
// crashes, whichever generation, or when systemctl restarts it.
func TestFDStore(t *testing.T) {
	cfg := httpConfig()
	cfg.Listens = append(cfg.Listens, play.Listen{Addr: other})
	cfg.FDStore = true
	a, pid := start(t, "app-fdstore.service", cfg)
	a.wait("NFileDescriptorStore", "2")

	t.Run("crash", func(t *testing.T) {
		a := a.in(t)
		load := testbin.NewLoad(t, patient, patient)
		for range 3 {
			load.WaitPID(pid)
			n := len(a.events())
			a.signal(pid, syscall.SIGKILL)
			pid = a.waitServing(n).PID
			a.waitMain(pid)
			load.WaitPID(pid)
		}
		a.wait("NFileDescriptorStore", "2")
		load.Stop()
	})
	t.Run("crash after a reload", func(t *testing.T) {
		a := a.in(t)
		load := testbin.NewLoad(t, patient, patient)
		for range 2 {
			old := pid
			pid = a.reload()
			a.waitMain(pid)
			a.waitReturned(old)
		}
		load.WaitPID(pid)
		a.wait("NFileDescriptorStore", "2")
		n := len(a.events())
		a.signal(pid, syscall.SIGKILL)
		pid = a.waitServing(n).PID
		a.waitMain(pid)
		load.WaitPID(pid)
		a.wait("NFileDescriptorStore", "2")
		load.Stop()
	})
	t.Run("systemctl restart", func(t *testing.T) {
		a := a.in(t)
		load := newLoad(t, testbin.HTTP("http", other))
		load.WaitPID(pid)
		for range 3 {
			n := len(a.events())
			a.systemctl("restart", a.unit)
			pid = a.waitServing(n).PID
			a.waitMain(pid)
			load.WaitPID(pid)
			a.wait("NFileDescriptorStore", "2")
		}
		load.Stop()
	})
	if got := testbin.AskPID(t, testbin.HTTP("http", other)); got != pid {
		t.Errorf("pid %d answers at %s, want %d", got, other, pid)
	}
	names := strings.Split(testbin.Ask(t, testbin.HTTP("http", addr), "env LISTEN_FDNAMES"), ":")
	slices.Sort(names)
	if got, want := fmt.Sprint(names), "[grace.tcp.%3A8080 grace.tcp.127.0.0.1%3A8086]"; got != want {
		t.Errorf("systemd has kept %s, want %s", got, want)
	}
	// What a later process does not ask for is not kept any longer.
	cfg.Listens = cfg.Listens[:1]
	a.deploy(cfg)
	pid = a.reload()
	a.waitMain(pid)
	a.wait("NFileDescriptorStore", "1")
	if got := testbin.AskPID(t, testbin.HTTP("http", addr)); got != pid {
		t.Errorf("pid %d answers, want %d", got, pid)
	}
	a.stop()
	a.wait("ActiveState", "inactive")
	a.expect("Result=success", "NFileDescriptorStore=0")
}

// in is a for a subtest.
func (a *app) in(t *testing.T) *app {
	b := *a
	b.t = t
	return &b
}

// Datagram sockets are kept as well, and two of the same words in their order.
func TestFDStoreDatagrams(t *testing.T) {
	cfg := play.Config{Role: "kinds", FDStore: true, Listens: []play.Listen{
		{Network: "tcp", Addr: "127.0.0.1:0"}, {Network: "tcp", Addr: "127.0.0.1:0"}, {Network: "udp", Addr: "127.0.0.1:0"}, {Network: "udp", Addr: "127.0.0.1:0"},
	}}
	a, pid := start(t, "app-fdstore.service", cfg)
	want := a.waitServing(0).Addrs
	for range 3 {
		a.wait("NFileDescriptorStore", "4")
		n := len(a.events())
		a.signal(pid, syscall.SIGKILL)
		e := a.waitServing(n)
		pid = e.PID
		a.waitMain(pid)
		if !slices.Equal(e.Addrs, want) {
			t.Errorf("addresses after a crash: %v, want %v", e.Addrs, want)
		}
		if got := testbin.AskPID(t, testbin.Datagrams("udp", want[2])); got != pid {
			t.Errorf("answered by %d, want %d", got, pid)
		}
	}
	a.stop()
	a.wait("ActiveState", "inactive")
}
