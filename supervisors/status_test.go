//go:build linux

package supervisors_test

import (
	"fmt"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/facebookgo/grace/internal/testbin"
)

// waitStatus waits until systemctl status shows all these words.
func (a *app) waitStatus(words ...string) {
	a.t.Helper()
	testbin.Poll(a.t, fmt.Sprintf("a status with %q", words), func() bool {
		text := a.show("StatusText")
		for _, w := range words {
			if !strings.Contains(text, w) {
				return false
			}
		}
		return true
	})
}

// systemctl status tells which generation serves, and what became of a reload.
func TestStatus(t *testing.T) {
	cfg := httpConfig()
	cfg.Standby = time.Hour
	a, pid := start(t, "app.service", cfg)
	a.waitStatus("generation 1 serves")

	child := a.reload()
	a.waitStatus("generation 1 stands by", fmt.Sprint(child))
	a.signal(child, syscall.SIGKILL)
	a.waitStatus("generation 1 serves", "signal: killed")
	a.waitMain(pid)

	bad := cfg
	bad.Role = "exit"
	a.deploy(bad)
	// That it returns at once or with the reload makes no difference: ExecReload
	// has only to send a signal.
	a.systemctl("reload", a.unit)
	a.waitStatus("generation 1 serves", "restart failed", "exit status 7")
	a.waitMain(pid)
	a.expect(unharmed...)

	a.deploy(cfg)
	a.reload()
	a.waitLog(pid, "standing by")
	// A stop of the old process alone ends the standby.
	a.signal(pid, syscall.SIGTERM)
	a.waitStatus("generation 2 serves")

	request := a.ask("until " + appDir + "/done")
	a.waitMain(request.pid)
	a.stop()
	a.waitLog(request.pid, "draining")
	a.waitStatus("generation 2")
	if text := a.show("StatusText"); strings.Contains(text, "serves") {
		t.Errorf("status %q while the service stops", text)
	}
	a.write("done", "")
	a.expectAnswer(request)
	a.expectStopped(request.pid)
}
