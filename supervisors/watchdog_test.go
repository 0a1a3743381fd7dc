//go:build linux

package supervisors_test

import (
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/facebookgo/grace/internal/testbin"
)

// watchdog is long enough for a busy machine: half of it is between two signs of life.
const watchdog = 6 * time.Second

// livesOn waits until pid has shown for more than a period of the watchdog that it
// lives.
func (a *app) livesOn(pid int) {
	a.t.Helper()
	last := func() time.Duration {
		usec, _ := strconv.ParseInt(a.show("WatchdogTimestampMonotonic"), 10, 64)
		return time.Duration(usec) * time.Microsecond
	}
	begin := last()
	testbin.Poll(a.t, "signs of life", func() bool { return last()-begin > watchdog || a.mainPID() != pid })
	if main := a.mainPID(); main != pid {
		a.t.Fatalf("the main process is %d, want %d", main, pid)
	}
	a.expect(unharmed...)
}

// Each process in its turn says that it lives: the first, also while it stands by
// for longer than a period, and the ones that follow.
func TestWatchdog(t *testing.T) {
	cfg := httpConfig()
	cfg.Standby = 3 * watchdog / 2
	a, pid := start(t, "app.service", cfg, "WatchdogSec="+watchdog.String())
	a.livesOn(pid)
	for range 2 {
		next := a.reload()
		a.waitMain(next)
		a.livesOn(next)
	}
}

// A process that does nothing any more is killed, and another one started.
func TestFrozen(t *testing.T) {
	for _, reloads := range []int{0, 1} {
		t.Run(strconv.Itoa(reloads)+" reloads", func(t *testing.T) {
			a, pid := start(t, "app.service", httpConfig(), "WatchdogSec="+watchdog.String())
			for range reloads {
				old := pid
				pid = a.reload()
				a.waitMain(pid)
				a.waitReturned(old)
			}
			n := len(a.events())
			a.signal(pid, syscall.SIGSTOP)
			next := a.waitServing(n).PID
			a.waitMain(next)
			a.expect("SubState=running", "NRestarts=1")
			if journal := a.journal(); !strings.Contains(journal, "Watchdog timeout") {
				t.Errorf("no watchdog has barked:\n%s", journal)
			}
		})
	}
}
