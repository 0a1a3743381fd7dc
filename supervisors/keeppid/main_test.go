//go:build linux

// Package keeppid_test runs services that keep their pid where it matters: as the
// first process of a container, under supervisord and under runit.
package keeppid_test

import (
	"encoding/json"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/facebookgo/grace/internal/testbin"
	"github.com/facebookgo/grace/internal/testbin/play"
)

func TestMain(m *testing.M) { testbin.Main(m) }

// look returns the path of a program.
func look(t *testing.T, name, debian string) string {
	t.Helper()
	path, err := exec.LookPath(name)
	if err != nil {
		t.Fatalf("%v; install the Debian package %s", err, debian)
	}
	return path
}

// status reads a field of /proc/PID/status.
func status(pid int, field string) []string {
	b, _ := os.ReadFile(fmt.Sprintf("/proc/%d/status", pid))
	for line := range strings.Lines(string(b)) {
		if key, value, _ := strings.Cut(line, ":"); key == field {
			return strings.Fields(value)
		}
	}
	return nil
}

// processes returns the pids of all processes that run program.
func processes(program string) (pids []int) {
	links, _ := filepath.Glob("/proc/[0-9]*/exe")
	for _, link := range links {
		if target, err := os.Readlink(link); err == nil && strings.TrimSuffix(target, " (deleted)") == program {
			pid, _ := strconv.Atoi(strings.Split(link, "/")[2])
			pids = append(pids, pid)
		}
	}
	return pids
}

// install copies the test binary, so that its processes can be told from others.
func install(t *testing.T, to string) {
	t.Helper()
	b, err := os.ReadFile(testbin.Executable(t))
	if err == nil {
		err = os.WriteFile(to, b, 0o755)
	}
	if err != nil {
		t.Fatal(err)
	}
}

// only waits until pid is the only process that runs program.
func only(t *testing.T, program string, pid int) {
	t.Helper()
	testbin.Poll(t, fmt.Sprintf("%d to be the only process", pid), func() bool {
		pids := processes(program)
		return len(pids) == 1 && pids[0] == pid
	})
}

// anew is what one execution of the program in a process says, and the next one
// does not: which process has served before it.
func anew(t *testing.T, target testbin.Target) string {
	t.Helper()
	return testbin.Ask(t, target, "env LISTEN_PID")
}

// restarts lets a service that keeps its pid restart ten times under load. self is
// the pid that it knows itself by.
func restarts(t *testing.T, addr, program string, pid, self int, restart func()) {
	t.Helper()
	target := testbin.HTTP("http", addr)
	load := testbin.NewLoad(t, target, testbin.KeepAlive(addr))
	load.WaitMore(1)
	for range 10 {
		before := anew(t, target)
		restart()
		testbin.Poll(t, "the program to be executed anew", func() bool {
			return testbin.AskPID(t, target) == self && anew(t, target) != before
		})
		only(t, program, pid)
	}
	load.Stop()
}

// refuse deploys a program that does not come to serve and dies, and restarts.
func refuse(t *testing.T, addr, program, config string, cfg play.Config, self int, restart func()) {
	t.Helper()
	target := testbin.HTTP("http", addr)
	load := testbin.NewLoad(t, target)
	load.WaitMore(1)
	before := anew(t, target)
	old := processes(program)
	deploy(t, config, play.Config{Role: "hang"})
	restart()
	var bad []int
	testbin.Poll(t, "the program that fails to be started", func() bool {
		bad = slices.DeleteFunc(processes(program), func(pid int) bool { return slices.Contains(old, pid) })
		return len(bad) == 1
	})
	if err := syscall.Kill(bad[0], syscall.SIGKILL); err != nil {
		t.Fatal(err)
	}
	testbin.Poll(t, "it to have gone", func() bool { return slices.Equal(processes(program), old) })
	load.WaitMore(10)
	deploy(t, config, cfg)
	if got := testbin.AskPID(t, target); got != self || anew(t, target) != before {
		t.Errorf("the process is %d, want the one from before, %d", got, self)
	}
	load.Stop()
}

func deploy(t *testing.T, name string, cfg play.Config) {
	t.Helper()
	b, err := json.Marshal(cfg)
	if err == nil {
		err = os.WriteFile(name+".new", b, 0o644)
	}
	if err == nil {
		err = os.Rename(name+".new", name)
	}
	if err != nil {
		t.Fatal(err)
	}
}

// ends waits until cmd has ended, and kills it if that takes too long.
func ends(t *testing.T, cmd *exec.Cmd) (err error) {
	t.Helper()
	ended := make(chan error, 1)
	go func() { ended <- cmd.Wait() }()
	select {
	case err = <-ended:
	case <-time.After(testbin.Patience):
		_ = cmd.Process.Kill()
		<-ended
		t.Errorf("%s has not ended", cmd.Path)
	}
	return err
}

// output is what a program writes, for several goroutines.
type output struct {
	mu   sync.Mutex
	text strings.Builder
}

func (o *output) Write(b []byte) (int, error) {
	o.mu.Lock()
	defer o.mu.Unlock()
	return o.text.Write(b)
}

func (o *output) String() string {
	o.mu.Lock()
	defer o.mu.Unlock()
	return o.text.String()
}

// killAll ends what is left of a program when the test does.
func killAll(t *testing.T, program string) {
	t.Cleanup(func() {
		for _, pid := range processes(program) {
			_ = syscall.Kill(pid, syscall.SIGKILL)
		}
	})
}
