//go:build linux

package supervisors_test

import (
	"os/exec"
	"strings"
	"testing"
	"time"

	"github.com/facebookgo/grace/internal/testbin/play"
)

// A reload returns when the new process serves. One that comes to nothing fails, and
// its reason stands with what the service writes; the old process is the main one still.
func TestReloadIsWaitedFor(t *testing.T) {
	cfg := httpConfig()
	cfg.Standby = 300 * time.Millisecond
	cfg.ControlSocket = "/run/app/control"
	a := install(t, "app-wait.service", cfg)
	if out, err := exec.Command("go", "build", "-o", appDir+"/gracectl", "github.com/facebookgo/grace/cmd/gracectl").CombinedOutput(); err != nil {
		t.Fatalf("build gracectl: %v\n%s", err, out)
	}
	a.systemctl("start", a.unit)
	pid := a.waitServing(0).PID
	load := newLoad(t)
	load.WaitPID(pid)
	for range 2 {
		n := len(a.events())
		a.systemctl("reload", a.unit)
		// It serves by now: no event is waited for.
		var next int
		for _, e := range a.events()[n:] {
			if e.Event == play.Serving {
				next = e.PID
			}
		}
		if next == 0 {
			t.Fatal("the reload returns before the new process serves")
		}
		a.waitMain(next)
		a.waitReturned(pid)
		pid = next
	}
	a.deploy(play.Config{Role: "exit"})
	out, err := exec.Command("systemctl", "reload", a.unit).CombinedOutput()
	if err == nil {
		t.Errorf("a reload that fails is a success: %s", out)
	}
	a.expect(unharmed...)
	if main := a.mainPID(); main != pid {
		t.Errorf("the main process is %d, want %d", main, pid)
	}
	a.waitEvent(0, "the reason where the service writes", func(e play.Event) bool {
		return strings.TrimSpace(e.Text) == "gracectl: new process exited before it was ready: exit status 7"
	})
	load.WaitMore(10)
	load.Stop()
}
