//go:build unix

package gracehttp_test

import (
	"fmt"
	"syscall"
	"testing"

	"github.com/facebookgo/grace/internal/testbin"
)

// The service manager hears from the process that it takes for the main one, and
// from no other: ready once, the next main process at each restart, and the end.
func TestServiceManagerIsTold(t *testing.T) {
	path, told := testbin.NotifySocket(t)
	expect := func(want string) { t.Helper(); testbin.ExpectTold(t, told, want) }

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
