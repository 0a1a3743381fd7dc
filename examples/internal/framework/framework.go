//go:build unix

// Package framework tests the examples with frameworks, which do the same.
package framework

import (
	"io"
	"net/http"
	"os/exec"
	"strings"
	"testing"
	"time"

	"github.com/facebookgo/grace/gracetest"
)

// TestRestarts builds the program in the working directory and restarts it. No request is
// lost, and a stream ends before its process does, with its last event.
func TestRestarts(t *testing.T, last string) {
	addr := gracetest.FreeAddr(t)
	url := "http://" + addr + "/"
	s := gracetest.Start(t, exec.Command(gracetest.Build(t, "."), "-addr", addr, "-standby", "200ms"))
	s.WaitAnswer(gracetest.Raw(gracetest.Request{URL: url}))
	resp, err := http.Get(url + "clock")
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	t.Log(s.Prove(gracetest.Plan{Clients: gracetest.Mix(url), Restarts: 5, Standby: 200 * time.Millisecond}))
	events, err := io.ReadAll(resp.Body)
	if err != nil || !strings.HasSuffix(string(events), "\n\n"+last) {
		t.Errorf("the stream ends with %q, %v, want %q", events, err, last)
	}
	s.Stop()
}
