//go:build linux

package main

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"syscall"
	"testing"
	"time"

	"github.com/facebookgo/grace/gracetest"
)

// What the Dockerfile makes, without Docker: a root file system with nothing but the
// static program, not even /proc and /dev, and the program is the first process there.
func TestRestarts(t *testing.T) {
	root := t.TempDir()
	app := filepath.Join(root, "app")
	build := exec.Command("go", "build", "-o", app, ".")
	build.Env = append(os.Environ(), "CGO_ENABLED=0")
	if out, err := build.CombinedOutput(); err != nil {
		t.Fatalf("go build: %v\n%s", err, out)
	}
	addr := gracetest.FreeAddr(t)
	url := "http://" + addr + "/"
	s := gracetest.Launch(t, app, func(*gracetest.Service) *exec.Cmd {
		cmd := exec.Command("/app", "-addr", addr, "-standby", "200ms")
		cmd.Dir = "/"
		cmd.Env = []string{}
		cmd.SysProcAttr = &syscall.SysProcAttr{
			Chroot:     root,
			Cloneflags: syscall.CLONE_NEWPID | syscall.CLONE_NEWNS | syscall.CLONE_NEWIPC | syscall.CLONE_NEWUTS,
			Pdeathsig:  syscall.SIGKILL,
		}
		return cmd
	})
	s.KeepsPID = true
	get := gracetest.Raw(gracetest.Request{URL: url, Fresh: true})
	if got, want := s.WaitAnswer(get), "hello from process 1, generation 1\n"; got != want {
		t.Errorf("answer %q, want %q", got, want)
	}
	const restarts = 5
	t.Log(s.Prove(gracetest.Plan{Clients: gracetest.Mix(url), Restarts: restarts, Standby: 200 * time.Millisecond}))
	if got, want := s.WaitAnswer(get), fmt.Sprintf("hello from process 1, generation %d\n", 1+restarts); got != want {
		t.Errorf("answer %q, want %q", got, want)
	}
	if files, err := os.ReadDir(root); err != nil || len(files) != 1 {
		t.Errorf("the container has the files %v, %v, want the program only", files, err)
	}
	s.Stop()
}
