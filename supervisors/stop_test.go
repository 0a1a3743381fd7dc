//go:build linux

package supervisors_test

import (
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/facebookgo/grace/internal/testbin"
	"github.com/facebookgo/grace/internal/testbin/play"
)

// stop begins to stop the service.
func (a *app) stop() {
	a.t.Helper()
	a.systemctl("stop", "--no-block", a.unit)
}

// expectStopped waits until the service has ended in good order: nobody was killed,
// and the server has done all it does in the end. That systemd has to say nothing
// against it is not enough.
func (a *app) expectStopped(pids ...int) {
	a.t.Helper()
	testbin.Poll(a.t, "the service to end", func() bool {
		state := a.show("ActiveState")
		return state == "inactive" || state == "failed"
	})
	for _, pid := range pids {
		a.waitReturned(pid)
	}
	a.expect("Result=success", "MainPID=0", "NRestarts=0")
}

// A stop lets the process that has taken over answer what it was asked, also when
// it is the only one by then. systemd does not wait for a main process that was not
// its own child when it was named, if it is alone.
func TestStopAfterReload(t *testing.T) {
	a, old := start(t, "app.service", httpConfig())
	pid := a.reload()
	a.waitMain(pid)
	a.waitReturned(old)
	testbin.Poll(t, "the old process to leave", func() bool { return syscall.Kill(old, 0) == syscall.ESRCH })
	request := a.ask("until " + appDir + "/done")
	a.stop()
	testbin.Poll(t, "the stop to begin", func() bool { return a.show("ActiveState") != "active" })
	a.write("done", "")
	a.expectAnswer(request)
	a.expectStopped(pid)
}

// A stop during a drain ends both processes, and both answer their requests first,
// also the one that is alone in the end.
func TestStopDuringDrain(t *testing.T) {
	a, old := start(t, "app.service", httpConfig())
	first := a.ask("until " + appDir + "/done")
	pid := a.reload()
	a.waitMain(pid)
	second := a.ask("until " + appDir + "/done-first")
	a.stopBoth(old, pid, first, second)
}

// So does a stop during the standby. The one on standby is the main process still.
func TestStopOnStandby(t *testing.T) {
	cfg := httpConfig()
	cfg.Standby = time.Hour
	a, old := start(t, "app.service", cfg)
	// The new process can't know that systemd does not change its mind during a stop.
	a.bears = "reception only permitted"
	first := a.ask("until " + appDir + "/done-first")
	pid := a.reload()
	a.waitLog(old, "standing by")
	second := a.ask("until " + appDir + "/done")
	a.stopBoth(pid, old, second, first)
}

// stopBoth stops a service of two processes. The main one has the request that can
// be done first, and the other one is told once more then.
func (a *app) stopBoth(other, main int, last, first *slow) {
	a.t.Helper()
	if got := a.mainPID(); got != main || first.pid != main || last.pid != other {
		a.t.Fatalf("the main process is %d, and %d and %d have the requests, want %d and %d", got, first.pid, last.pid, main, other)
	}
	a.stop()
	a.waitLog(other, "draining")
	a.waitLog(main, "draining")
	n := len(a.events())
	a.write("done-first", "")
	a.expectAnswer(first)
	a.waitEvent(n, "the second signal", func(e play.Event) bool {
		return e.PID == other && strings.Contains(e.Text, "draining already")
	})
	a.expect("SubState=final-sigterm")
	a.write("done", "")
	a.expectAnswer(last)
	a.expectStopped(main, other)
}

// A process that drains and never comes to an end by itself does not hold up the
// stop: its own StopTimeout ends it, not the SIGKILL of systemd.
func TestStopDuringLongDrain(t *testing.T) {
	cfg := httpConfig()
	cfg.IdleGrace, cfg.StopTimeout, cfg.KillTimeout = 0, 5*time.Second, time.Second
	a, old := start(t, "app.service", cfg)
	first := a.ask("until " + appDir + "/never")
	cfg.StopTimeout = 0 // the new one has time
	a.deploy(cfg)
	pid := a.reload()
	a.waitMain(pid)
	second := a.ask("sleep 2s")
	if first.pid != old || second.pid != pid {
		t.Fatalf("processes %d and %d have the requests, want %d and %d", first.pid, second.pid, old, pid)
	}
	a.stop()
	a.expectAnswer(second)
	if answer := <-first.answer; !strings.Contains(answer, "EOF") {
		t.Errorf("the request gets %q, want the end of the connection", answer)
	}
	a.expectStopped(old, pid)
}

// timeoutStop is how soon systemd kills a service that does not ask for more time: as
// soon as a busy machine may be sure to let it ask.
const timeoutStop = "TimeoutStopSec=5s"

// A stop may take as long as the server was configured to, also if that is longer
// than TimeoutStopSec.
func TestStopTakesLong(t *testing.T) {
	cfg := httpConfig()
	cfg.IdleGrace = 0
	a, pid := start(t, "app.service", cfg, timeoutStop)
	request := a.ask("sleep 8s")
	a.stop()
	a.expectAnswer(request)
	a.expectStopped(pid)
}

// So may a stop with a delay, during which the server goes on accepting.
func TestStopDelayTakesLong(t *testing.T) {
	cfg := httpConfig()
	cfg.StopDelay = 8 * time.Second
	a, pid := start(t, "app.service", cfg, timeoutStop)
	a.stop()
	a.waitLog(pid, "stopping soon")
	a.expectStopped(pid)
}

// A request that takes longer than StopTimeout does not hold up the stop.
func TestStopTimeout(t *testing.T) {
	cfg := httpConfig()
	cfg.IdleGrace, cfg.StopTimeout, cfg.KillTimeout = 0, time.Second, time.Second
	a, pid := start(t, "app.service", cfg)
	request := a.ask("until " + appDir + "/never")
	a.stop()
	a.waitLog(pid, "requests take too long")
	if answer := <-request.answer; !strings.Contains(answer, "EOF") {
		t.Errorf("the request gets %q, want the end of the connection", answer)
	}
	a.expectStopped(pid)
}
