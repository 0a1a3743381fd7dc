//go:build linux

package main

import (
	"os"
	"os/exec"
	"regexp"
	"strconv"
	"strings"
	"testing"

	"github.com/facebookgo/grace/examples/internal/service"
	"github.com/facebookgo/grace/gracetest"
)

// The commands of README.md, as they stand there but for the directory, the port and the
// pid.
func TestReadme(t *testing.T) {
	page, err := os.ReadFile("README.md")
	if err != nil {
		t.Fatal(err)
	}
	block := regexp.MustCompile("(?s)\n```sh\n(.*?)```").FindSubmatch(page)
	if block == nil {
		t.Fatal("README.md has no commands")
	}
	var commands []string
	for line := range strings.Lines(string(block[1])) {
		command, _, _ := strings.Cut(line, " #")
		commands = append(commands, strings.TrimSpace(command))
	}
	if len(commands) != 4 {
		t.Fatalf("README.md has the commands %q, want one that builds, a certificate, a start and a restart", commands)
	}
	build, certificate, serve, restart := commands[0], commands[1], commands[2], commands[3]

	dir := t.TempDir()
	run := func(dir, command string) {
		t.Helper()
		cmd := exec.Command("sh", "-c", command)
		cmd.Dir = dir
		if out, err := cmd.CombinedOutput(); err != nil {
			t.Fatalf("%s: %v\n%s", command, err, out)
		}
	}
	run("..", strings.Replace(build, "-o app", "-o "+dir+"/app", 1))
	run(dir, certificate)
	args := strings.Fields(strings.Replace(strings.TrimSuffix(serve, "&"), ":8443", ":0", 1))
	cmd := exec.Command(dir+strings.TrimPrefix(args[0], "."), args[1:]...)
	cmd.Dir = dir
	s := &service.Service{Service: gracetest.Start(t, cmd)}
	addr, old := s.Addr(), s.PID()
	answered := func(want int) {
		t.Helper()
		c := newClient(t, addr)
		defer c.http.CloseIdleConnections() // or the drain waits for it
		if got, err := c.ask(); err != nil || got != want {
			t.Fatalf("answered by %d, %v, want %d", got, err, want)
		}
	}
	answered(old)
	n := len(s.Lines())
	run(dir, strings.Replace(restart, "PID", strconv.Itoa(old), 1))
	line := s.WaitLine(n, "the next process to serve", func(l gracetest.Line) bool { return strings.Contains(l.Text, " serving ") })
	new, _ := strconv.Atoi(service.Value(line, "pid"))
	s.Follow(new)
	s.WaitPID(old, "standing by") // until then it reads the socket
	answered(new)
	s.Stop()
}
