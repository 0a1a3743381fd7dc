//go:build unix

package main

import (
	"os"
	"os/exec"
	"path/filepath"
	"testing"
	"time"

	"github.com/facebookgo/grace/examples/internal/nginx"
	"github.com/facebookgo/grace/gracetest"
)

// No client of nginx sees an error.
func TestRestarts(t *testing.T) {
	socket := filepath.Join(t.TempDir(), "socket")
	s := gracetest.Start(t, exec.Command(gracetest.Build(t, "."), "-socket", socket, "-standby", "200ms"))
	s.WaitAnswer(gracetest.Raw(gracetest.Request{URL: "http://app/", Unix: socket}))
	addr := gracetest.FreeAddr(t)
	nginx.Start(t, "127.0.0.1:8088", addr, "/tmp/app.socket", socket)
	url := "http://" + addr + "/"
	s.WaitAnswer(gracetest.Raw(gracetest.Request{URL: url}))
	t.Log(s.Prove(gracetest.Plan{Clients: gracetest.Mix(url), Restarts: 5, Standby: 200 * time.Millisecond}))
	s.Stop()
	if _, err := os.Stat(socket); !os.IsNotExist(err) {
		t.Errorf("the socket is left behind: %v", err)
	}
}
