//go:build linux

package main

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"syscall"

	"github.com/facebookgo/grace/gracetest"
)

// The two ways to restart nginx: new workers, and a new binary.
const (
	nameReload  = "nginx HUP"
	nameUpgrade = "nginx USR2"
)

// nginxSystems are nginx with the settings of Debian, but that it does not end a
// connection after 1000 requests. What is not /pid they ask backend for.
func nginxSystems(program string, backend *system) []*system {
	reload := &system{name: nameReload, slow: true}
	reload.start = func(t *scope, _ conditions) *server {
		s := startNginx(t, reload, program, backend)
		s.RestartSignal, s.master = syscall.SIGHUP, true
		return s
	}
	upgrade := &system{name: nameUpgrade, slow: true}
	upgrade.start = func(t *scope, _ conditions) *server {
		s := startNginx(t, upgrade, program, backend)
		s.RestartSignal, s.retire = syscall.SIGUSR2, syscall.SIGQUIT
		return s
	}
	return []*system{reload, upgrade}
}

func startNginx(t *scope, sys *system, program string, backend *system) *server {
	t.Helper()
	behind := backend.start(t, conditions{})
	behind.waitUp()
	addr := gracetest.FreeAddr(t)
	dir := t.TempDir()
	config := filepath.Join(dir, "nginx.conf")
	temporary := ""
	for _, kind := range []string{"client_body", "proxy", "fastcgi", "uwsgi", "scgi"} {
		temporary += fmt.Sprintf("\t%s_temp_path %s;\n", kind, filepath.Join(dir, kind))
	}
	text := fmt.Sprintf(`worker_processes auto;
pid %s;
error_log stderr;
events {
	worker_connections 768;
}
http {
	access_log off;
	sendfile on;
	tcp_nopush on;
	keepalive_requests 1000000000;
%s	server {
		listen %s;
		location = /pid {
			return 200 $pid;
		}
		location / {
			proxy_pass http://%s;
		}
	}
}
`, filepath.Join(dir, "nginx.pid"), temporary, addr, behind.addr)
	if err := os.WriteFile(config, []byte(text), 0o644); err != nil {
		t.Fatalf("configure nginx: %v", err)
	}
	s := &server{t: t, system: sys, addr: addr}
	// An nginx whose parent is the one that started it takes itself for a new binary, and
	// ignores SIGUSR2. So a shell starts it, and goes.
	s.Service = gracetest.Launch(t, program, func(s *gracetest.Service) *exec.Cmd {
		return exec.Command("/bin/sh", "-c", `"$0" "$@" & wait`, s.Path(), "-c", config, "-e", "stderr", "-g", "daemon off;")
	})
	s.WaitAnswer(s.fresh())
	shell := s.PID()
	children := t.children(shell)
	if len(children) != 1 {
		t.Fatalf("the children of the shell of nginx are %v, want one", children)
	}
	s.Processes() // which finds nginx by its parent
	s.Signal(shell, syscall.SIGKILL)
	s.WaitExit(shell)
	s.Follow(children[0])
	return s
}
