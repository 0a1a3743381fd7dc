//go:build unix

package gracehttp_test

import (
	"fmt"
	"net"
	"path/filepath"
	"syscall"
	"testing"
	"time"

	"github.com/facebookgo/grace/internal/testbin"
)

// The service manager hears from the process that it takes for the main one, and
// from no other: ready once, the next main process at each restart, and the end.
func TestServiceManagerIsTold(t *testing.T) {
	path, told := notifySocket(t)
	expect := func(want string) { t.Helper(); expectTold(t, told, want) }

	// INVOCATION_ID stands for systemd: a second SIGTERM does not kill.
	s := testbin.Start(t, httpConfig(), testbin.Env("NOTIFY_SOCKET="+path, "INVOCATION_ID=1"))
	expect("READY=1")
	for range 2 {
		old, new := s.Restart()
		s.WaitReturned(old)
		expect(fmt.Sprintf("MAINPID=%d\nREADY=1", new))
	}
	pid, addrs := s.Newest()
	answer := make(chan error)
	go func() {
		_, err := targets(addrs)[0]("sleep 2s")
		answer <- err
	}()
	s.Wait("the request to begin", asked("sleep 2s"))
	s.Signal(pid, syscall.SIGTERM)
	expect("STOPPING=1")
	s.Signal(pid, syscall.SIGTERM)
	s.WaitLog(pid, "draining already")
	if err := <-answer; err != nil {
		t.Errorf("request in flight: %v", err)
	}
	s.WaitGone()
	select {
	case more := <-told:
		t.Errorf("told %q as well", more)
	default:
	}
}

// On standby the first process is still the main one; when its child has been
// replaced, it names the process that serves then.
func TestServiceManagerIsToldOfGrandchild(t *testing.T) {
	path, told := notifySocket(t)
	cfg := httpConfig()
	cfg.Standby = time.Hour
	s := testbin.Start(t, cfg, testbin.Env("NOTIFY_SOCKET="+path))
	expectTold(t, told, "READY=1")
	cfg.Standby = 0
	s.Deploy(cfg)
	first, second := s.Restart()
	s.WaitLog(first, "standing by")
	third := s.RestartPID(second)
	s.WaitReturned(second)
	s.WaitReturned(first)
	// Once from the second, which is not believed, and once from the first.
	for range 2 {
		expectTold(t, told, fmt.Sprintf("MAINPID=%d\nREADY=1", third))
	}
	s.Stop()
}

// notifySocket is the socket of a service manager, and what it is told.
func notifySocket(t *testing.T) (path string, told <-chan string) {
	t.Helper()
	path = filepath.Join(t.TempDir(), "notify")
	socket, err := net.ListenUnixgram("unixgram", &net.UnixAddr{Net: "unixgram", Name: path})
	if err != nil {
		t.Fatal(err)
	}
	messages := make(chan string, 100)
	done := make(chan struct{})
	go func() {
		defer close(done)
		b := make([]byte, 4096)
		for {
			n, err := socket.Read(b)
			if err != nil {
				return
			}
			messages <- string(b[:n])
		}
	}()
	t.Cleanup(func() {
		socket.Close()
		<-done
	})
	return path, messages
}

func expectTold(t *testing.T, told <-chan string, want string) {
	t.Helper()
	select {
	case got := <-told:
		if got != want {
			t.Errorf("told %q, want %q", got, want)
		}
	case <-time.After(testbin.Patience):
		t.Fatalf("not told %q", want)
	}
}
