//go:build linux

package supervisors_test

import (
	"slices"
	"testing"
	"time"

	"github.com/facebookgo/grace/internal/testbin"
	"github.com/facebookgo/grace/internal/testbin/play"
)

// load is clients that never try again.
type load struct {
	*testbin.Load
	hangUps []func()
}

// newLoad starts clients with fresh connections and clients that keep theirs, and
// more.
func newLoad(t *testing.T, more ...testbin.Target) *load {
	l := &load{}
	targets := append(more, testbin.HTTP("http", addr), testbin.HTTP("http", addr))
	for range 2 {
		target, hangUp := testbin.Kept(addr)
		targets, l.hangUps = append(targets, target), append(l.hangUps, hangUp)
	}
	l.Load = testbin.NewLoad(t, targets...)
	return l
}

// Stop ends the load, and closes the connections: a server that stops would wait
// for one more request on them.
func (l *load) Stop() {
	l.Load.Stop()
	for _, hangUp := range l.hangUps {
		hangUp()
	}
}

// Each reload makes another process the main one, and no client notices.
func TestReload(t *testing.T) {
	cfg := httpConfig()
	cfg.Standby = 300 * time.Millisecond
	a, pid := start(t, "app.service", cfg)
	a.expect("Type=notify", "NotifyAccess=main")
	invocation := "InvocationID=" + a.show("InvocationID")
	load := newLoad(t)
	load.WaitPID(pid)
	seen := []int{pid}
	for range 5 {
		old := pid
		pid = a.reload()
		load.WaitPID(pid)
		a.waitMain(pid)
		a.waitReturned(old)
		a.expect(unharmed...)
		a.expect(invocation)
		if slices.Contains(seen, pid) {
			t.Fatalf("pid %d again", pid)
		}
		seen = append(seen, pid)
	}
	load.Stop()
}

// A reload that comes during another one is not lost.
func TestReloadTwice(t *testing.T) {
	cfg := httpConfig()
	cfg.Standby = time.Hour
	a, first := start(t, "app.service", cfg)
	load := newLoad(t)
	load.WaitPID(first)
	cfg.Standby = 300 * time.Millisecond
	a.deploy(cfg)
	second := a.reload()
	n := len(a.events())
	// The main process is still the first one, which stands by and passes it on.
	if main := a.mainPID(); main != first {
		t.Fatalf("the main process is %d, want %d", main, first)
	}
	a.signal(first, reloadSignal)
	third := a.waitServing(n).PID
	load.WaitPID(third)
	a.waitMain(third)
	a.waitReturned(first)
	a.waitReturned(second)
	a.expect(unharmed...)
	load.Stop()
}

// A request that is in flight when the service is reloaded is answered, long after
// the next process has become the main one.
func TestReloadWithRequestInFlight(t *testing.T) {
	a, old := start(t, "app.service", httpConfig())
	request := a.ask("until " + appDir + "/done")
	pid := a.reload()
	a.waitMain(pid)
	a.expect(unharmed...)
	a.write("done", "")
	a.expectAnswer(request)
	a.waitReturned(old)
	a.expect(unharmed...)
}

// A signal for all processes of the service starts one more, whatever they do at
// that moment.
func TestReloadOfAll(t *testing.T) {
	cfg := httpConfig()
	cfg.Standby = 300 * time.Millisecond
	a, first := start(t, "app.service", cfg)
	load := newLoad(t)
	load.WaitPID(first)
	all := func() (pid int) {
		n := len(a.events())
		a.systemctl("kill", "--signal=USR2", a.unit)
		return a.waitServing(n).PID
	}
	started := func(want int) {
		t.Helper()
		n := 0
		for _, e := range a.events() {
			if e.Event == play.Serving && e.PID != first {
				n++
			}
		}
		if n != want {
			t.Errorf("%d processes were started, want %d", n, want)
		}
	}

	// One process is there.
	request := a.ask("until " + appDir + "/done")
	second := all()
	a.waitMain(second)
	a.waitLog(second, "the old process is told")
	started(1)

	// The first one drains.
	third := all()
	a.waitLog(first, "draining already, the request to restart is ignored")
	a.waitLog(second, "standing by")
	started(2)

	// And the second one stands by.
	fourth := all()
	a.waitMain(fourth)
	a.waitReturned(second)
	a.waitReturned(third)
	started(3)
	a.write("done", "")
	a.expectAnswer(request)
	a.waitReturned(first)
	a.expect(unharmed...)
	load.Stop()
	a.stop()
	a.expectStopped(fourth)
}
