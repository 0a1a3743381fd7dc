//go:build linux

package supervisors_test

import (
	"os"
	"strconv"
	"strings"
	"testing"
)

const pidFile = "/run/app/app.pid"

// A service that tells systemd nothing is followed by its PID file, at the latest when
// the old process leaves.
func TestPIDFile(t *testing.T) {
	cfg := httpConfig()
	cfg.PIDFile = pidFile
	for _, test := range []struct {
		name, unit string
		changes    []string
	}{
		{name: "simple", unit: "app-simple.service"},
		{name: "notify", unit: "app.service", changes: []string{"PIDFile=" + pidFile, "RuntimeDirectory=app"}},
	} {
		t.Run(test.name, func(t *testing.T) {
			a, pid := start(t, test.unit, cfg, test.changes...)
			a.expect("Type="+test.name, "PIDFile="+pidFile)
			load := newLoad(t)
			load.WaitPID(pid)
			for range 3 {
				old := pid
				request := a.ask("until " + appDir + "/done")
				pid = a.reload()
				load.WaitPID(pid)
				a.write("done", "")
				a.expectAnswer(request)
				a.waitReturned(old)
				a.waitMain(pid)
				a.expect(unharmed...)
				if err := os.Remove(appDir + "/done"); err != nil {
					t.Fatal(err)
				}
			}
			load.Stop()
			b, err := os.ReadFile(pidFile)
			if got := strings.TrimSpace(string(b)); err != nil || got != strconv.Itoa(pid) {
				t.Errorf("the PID file says %q, %v, want %d", got, err, pid)
			}
			a.stop()
			a.expectStopped(pid)
		})
	}
}
