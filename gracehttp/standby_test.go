//go:build unix

package gracehttp_test

import (
	"bufio"
	"fmt"
	"io"
	"net"
	"net/http"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/facebookgo/grace/internal/testbin"
	"github.com/facebookgo/grace/internal/testbin/play"
)

// A child that dies when it was ready already is replaced by its parent, at once
// and whatever it dies of.
func TestStandbyTakesBack(t *testing.T) {
	cfg := patient(httpConfig())
	cfg.Standby = time.Hour // ended by SIGTERM
	s := testbin.Start(t, cfg)
	parent, addrs := s.Newest()
	load := testbin.NewLoad(t, targets(addrs)...)
	fastest := time.Hour
	for _, death := range []string{"kill", "abort", "panic", "exit 1", "exit 0"} {
		n := len(s.Events())
		child := s.RestartPID(parent)
		s.WaitAfter(n, "the parent to stand by", logged(parent, "standing by"))
		load.WaitPID(child)
		// No request may be in the child when it dies.
		load.Pause()
		for range 20 {
			if pid := testbin.AskPID(t, targets(addrs)[0]); pid != child {
				t.Errorf("answered by %d while %d stands by for %d", pid, parent, child)
			}
		}
		died := time.Now()
		switch death {
		case "kill":
			s.Signal(child, syscall.SIGKILL)
		case "abort":
			s.Signal(child, syscall.SIGABRT)
		default: // its end is the only answer
			if answer, err := targets(addrs)[0](death); err == nil {
				t.Errorf("%s: answer %q", death, answer)
			}
		}
		if death != "kill" { // the runtime may accept until the very end
			s.WaitAfter(n, "the parent to serve again", logged(parent, "serves again"))
		}
		load.Resume()
		for _, target := range targets(addrs) {
			if pid := testbin.AskPID(t, target); pid != parent {
				t.Errorf("%s: answered by %d, want %d", death, pid, parent)
			}
			fastest = min(fastest, time.Since(died))
		}
		s.WaitAfter(n, "the parent to serve again", logged(parent, "serves again"))
		load.WaitMore(10)
		if c := testbin.Children(t, parent); len(c) != 0 {
			t.Errorf("children are left: %v", c)
		}
	}
	// Any one of them may be slow on a busy machine. What waits for a tick of some
	// kind would be slower still.
	if fastest > 500*time.Millisecond {
		t.Errorf("the parent has taken back within %v at best, want 500ms", fastest)
	}
	// And still it can be upgraded; on standby SIGTERM makes it drain.
	child := s.RestartPID(parent)
	load.WaitPID(child)
	s.WaitLog(parent, fmt.Sprintf("standing by child=%d", child))
	s.Signal(parent, syscall.SIGTERM)
	s.WaitReturned(parent)
	load.WaitPID(child)
	load.Stop()
	s.Stop()
}

// Requests that wait in the kernel when the child dies are answered.
func TestStandbyAnswersWhatWaits(t *testing.T) {
	cfg := httpConfig()
	cfg.Standby = time.Hour
	s := testbin.Start(t, cfg)
	parent, addrs := s.Newest()
	child := s.RestartPID(parent)
	s.WaitLog(parent, "standing by")
	s.Freeze(child)
	results := make(chan error)
	const each = 20
	for _, target := range targets(addrs) {
		for range each {
			go func() {
				answer, err := target("")
				if err == nil && answer != strconv.Itoa(parent) {
					err = fmt.Errorf("answered by %s, want %d", answer, parent)
				}
				results <- err
			}()
		}
	}
	// The plain ones are in the queue when they have sent their request.
	for _, addr := range addrs[:1] {
		c := dial(t, addr)
		fmt.Fprint(c, "GET / HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n")
		go func() {
			b, err := io.ReadAll(c)
			if err == nil && !strings.HasSuffix(string(b), "\r\n\r\n"+strconv.Itoa(parent)) {
				err = fmt.Errorf("answer %q", b)
			}
			results <- err
		}()
	}
	s.Signal(child, syscall.SIGKILL)
	for range each*len(addrs) + 1 {
		if err := <-results; err != nil {
			t.Error(err)
		}
	}
	s.Signal(parent, syscall.SIGTERM)
	s.WaitGone()
}

// On standby the parent answers on the connections it has, and asks the clients
// to make their next one elsewhere; when it serves again it does not.
func TestAnswersOnStandby(t *testing.T) {
	cfg := play.Config{Role: "http", Listens: []play.Listen{{Addr: "127.0.0.1:0"}}, Standby: time.Hour}
	s := testbin.Start(t, cfg)
	parent, addrs := s.Newest()
	ask := func(c net.Conn, closes bool) {
		t.Helper()
		fmt.Fprint(c, "GET / HTTP/1.1\r\nHost: x\r\n\r\n")
		resp, err := http.ReadResponse(bufio.NewReader(c), nil)
		if err != nil {
			t.Fatal(err)
		}
		defer resp.Body.Close()
		b, err := io.ReadAll(resp.Body)
		if err != nil || string(b) != strconv.Itoa(parent) {
			t.Errorf("answer %q, %v, want %d", b, err, parent)
		}
		if resp.Close != closes {
			t.Errorf("the answer closes the connection: %t, want %t", resp.Close, closes)
		}
	}
	unused := dial(t, addrs[0])
	used := dial(t, addrs[0])
	ask(used, false) // so unused, which came before, is accepted as well
	child := s.RestartPID(parent)
	s.WaitLog(parent, "standing by")
	ask(used, true)
	ask(unused, true)
	s.Signal(child, syscall.SIGKILL)
	s.WaitLog(parent, "serves again")
	ask(dial(t, addrs[0]), false)
	s.Signal(parent, syscall.SIGTERM)
	s.WaitGone()
}

// A child that has died takes no connections over: once its parent serves again,
// the answers of a stop say that the connection is closed, as without HandOverIdle.
func TestNoHeirAfterTakeBack(t *testing.T) {
	cfg := handingOver("tcp")
	cfg.Standby, cfg.StopDelay = time.Hour, time.Hour
	s := testbin.Start(t, cfg)
	parent, addrs := s.Newest()
	c := testbin.Dial(t, cfg.Listens[0], addrs[0])
	c.Ask("")
	child := s.RestartPID(parent)
	s.WaitLog(parent, "standing by")
	c.Ask("")
	s.Signal(child, syscall.SIGKILL)
	s.WaitLog(parent, "serves again")
	s.Signal(parent, syscall.SIGTERM)
	s.WaitLog(parent, "stopping soon")
	c.Send(testbin.Request(""))
	if got, want := c.Receive(), (testbin.Reply{Status: 200, Body: strconv.Itoa(parent), Close: true}); got != want {
		t.Errorf("got %+v, want %+v", got, want)
	}
}

// A child that the operator stops has not died.
func TestStopOfChildEndsStandby(t *testing.T) {
	cfg := httpConfig()
	cfg.Standby = time.Hour
	s := testbin.Start(t, cfg)
	parent, child := s.Restart()
	s.WaitLog(parent, "standing by")
	s.Signal(child, syscall.SIGTERM)
	s.WaitGone()
	s.WaitLog(parent, "told to stop")
	for _, pid := range []int{parent, child} {
		if e := s.WaitReturned(pid); e.Text != "" {
			t.Errorf("%d returned %q", pid, e.Text)
		}
	}
}

// A restart that is asked for during the standby is the child's, which waits
// until it is on its own. A long standby is shortened then.
func TestRestartOnStandbyWaits(t *testing.T) {
	cfg := patient(httpConfig())
	cfg.Standby = time.Hour
	s := testbin.Start(t, cfg)
	first, second := s.Restart()
	s.WaitLog(first, "standing by")
	cfg.Standby = 0
	s.Deploy(cfg)
	_, addrs := s.Newest()
	load := testbin.NewLoad(t, targets(addrs)...)
	n := len(s.Events())
	s.Freeze(second)
	s.Signal(first, syscall.SIGUSR2)
	s.WaitLog(first, fmt.Sprintf("restart is passed on to the new process child=%d", second))
	s.Freeze(first) // or the standby may be over before the second one is asked again
	s.Signal(second, syscall.SIGCONT)
	s.WaitLog(second, fmt.Sprintf("restart waits until the process before this one no longer stands by parent=%d", first))
	s.Signal(second, syscall.SIGUSR2)
	s.WaitLog(second, "a restart waits already")
	s.Signal(first, syscall.SIGCONT)
	s.WaitLog(first, fmt.Sprintf("standing by less long, since the new process shall restart child=%d for=5s", second))
	s.WaitReturned(first)
	third := s.WaitAfter(n, "the third generation", func(e play.Event) bool { return e.Event == play.Serving }).PID
	load.WaitPID(third)
	// The second stands by for the third as it was told when it was started.
	s.WaitLog(second, "standing by")
	s.Signal(second, syscall.SIGTERM)
	s.WaitReturned(second)
	load.Stop()
	if pid := testbin.AskPID(t, targets(addrs)[0]); pid != third {
		t.Errorf("answered by %d, want %d", pid, third)
	}
	s.Stop()
}

// The child dies while it waits to be restarted. Its parent takes back, and
// restarts in its place.
func TestRestartOutlivesTheChild(t *testing.T) {
	cfg := httpConfig()
	cfg.Standby = time.Hour
	s := testbin.Start(t, cfg)
	first, second := s.Restart()
	s.WaitLog(first, "standing by")
	n := len(s.Events())
	s.Freeze(first) // or its standby, which is shortened, may be over too early
	s.Signal(second, syscall.SIGUSR2)
	s.WaitLog(second, "restart waits until")
	s.Signal(second, syscall.SIGKILL)
	s.WaitExit(second)
	s.Signal(first, syscall.SIGCONT)
	s.WaitLog(first, "serves again")
	third := s.WaitAfter(n, "the third generation", func(e play.Event) bool { return e.Event == play.Serving })
	s.WaitLog(first, fmt.Sprintf("standing by child=%d", third.PID))
	if pid := testbin.AskPID(t, targets(third.Addrs)[0]); pid != third.PID {
		t.Errorf("answered by %d, want %d", pid, third.PID)
	}
	s.Signal(first, syscall.SIGTERM)
	s.WaitReturned(first)
	s.Stop()
}
