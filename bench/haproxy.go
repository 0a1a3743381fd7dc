//go:build linux

package main

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"

	"github.com/facebookgo/grace/gracetest"
)

const nameHAProxy = "HAProxy"

// haproxySystem is HAProxy in master-worker mode; its listeners pass from worker to worker
// by the socket that "expose-fd listeners" is for. What is not /pid
// it asks backend for.
func haproxySystem(program string, backend *system) *system {
	sys := &system{name: nameHAProxy, slow: true}
	sys.start = func(t *scope, _ conditions) *server {
		t.Helper()
		behind := backend.start(t, conditions{})
		behind.waitUp()
		addr := gracetest.FreeAddr(t)
		dir := t.TempDir()
		config := filepath.Join(dir, "haproxy.cfg")
		text := fmt.Sprintf(`global
	stats socket %s mode 600 level admin expose-fd listeners
	maxconn 2000
defaults
	mode http
	timeout connect 5s
	timeout client 60s
	timeout server 60s
frontend public
	bind %s
	http-request return status 200 content-type text/plain lf-string %%pid if { path /pid }
	default_backend slow
backend slow
	server backend %s
`, filepath.Join(dir, "stats.sock"), addr, behind.addr)
		if err := os.WriteFile(config, []byte(text), 0o644); err != nil {
			t.Fatalf("configure HAProxy: %v", err)
		}
		s := &server{t: t, system: sys, addr: addr, master: true}
		s.Service = gracetest.Start(t, exec.Command(program, "-W", "-f", config))
		return s
	}
	return sys
}
