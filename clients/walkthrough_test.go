//go:build unix

package clients_test

import (
	"fmt"
	"os"
	"os/exec"
	"regexp"
	"strconv"
	"strings"
	"testing"
	"time"

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
	patience := 7 * time.Second // of the slow request
	shell := func(command string, pid int) *exec.Cmd {
		command = strings.ReplaceAll(command, "http://localhost:48567/", url)
		command = strings.ReplaceAll(command, "20s", fmt.Sprint(patience.Seconds(), "s"))
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
		m := regexp.MustCompile(`^Zero   started at \S+ slept for \S+ in pid (\d+)\.\n$`).FindStringSubmatch(answer)
		if m == nil {
			t.Fatalf("the answer is %q", answer)
		}
		pid, _ := strconv.Atoi(m[1])
		return pid
	}
	sockets := func(pid int) (n int) {
		dir := "/proc/" + strconv.Itoa(pid) + "/fd/"
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
	// overtaken restarts a process while it has the slow request. It reports whether the
	// quick one was over before the slow one, as it is on a machine that is quick enough.
	overtaken := func(old int) bool {
		t.Helper()
		const listeners = 3
		gracetest.Poll(t, "no connection to be there but a slow one", func() bool { return sockets(old) == listeners })
		type result struct {
			out []byte
			err error
		}
		answer := make(chan result, 1)
		go func() {
			out, err := shell(slow, 0).Output()
			answer <- result{out, err}
		}()
		gracetest.Poll(t, "the slow request to be there", func() bool { return sockets(old) > listeners })
		n := len(s.Lines())
		run(restart, old)
		s.WaitLine(n, "the old process to stand by", func(l gracetest.Line) bool { return strings.Contains(l.Text, "standing by") })
		new := answered(run(quick, 0))
		if new == old {
			t.Errorf("the quick request was answered by %d, which stands by", old)
		}
		first := true
		var r result
		select {
		case r = <-answer:
			first = false
		default:
			r = <-answer
		}
		if r.err != nil {
			t.Fatalf("%s: %v", slow, r.err)
		}
		if by := answered(string(r.out)); by != old {
			t.Errorf("the slow request was answered by %d, want %d", by, old)
		}
		s.WaitExit(old)
		s.Follow(new)
		return first
	}
	for !overtaken(s.PID()) {
		if patience *= 2; patience > 2*gracetest.Patience {
			t.Fatal("the slow request is always over before the quick one")
		}
	}
	run(stop, s.PID())
	s.WaitGone()
}
