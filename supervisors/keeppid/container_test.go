//go:build linux

package keeppid_test

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/facebookgo/grace/gracetest"
	"github.com/facebookgo/grace/internal/testbin"
	"github.com/facebookgo/grace/internal/testbin/play"
)

// A container with nothing in it but the program: no shell, no /proc, no /dev. The
// program is the first process, and keeps its pid without being told to.
func TestContainer(t *testing.T) {
	unshare := look(t, "unshare", "util-linux")
	root := t.TempDir()
	app, config := filepath.Join(root, "app"), filepath.Join(root, "config")
	build := exec.Command("go", "test", "-c", "-o", app, ".")
	build.Env = append(os.Environ(), "CGO_ENABLED=0")
	if out, err := build.CombinedOutput(); err != nil {
		t.Fatalf("build: %v\n%s", err, out)
	}
	killAll(t, app)
	addr := gracetest.FreeAddr(t)
	cfg := play.Config{Role: "http", Listens: []play.Listen{{Addr: addr}}, IdleGrace: 5 * time.Second} // clients may be slow
	deploy(t, config, cfg)
	var log output
	cmd := exec.Command(unshare, "--fork", "--kill-child", "--pid", "--mount", "--propagation", "private", "--root", root, "--", "/app")
	cmd.Env = []string{play.EnvConfig + "=/config"}
	cmd.Stdout, cmd.Stderr = &log, &log
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if t.Failed() {
			t.Logf("what happened:\n%s", log.String())
		}
	})
	target := testbin.HTTP("http", addr)
	testbin.Poll(t, "the program to serve", func() bool {
		answer, err := target("")
		return err == nil && answer == "1"
	})
	pid := processes(app)[0]
	if got := status(pid, "NSpid"); !slices.Equal(got, []string{strconv.Itoa(pid), "1"}) {
		t.Fatalf("the program has the pids %v, want to be the first process", got)
	}
	restart := func() { signal(t, pid, syscall.SIGUSR2) }
	restarts(t, addr, app, pid, 1, restart)
	refuse(t, addr, app, config, cfg, 1, restart)
	restarts(t, addr, app, pid, 1, restart)

	// A process whose parent has died belongs to the first one.
	nsenter := look(t, "nsenter", "util-linux")
	if out, err := exec.Command(nsenter, "--target", strconv.Itoa(pid), "--pid", "sh", "-c", "sleep 1000 >/dev/null 2>&1 & exit 0").CombinedOutput(); err != nil {
		t.Fatalf("nsenter: %v\n%s", err, out)
	}
	testbin.Poll(t, "the orphan to be a child of the first process", func() bool { return len(testbin.Children(t, pid)) == 1 })
	signal(t, testbin.Children(t, pid)[0], syscall.SIGKILL)
	testbin.Poll(t, "the orphan to be reaped", func() bool { return len(testbin.Children(t, pid)) == 0 })

	// What "docker stop" does, with a request under way.
	c := testbin.Dial(t, play.Listen{}, addr)
	c.Send(testbin.Request("sleep 1s"))
	testbin.Poll(t, "the request to begin", func() bool { return strings.Contains(log.String(), "sleep 1s") })
	signal(t, pid, syscall.SIGTERM)
	if got := c.Receive(); got.Body != "1" {
		t.Errorf("got %+v, want an answer", got)
	}
	if err := ends(t, cmd); err != nil {
		t.Errorf("the container has ended with %v, want status 0", err)
	}
}

func signal(t *testing.T, pid int, sig syscall.Signal) {
	t.Helper()
	if err := syscall.Kill(pid, sig); err != nil {
		t.Fatal(fmt.Errorf("send %v to %d: %w", sig, pid, err))
	}
}
