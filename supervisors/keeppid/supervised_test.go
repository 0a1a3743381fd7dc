//go:build linux

package keeppid_test

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/facebookgo/grace/gracetest"
	"github.com/facebookgo/grace/internal/testbin"
	"github.com/facebookgo/grace/internal/testbin/play"
)

// example reads a file that the documentation shows, for a program at another
// place.
func example(t *testing.T, name, program string) string {
	t.Helper()
	b, err := os.ReadFile(filepath.Join("../../examples", name))
	if err != nil {
		t.Fatal(err)
	}
	if !strings.Contains(string(b), "/opt/app/app") {
		t.Fatalf("%s does not run /opt/app/app", name)
	}
	return strings.ReplaceAll(string(b), "/opt/app/app", program)
}

func write(t *testing.T, name, text string, mode os.FileMode) {
	t.Helper()
	err := os.MkdirAll(filepath.Dir(name), 0o755)
	if err == nil {
		err = os.WriteFile(name, []byte(text), mode)
	}
	if err != nil {
		t.Fatal(err)
	}
}

func TestSupervisord(t *testing.T) {
	supervisord, ctl := look(t, "supervisord", "supervisor"), look(t, "supervisorctl", "supervisor")
	dir := t.TempDir()
	conf := filepath.Join(dir, "supervisord.conf")
	write(t, conf, fmt.Sprintf(`[supervisord]
nodaemon=true
logfile=%[1]s/supervisord.log
pidfile=%[1]s/supervisord.pid
[unix_http_server]
file=%[1]s/s
[rpcinterface:supervisor]
supervisor.rpcinterface_factory = supervisor.rpcinterface:make_main_rpcinterface
[supervisorctl]
serverurl=unix://%[1]s/s
%s`, dir, example(t, "supervisord/app.conf", dir+"/app")), 0o644)
	cmd := exec.Command(supervisord, "-c", conf)
	supervised(t, dir, cmd, dir+"/supervisord.log", "stopped: app (exit status 0)", func(args ...string) string {
		switch args[0] {
		case "restart":
			args = []string{"signal", "USR2", "app"}
		case "pid":
			args = []string{"pid", "app"}
		case "stop":
			args = []string{"stop", "app"}
		}
		out, err := exec.Command(ctl, append([]string{"-c", conf}, args...)...).CombinedOutput()
		if err != nil {
			return ""
		}
		return string(out)
	})
}

func TestRunit(t *testing.T) {
	runsv, sv := look(t, "runsv", "runit"), look(t, "sv", "runit")
	dir := t.TempDir()
	service := filepath.Join(dir, "service")
	write(t, filepath.Join(service, "run"), example(t, "runit/run", dir+"/app"), 0o755)
	ended := filepath.Join(dir, "ended")
	write(t, filepath.Join(service, "finish"), "#!/bin/sh\necho exit status $1 >>"+ended+"\n", 0o755)
	cmd := exec.Command(runsv, service)
	supervised(t, dir, cmd, ended, "exit status 0", func(args ...string) string {
		switch args[0] {
		case "restart":
			args = []string{"2", service}
		case "pid":
			b, _ := os.ReadFile(filepath.Join(service, "supervise", "pid"))
			return string(b)
		case "stop":
			args = []string{"-w", "60", "down", service}
		}
		out, err := exec.Command(sv, args...).CombinedOutput()
		if err != nil {
			t.Errorf("sv %v: %v\n%s", args, err, out)
		}
		return string(out)
	})
}

// supervised runs a service under a supervisor, to which do speaks. The file log says
// in the end that the service has stopped as it should, and of no other end.
func supervised(t *testing.T, dir string, cmd *exec.Cmd, log, stopped string, do func(args ...string) string) {
	app, config := filepath.Join(dir, "app"), filepath.Join(dir, "config")
	install(t, app)
	killAll(t, app)
	addr := gracetest.FreeAddr(t)
	cfg := play.Config{Role: "http", KeepPID: true, Listens: []play.Listen{{Addr: addr}}, IdleGrace: 5 * time.Second} // clients may be slow
	deploy(t, config, cfg)
	cmd.Env = append(os.Environ(), play.EnvConfig+"="+config, "GORACE=atexit_sleep_ms=0")
	cmd.Dir = dir
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		_ = cmd.Process.Signal(syscall.SIGTERM)
		_ = ends(t, cmd)
	})
	pid := 0
	testbin.Poll(t, "the supervisor to know the pid", func() bool {
		pid, _ = strconv.Atoi(strings.TrimSpace(do("pid")))
		return pid > 0
	})
	target := testbin.HTTP("http", addr)
	testbin.Poll(t, "the program to serve", func() bool {
		answer, err := target("")
		return err == nil && answer == strconv.Itoa(pid)
	})
	restart := func() { do("restart") }
	restarts(t, addr, app, pid, pid, restart)
	refuse(t, addr, app, config, cfg, pid, restart)
	restarts(t, addr, app, pid, pid, restart)
	if got := strings.TrimSpace(do("pid")); got != strconv.Itoa(pid) {
		t.Errorf("the supervisor says that the pid is %s, want %d", got, pid)
	}
	do("stop")
	testbin.Poll(t, "the service to be stopped", func() bool { return len(processes(app)) == 0 })
	var said []string
	testbin.Poll(t, "the supervisor to say how it has ended", func() bool {
		b, _ := os.ReadFile(log)
		said = regexp.MustCompile(`.*(?:exit status|terminated|SIG|exited).*`).FindAllString(string(b), -1)
		return len(said) > 0
	})
	if len(said) != 1 || !strings.HasSuffix(said[0], stopped) {
		t.Errorf("the supervisor says %q, want one line with %q", said, stopped)
	}
}
