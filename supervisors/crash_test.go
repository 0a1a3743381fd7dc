//go:build linux

package supervisors_test

import (
	"fmt"
	"net"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/facebookgo/grace/internal/testbin"
	"github.com/facebookgo/grace/internal/testbin/play"
)

// patient asks on fresh connections, and bears that the process dies that has got
// the request; but it must always find a socket that listens.
func patient(question string) (string, error) {
	c, err := testbin.TryDial(play.Listen{}, addr)
	if err != nil {
		return "", err
	}
	defer c.Close()
	if _, err := c.Write([]byte(testbin.Request(question))); err != nil {
		return "cut", nil
	}
	reply, err := c.TryReceive()
	if err != nil {
		if timeout, ok := err.(net.Error); ok && timeout.Timeout() {
			return "", err
		}
		return "cut", nil
	}
	return reply.Body, nil
}

// expectCrash checks that systemd has learned how the process ended, and has
// started another one.
func (a *app) expectCrash(next int) {
	a.t.Helper()
	a.waitMain(next)
	a.expect("SubState=running", "NRestarts=1")
	if journal := a.journal(); !strings.Contains(journal, "Main process exited, code=killed, status=9/KILL") {
		a.t.Errorf("systemd does not say that the main process was killed:\n%s", journal)
	}
}

// A process that has taken over and crashes is started anew.
func TestCrash(t *testing.T) {
	a, old := start(t, "app.service", httpConfig())
	pid := a.reload()
	a.waitMain(pid)
	a.waitReturned(old)
	n := len(a.events())
	a.signal(pid, syscall.SIGKILL)
	a.expectCrash(a.waitServing(n).PID)
}

// So is one that crashes while the process before it still finishes a request.
// This one would never come to an end, so whoever waits for it waits too long. No
// connection is refused meanwhile, since systemd has the socket as well.
func TestCrashDuringDrain(t *testing.T) {
	a := install(t, "app.service", httpConfig())
	a.example("app.socket")
	a.systemctl("daemon-reload")
	a.systemctl("start", "app.socket", "app.service")
	load := testbin.NewLoad(t, patient, patient)
	old := a.waitServing(0).PID
	request := a.ask("until " + appDir + "/never")
	if request.pid != old {
		t.Fatalf("process %d has the request, want %d", request.pid, old)
	}
	pid := a.reload()
	a.waitMain(pid)
	load.WaitPID(pid)
	n := len(a.events())
	a.signal(pid, syscall.SIGKILL)
	next := a.waitServing(n).PID
	a.expectCrash(next)
	load.WaitPID(next)
	load.Stop()
	testbin.Poll(t, "the old process to leave", func() bool { return syscall.Kill(old, 0) == syscall.ESRCH })
}

// A process that dies on standby is no crash of the service: the one before it
// takes the sockets back, and was the main process all the time.
func TestDeathOnStandby(t *testing.T) {
	cfg := httpConfig()
	cfg.Standby = time.Hour
	a, pid := start(t, "app.service", cfg)
	load := testbin.NewLoad(t, patient, patient)
	for range 2 {
		child := a.reload()
		a.waitLog(pid, fmt.Sprintf("standing by child=%d", child))
		load.WaitPID(child)
		a.signal(child, syscall.SIGKILL)
		a.waitLog(pid, fmt.Sprintf("serves again child=%d", child))
		a.waitMain(pid)
		if got := testbin.AskPID(t, testbin.HTTP("http", addr)); got != pid {
			t.Errorf("pid %d answers, want %d", got, pid)
		}
		a.expect(unharmed...)
	}
	load.Stop()
}
