//go:build unix

package main

import (
	"fmt"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"testing"
	"time"

	"github.com/facebookgo/grace/gracectl"
	"github.com/facebookgo/grace/gracetest"
)

// service is the program with three addresses that nobody else has.
type service struct {
	*gracetest.Service
	site, api, health string // URLs
	pidFile, control  string
}

func start(t *testing.T, args ...string) *service {
	t.Helper()
	site, api, admin := gracetest.FreeAddr(t), gracetest.FreeAddr(t), gracetest.FreeAddr(t)
	dir := t.TempDir()
	s := &service{
		site: "http://" + site + "/", api: "http://" + api + "/", health: "http://" + admin + "/health",
		pidFile: filepath.Join(dir, "pid"), control: filepath.Join(dir, "control"),
	}
	args = append(args, "-site", site, "-api", api, "-admin", admin, "-pid-file", s.pidFile, "-control", s.control)
	s.Service = gracetest.Start(t, exec.Command(gracetest.Build(t, "."), args...))
	s.WaitAnswer(gracetest.Raw(gracetest.Request{URL: s.health}))
	return s
}

// No request is lost on any of the addresses, and the PID file and the control socket
// are those of the process that serves.
func TestRestarts(t *testing.T) {
	s := start(t, "-standby", "200ms")
	t.Log(s.Prove(gracetest.Plan{
		Clients:  gracetest.Mix(s.site, s.api, s.health),
		Restarts: 5,
		Standby:  200 * time.Millisecond,
	}))
	pid, err := os.ReadFile(s.pidFile)
	if want := fmt.Sprintf("%d\n", s.PID()); err != nil || string(pid) != want {
		t.Errorf("the PID file says %q, %v, want %q", pid, err, want)
	}
	status, err := (&gracectl.Client{Path: s.control}).Status(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	if status.Generation != 6 {
		t.Errorf("the control socket is that of generation %d, want 6", status.Generation)
	}
	s.Stop()
	for _, path := range []string{s.pidFile, s.control} {
		if _, err := os.Stat(path); !os.IsNotExist(err) {
			t.Errorf("%s is left behind: %v", filepath.Base(path), err)
		}
	}
}

// Before the service stops it says so, and answers meanwhile.
func TestHealth(t *testing.T) {
	s := start(t, "-stop-delay", "1h")
	s.Signal(s.PID(), s.StopSignal)
	gracetest.Poll(t, "/health to say 503", func() bool {
		resp, err := http.Get(s.health)
		if err != nil {
			t.Fatal(err)
		}
		defer resp.Body.Close()
		return resp.StatusCode == http.StatusServiceUnavailable
	})
	if _, err := gracetest.HTTP(gracetest.Request{URL: s.site}).Do(); err != nil {
		t.Errorf("the site does not answer any more: %v", err)
	}
	// The test ends the delay: a second signal kills, as at a terminal.
	s.Signal(s.PID(), s.StopSignal)
	s.WaitGone()
}
