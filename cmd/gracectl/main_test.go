//go:build unix

package main

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/facebookgo/grace/gracectl"
	"github.com/facebookgo/grace/internal/testbin"
	"github.com/facebookgo/grace/internal/testbin/play"
)

func TestMain(m *testing.M) { testbin.Main(m) }

// build returns the command as its users have it.
func build(t *testing.T) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), "gracectl")
	if out, err := exec.Command("go", "build", "-o", path, ".").CombinedOutput(); err != nil {
		t.Fatalf("go build: %v\n%s", err, out)
	}
	return path
}

type result struct {
	status         int
	stdout, stderr string
}

func invoke(t *testing.T, program string, env []string, args ...string) result {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), testbin.Patience)
	defer cancel()
	var stdout, stderr bytes.Buffer
	cmd := exec.CommandContext(ctx, program, args...)
	cmd.Stdout, cmd.Stderr = &stdout, &stderr
	cmd.Env = env
	err := cmd.Run()
	var exit *exec.ExitError
	if err != nil && !errors.As(err, &exit) {
		t.Fatal(err)
	}
	return result{cmd.ProcessState.ExitCode(), stdout.String(), stderr.String()}
}

// The command as a deploy script uses it.
func TestCommand(t *testing.T) {
	log, err := os.OpenFile(filepath.Join(t.TempDir(), "log"), os.O_CREATE|os.O_WRONLY|os.O_APPEND, 0o600)
	if err != nil {
		t.Fatal(err)
	}
	defer log.Close()
	program := build(t)
	cfg := play.Config{
		Role:          "http",
		Listens:       []play.Listen{{Network: "tcp", Addr: "127.0.0.1:0"}},
		Standby:       time.Hour,
		ControlSocket: "control",
	}
	s := testbin.Start(t, cfg, testbin.Stderr(log))
	socket := control(t, s)
	pid, _ := s.Newest()
	env := []string{"GRACE_CONTROL=" + socket}

	got := invoke(t, program, env, "status")
	if want := fmt.Sprintf("process      %d, for ", pid); got.status != 0 || got.stderr != "" || !strings.HasPrefix(got.stdout, want) ||
		!strings.Contains(got.stdout, "\ngeneration   1\nphase        serving\nconnections  0\n") {
		t.Errorf("status: %+v, want %q", got, want)
	}
	s.Deploy(play.Config{Role: "complain"})
	got = invoke(t, program, env, "upgrade")
	want := "gracectl: new process exited before it was ready: exit status 7\n" + fmt.Sprintf("gracectl: process %d serves on\n", pid) +
		"gracectl: its last lines on standard error:\n\t"
	if got.status != 1 || got.stdout != "" || !strings.HasPrefix(got.stderr, want) || !strings.HasSuffix(got.stderr, "\tline 99 of the complaint"+strings.Repeat(".", 99)+"\n") {
		t.Errorf("upgrade that fails: %+v, want %q", got, want)
	}
	got = invoke(t, program, env, "-json", "upgrade")
	var failure struct {
		Error  string
		PID    int
		Stderr string
	}
	if err := json.Unmarshal([]byte(got.stdout), &failure); err != nil || got.status != 1 || failure.PID != pid ||
		failure.Error != "new process exited before it was ready: exit status 7" || !strings.Contains(failure.Stderr, "line 99") {
		t.Errorf("upgrade that fails, in JSON: %+v, %v", got, err)
	}
	got = invoke(t, program, env, "status")
	if !strings.Contains(got.stdout, "ago: new process exited before it was ready: exit status 7\n") {
		t.Errorf("status after a failure: %+v", got)
	}
	s.Deploy(cfg)
	got = invoke(t, program, nil, "upgrade", "-socket", socket)
	child := s.Wait("the new process", func(e play.Event) bool { return e.Event == play.Serving && e.PID != pid }).PID
	if want := fmt.Sprintf("process %d serves, process %d is replaced, after ", child, pid); got.status != 0 || got.stderr != "" || !strings.HasPrefix(got.stdout, want) {
		t.Errorf("upgrade: %+v, want %q", got, want)
	}
	got = invoke(t, program, env, "status", "-json")
	var status gracectl.Status
	if err := json.Unmarshal([]byte(got.stdout), &status); err != nil || got.status != 0 || status.PID != child || status.Parent == nil || status.Parent.PID != pid {
		t.Errorf("status in JSON: %+v, %v", got, err)
	}
	s.Deploy(play.Config{Role: "hang"})
	// On a busy machine a command may come to its end before it has asked.
	for timeout := 100 * time.Millisecond; ; timeout *= 2 {
		got = invoke(t, program, env, fmt.Sprint("-timeout=", timeout), "upgrade", "-wait", "standby")
		if got.status != 2 {
			break
		}
		if got.stderr != fmt.Sprintf("gracectl: no answer within %v\n", timeout) {
			t.Errorf("upgrade that takes too long: %+v", got)
		}
	}
	if got.status != 1 || !strings.Contains(got.stderr, "a restart is under way already") {
		t.Errorf("upgrade while another is under way: %+v", got)
	}
	got = invoke(t, program, env, "stop", "-wait=exit")
	if got.status != 0 || got.stdout != fmt.Sprintf("process %d is gone\n", child) {
		t.Errorf("stop: %+v", got)
	}
	s.WaitGone()
	for _, command := range []string{"status", "upgrade", "stop"} {
		got = invoke(t, program, env, command)
		if got.status != 2 || !strings.Contains(got.stderr, "gracectl: dial unix "+socket) {
			t.Errorf("%s of what is gone: %+v", command, got)
		}
	}
}

// control waits for the control socket of s and returns its path.
func control(t *testing.T, s *testbin.Service) (socket string) {
	t.Helper()
	socket = filepath.Join(s.Dir(), "control")
	testbin.Poll(t, "the control socket", func() bool {
		_, err := os.Lstat(socket)
		return err == nil
	})
	return socket
}

// A deploy script may wait until the new process has proved itself.
func TestUpgradeUntilTheStandbyIsOver(t *testing.T) {
	const standby = 2 * time.Second
	s := testbin.Start(t, play.Config{
		Role:          "http",
		Listens:       []play.Listen{{Network: "tcp", Addr: "127.0.0.1:0"}},
		Standby:       standby,
		ControlSocket: "control",
	})
	pid, _ := s.Newest()
	socket := control(t, s)
	for _, tt := range []struct {
		args []string
		all  bool // the whole standby
	}{
		{[]string{"upgrade"}, false},
		{[]string{"upgrade", "-wait=ready", "-timeout=0"}, false},
		{[]string{"upgrade", "-wait=standby"}, true},
	} {
		s.WaitOne() // until then a restart is refused
		var stdout, stderr bytes.Buffer
		status := run(context.Background(), append([]string{"-json"}, tt.args...), socket, &stdout, &stderr)
		var r struct {
			Old, New int
			Seconds  float64
		}
		// On a busy machine the start alone may take that long.
		if err := json.Unmarshal(stdout.Bytes(), &r); err != nil || status != 0 || r.Old != pid || r.Seconds <= 0 || tt.all && r.Seconds < standby.Seconds() {
			t.Errorf("%q: status %d, %s, %s, %v; want process %d, and the whole standby: %t", tt.args, status, &stdout, &stderr, err, pid, tt.all)
		}
		pid = r.New
		s.Wait(fmt.Sprint("process ", pid), func(e play.Event) bool { return e.Event == play.Serving && e.PID == pid })
	}
	s.Stop()
}

// A process that has been told to stop goes on with its requests.
func TestStopThatTakesLong(t *testing.T) {
	l := play.Listen{Network: "tcp", Addr: "127.0.0.1:0"}
	for _, wait := range []bool{false, true} {
		s := testbin.Start(t, play.Config{Role: "http", Listens: []play.Listen{l}, ControlSocket: "control"})
		pid, addrs := s.Newest()
		release := filepath.Join(t.TempDir(), "release")
		c := testbin.Dial(t, l, addrs[0])
		c.Send(testbin.Request("until " + release))
		s.Wait("the request", func(e play.Event) bool { return e.Event == play.Asked })
		args, want := []string{"stop"}, result{0, fmt.Sprintf("process %d stops\n", pid), ""}
		if wait {
			args, want = []string{"-timeout=2s", "stop", "-wait=exit"}, result{2, "", "gracectl: no answer within 2s\n"}
		}
		var stdout, stderr bytes.Buffer
		status := run(context.Background(), args, control(t, s), &stdout, &stderr)
		if got := (result{status, stdout.String(), stderr.String()}); got != want {
			t.Errorf("%q: %+v, want %+v", args, got, want)
		}
		s.WaitLog(pid, "draining")
		if err := os.WriteFile(release, nil, 0o600); err != nil {
			t.Fatal(err)
		}
		if r := c.Receive(); r.Status != 200 {
			t.Errorf("answer: %+v", r)
		}
		s.WaitGone()
	}
}

// A signal ends the wait.
func TestSignalEndsTheCommand(t *testing.T) {
	program, path := build(t), filepath.Join(t.TempDir(), "control")
	l, err := net.Listen("unix", path)
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	for _, sig := range []os.Signal{os.Interrupt, syscall.SIGTERM} {
		var stderr bytes.Buffer
		cmd := exec.Command(program, "-socket", path, "upgrade")
		cmd.Stderr = &stderr
		if err := cmd.Start(); err != nil {
			t.Fatal(err)
		}
		c, err := l.Accept() // who never answers
		if err != nil {
			t.Fatal(err)
		}
		if err := cmd.Process.Signal(sig); err != nil {
			t.Fatal(err)
		}
		_ = cmd.Wait()
		if status := cmd.ProcessState.ExitCode(); status != 2 || !strings.HasPrefix(stderr.String(), "gracectl: ") {
			t.Errorf("%v: status %d, %q", sig, status, &stderr)
		}
		_ = c.Close()
	}
}

// What is wrong on the command line is told before anything is asked.
func TestUsage(t *testing.T) {
	path := filepath.Join(t.TempDir(), "control")
	l, err := net.Listen("unix", path)
	if err != nil {
		t.Fatal(err)
	}
	connected := make(chan struct{})
	go func() {
		if c, err := l.Accept(); err == nil {
			c.Close()
			close(connected)
		}
	}()
	for _, tt := range []struct {
		args []string
		want string
	}{
		{nil, "what shall be done"},
		{[]string{"reload"}, `unknown command "reload"`},
		{[]string{"upgrade", "now"}, `what is "now"?`},
		{[]string{"upgrade", "-wait", "exit"}, `upgrade does not wait for "exit"`},
		{[]string{"stop", "-wait", "ready"}, `stop does not wait for "ready"`},
		{[]string{"-wait", "ready", "status"}, `status does not wait for "ready"`},
		{[]string{"-quick", "upgrade"}, "not defined: -quick"},
		{[]string{"stop", "-timeout", "soon"}, `invalid value "soon"`},
		{[]string{"-socket", "", "stop"}, "where is the control socket"},
	} {
		var stdout, stderr bytes.Buffer
		status := run(context.Background(), tt.args, path, &stdout, &stderr)
		if status != 2 || stdout.Len() != 0 || !strings.HasPrefix(stderr.String(), "gracectl: ") || !strings.Contains(stderr.String(), tt.want) {
			t.Errorf("%q: status %d, %q, %q, want %q", tt.args, status, &stdout, &stderr, tt.want)
		}
	}
	if c, err := parse([]string{"status"}, path, nil, nil); err != nil || c.timeout != 5*time.Minute || c.wait != "" || c.json || c.client.Path != path {
		t.Errorf("without flags it is %+v, %v", c, err)
	}
	var stdout, stderr bytes.Buffer
	for _, help := range []string{"-h", "help"} {
		stdout.Reset()
		if status := run(context.Background(), []string{help}, "", &stdout, &stderr); status != 0 || !strings.HasPrefix(stdout.String(), "usage: ") {
			t.Errorf("%s: status %d, %q, %q", help, status, &stdout, &stderr)
		}
	}
	// Without a socket, too, who does not know the commands is told about those.
	if status := run(context.Background(), []string{"reload"}, "", &stdout, &stderr); status != 2 || !strings.Contains(stderr.String(), "unknown command") {
		t.Errorf("status %d, %q", status, &stderr)
	}
	l.Close()
	select {
	case <-connected:
		t.Error("the service was asked")
	default:
	}
}

func TestDescribe(t *testing.T) {
	now := time.Unix(1764042570, 0)
	got := describe(gracectl.Status{
		PID: 904, Generation: 3, Phase: "upgrading", Upgrade: "the new process starts",
		Started: now.Add(-90 * time.Minute), Connections: 17,
		Parent:      &gracectl.Process{PID: 812},
		Child:       &gracectl.Process{PID: 990, Started: now.Add(-200 * time.Millisecond)},
		LastFailure: &gracectl.Failure{Time: now.Add(-time.Minute), Error: "new process exited"},
	}, now)
	want := `process      904, for 1h30m0s
generation   3
phase        upgrading
restart      the new process starts
connections  17
child        990, for 200ms
parent       812
last failure 1m0s ago: new process exited
`
	if got != want {
		t.Errorf("got\n%swant\n%s", got, want)
	}
}

// The commands of README.md, as they stand there but for the path of the socket.
func TestReadme(t *testing.T) {
	page, err := os.ReadFile("../../README.md")
	if err != nil {
		t.Fatal(err)
	}
	_, block, found := strings.Cut(string(page), "```sh\ngo build -o gracectl ./cmd/gracectl\n")
	block, _, _ = strings.Cut(block, "```")
	if !found || strings.Count(block, "\n") != 4 {
		t.Fatalf("README.md has the commands %q after the one that builds it, want four", block)
	}
	bin := filepath.Dir(build(t))
	s := testbin.Start(t, play.Config{
		Role:          "http",
		Listens:       []play.Listen{{Network: "tcp", Addr: "127.0.0.1:0"}},
		Standby:       time.Second,
		ControlSocket: "control",
	})
	socket := control(t, s)
	for line := range strings.Lines(block) {
		// A restart that is asked for within the standby is refused: it waits for the end.
		s.WaitOne()
		command := strings.ReplaceAll(strings.TrimSpace(line), "/run/app/control", socket)
		got := invoke(t, "sh", []string{"PATH=" + bin + ":" + os.Getenv("PATH")}, "-c", command)
		if got.status != 0 {
			t.Errorf("%s: status %d, %s%s", command, got.status, got.stdout, got.stderr)
		}
	}
	s.WaitGone()
}
