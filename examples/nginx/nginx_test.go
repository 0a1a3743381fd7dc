//go:build linux

package main

import (
	"os/exec"
	"strings"
	"testing"
	"time"

	"github.com/facebookgo/grace/examples/internal/nginx"
	"github.com/facebookgo/grace/gracetest"
)

// No client of nginx sees an error, and nginx keeps its connections over more restarts
// than it has connections.
func TestRestarts(t *testing.T) {
	app := gracetest.FreeAddr(t)
	s := gracetest.Start(t, exec.Command(gracetest.Build(t, "."), "-addr", app, "-standby", "100ms"))
	s.WaitAnswer(gracetest.Raw(gracetest.Request{URL: "http://" + app + "/"}))
	addr := gracetest.FreeAddr(t)
	nginx.Start(t, "127.0.0.1:8089", addr, "127.0.0.1:8079", app)
	url := "http://" + addr + "/"
	s.WaitAnswer(gracetest.Raw(gracetest.Request{URL: url}))
	clients := gracetest.Mix(url)
	restarts := len(clients) + 1
	r := s.Prove(gracetest.Plan{Clients: clients, Restarts: restarts, Standby: 100 * time.Millisecond})
	t.Log(r)
	processes, connections := make(map[string]bool), make(map[string]bool)
	for answer := range r.Answers {
		process, connection, ok := strings.Cut(answer, ", ")
		if !ok {
			t.Errorf("answer %q", answer)
		}
		processes[process], connections[connection] = true, true
	}
	t.Logf("%d processes, %d connections of nginx", len(processes), len(connections))
	if len(processes) != restarts+1 {
		t.Errorf("%d processes have answered, want %d", len(processes), restarts+1)
	}
	// It never needs more than one for each request under way.
	if len(connections) > len(clients) {
		t.Errorf("nginx has opened %d connections, want no more than the %d clients have requests", len(connections), len(clients))
	}
	s.Stop()
}
