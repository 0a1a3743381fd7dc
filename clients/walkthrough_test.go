//go:build unix

package clients_test

import (
	"os"
	"os/exec"
	"regexp"
	"strconv"
	"strings"
	"testing"

	"github.com/facebookgo/grace/gracetest"
)

// The commands of the walk-through in README.md, as they stand there but for the port,
// the pid and the patience of the slow request.
func TestWalkThrough(t *testing.T) {
	page, err := os.ReadFile("../README.md")
	if err != nil {
		t.Fatal(err)
	}
	_, section, _ := strings.Cut(string(page), "\n### Walk-through\n")
	section, _, _ = strings.Cut(section, "\n## ")
	var commands []string
	for _, m := range regexp.MustCompile("(?m)^```sh\n(.+)\n```$").FindAllStringSubmatch(section, -1) {
		commands = append(commands, m[1])
	}
	if len(commands) != 4 {
		t.Fatalf("the walk-through has the commands %q, want a slow request, a restart, a quick request and a stop", commands)
	}
	slow, restart, quick, stop := commands[0], commands[1], commands[2], commands[3]

	s, url := startDemo(t)
	old := s.PID()
	shell := func(command string, pid int) *exec.Cmd {
		command = strings.ReplaceAll(command, "http://localhost:48567/", url)
		command = strings.ReplaceAll(command, "20s", "7s")
		command = regexp.MustCompile(`^(kill -\w+) \d+$`).ReplaceAllString(command, "${1} "+strconv.Itoa(pid))
		cmd := exec.Command("sh", "-c", command)
		cmd.Stderr = os.Stderr
		return cmd
	}
	run := func(command string, pid int) string {
		t.Helper()
		out, err := shell(command, pid).Output()
		if err != nil {
			t.Fatalf("%s: %v", command, err)
		}
		return string(out)
	}
	answered := func(answer string) int {
		t.Helper()
		m := regexp.MustCompile(`^Zero   started at \S+ slept for \ds in pid (\d+)\.\n$`).FindStringSubmatch(answer)
		if m == nil {
			t.Fatalf("the answer is %q", answer)
		}
		pid, _ := strconv.Atoi(m[1])
		return pid
	}
	sockets := func() (n int) {
		dir := "/proc/" + strconv.Itoa(old) + "/fd/"
		entries, err := os.ReadDir(dir)
		if err != nil {
			t.Fatal(err)
		}
		for _, e := range entries {
			if target, err := os.Readlink(dir + e.Name()); err == nil && strings.HasPrefix(target, "socket:") {
				n++
			}
		}
		return n
	}
	const listeners = 3
	gracetest.Poll(t, "the connection that the demo was looked for with to be gone", func() bool { return sockets() == listeners })
	type result struct {
		out []byte
		err error
	}
	answer := make(chan result, 1)
	go func() {
		out, err := shell(slow, 0).Output()
		answer <- result{out, err}
	}()
	gracetest.Poll(t, "the slow request to be there", func() bool { return sockets() > listeners })
	run(restart, old)
	s.WaitLine(0, "the old process to stand by", func(l gracetest.Line) bool { return strings.Contains(l.Text, "standing by") })
	new := answered(run(quick, 0))
	if new == old {
		t.Errorf("the quick request was answered by %d, which stands by", old)
	}
	select {
	case r := <-answer:
		t.Fatalf("the slow request was over before the quick one: %q, %v", r.out, r.err)
	default:
	}
	r := <-answer
	if r.err != nil {
		t.Fatalf("%s: %v", slow, r.err)
	}
	if by := answered(string(r.out)); by != old {
		t.Errorf("the slow request was answered by %d, want %d", by, old)
	}
	s.WaitExit(old)
	run(stop, new)
	s.WaitGone()
}
