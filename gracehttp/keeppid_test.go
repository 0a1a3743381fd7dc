//go:build unix

package gracehttp_test

import (
	"fmt"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/facebookgo/grace/gracectl"
	"github.com/facebookgo/grace/internal/testbin"
	"github.com/facebookgo/grace/internal/testbin/play"
)

func keepPIDConfig() play.Config {
	cfg := httpConfig()
	cfg.KeepPID = true
	return cfg
}

// restartInPlace restarts a process that keeps its pid, and waits until nothing but
// the new program is left. It returns the pid of the process that has served in the
// interim.
func restartInPlace(s *testbin.Service, pid int) (interim int) {
	n := len(s.Events())
	s.Signal(pid, syscall.SIGUSR2)
	return waitInPlace(s, n, pid)
}

func waitInPlace(s *testbin.Service, n, pid int) (interim int) {
	serving := func(match func(int) bool) func(play.Event) bool {
		return func(e play.Event) bool { return e.Event == play.Serving && match(e.PID) }
	}
	interim = s.WaitAfter(n, "a process to serve in the interim", serving(func(p int) bool { return p != pid })).PID
	s.WaitAfter(n, "the program to be executed anew", serving(func(p int) bool { return p == pid }))
	s.WaitReturned(interim)
	s.WaitExit(interim)
	return interim
}

// Ten restarts under load: the pid stays, no request fails, and in the end there is
// one process.
func TestKeepPID(t *testing.T) {
	for _, standby := range []time.Duration{0, 100 * time.Millisecond} {
		t.Run(fmt.Sprint("standby ", standby), func(t *testing.T) {
			cfg := patient(keepPIDConfig())
			cfg.Standby = standby
			cfg.PIDFile = filepath.Join(t.TempDir(), "pid")
			s := testbin.Start(t, cfg)
			pid, addrs := s.Newest()
			kept, hangUp := testbin.Kept(addrs[0])
			load := testbin.NewLoad(t, append(targets(addrs), kept)...)
			load.WaitPID(pid)
			testbin.Poll(t, "the PID file to be written", func() bool { return readPID(t, filepath.Dir(cfg.PIDFile)) == pid })
			before := testbin.Ask(t, targets(addrs)[0], "fds")
			for range shorter(10, 3) {
				interim := restartInPlace(s, pid)
				testbin.Poll(t, "one process to be left", func() bool { return slices.Equal(s.Processes(), []int{pid}) })
				testbin.Poll(t, "the interim process to be reaped", func() bool { return len(testbin.Children(t, pid)) == 0 })
				for i, target := range targets(addrs) {
					if got := testbin.AskPID(t, target); got != pid {
						t.Errorf("address %d is answered by %d, want %d", i, got, pid)
					}
				}
				s.WaitLog(interim, fmt.Sprintf("draining successor=%d", pid))
				if got := readPID(t, filepath.Dir(cfg.PIDFile)); got != pid {
					t.Errorf("the PID file names %d, want %d", got, pid)
				}
			}
			load.Stop()
			hangUp()
			testbin.SameDescriptors(t, targets(addrs)[0], before)
			s.Stop()
			if _, err := os.Lstat(cfg.PIDFile); !os.IsNotExist(err) {
				t.Errorf("the PID file: %v, want it gone", err)
			}
		})
	}
}

// A request to restart is no harm at any moment, as long as nothing else is asked
// for: not to a program that is just being executed either.
func TestKeepPIDBurstOfRestarts(t *testing.T) {
	s := testbin.Start(t, patient(keepPIDConfig()))
	pid, addrs := s.Newest()
	load := testbin.NewLoad(t, targets(addrs)...)
	load.WaitPID(pid)
	executed := func() (n int) {
		for _, e := range s.Events() {
			if e.Event == play.Serving && e.PID == pid {
				n++
			}
		}
		return n
	}
	testbin.Poll(t, "the program to be executed five times", func() bool {
		for range 100 {
			s.Signal(pid, syscall.SIGUSR2)
			runtime.Gosched()
		}
		return executed() > 5
	})
	load.WaitPID(pid)
	load.Stop()
	s.WaitOne() // while it executes the program a request to stop can be lost
	s.Signal(pid, syscall.SIGTERM)
	s.WaitGone()
}

// The program that is executed is the one that is there now.
func TestKeepPIDRunsNewCode(t *testing.T) {
	cfg := keepPIDConfig()
	s := testbin.Start(t, cfg)
	pid, addrs := s.Newest()
	cfg.SetEnv = map[string]string{"GENERATION": "second"}
	s.Deploy(cfg)
	restartInPlace(s, pid)
	restartInPlace(s, pid)
	if got := testbin.Ask(t, targets(addrs)[0], "env GENERATION"); got != "second" {
		t.Errorf("the environment has %q, want that of the second configuration", got)
	}
	s.Stop()
}

// A restart that fails leaves the old program where it is.
func TestKeepPIDFailedRestart(t *testing.T) {
	cfg := patient(keepPIDConfig())
	s := testbin.Start(t, cfg)
	pid, addrs := s.Newest()
	load := testbin.NewLoad(t, targets(addrs)...)
	load.WaitPID(pid)
	for _, role := range []string{"exit", "panic", "rubbish"} {
		n := len(s.Events())
		s.Deploy(play.Config{Role: role})
		s.Signal(pid, syscall.SIGUSR2)
		s.WaitAfter(n, "the restart to fail", func(e play.Event) bool { return strings.Contains(e.Text, "restart failed") })
	}
	s.Deploy(cfg)
	restartInPlace(s, pid)
	load.Stop()
	s.Stop()
}

// The program is gone when it is to be executed: the interim process serves on, and
// the one with the pid stays until that is told to stop.
func TestKeepPIDCannotExecute(t *testing.T) {
	cfg := patient(keepPIDConfig())
	cfg.PIDFile = filepath.Join(t.TempDir(), "pid")
	s := testbin.Start(t, cfg)
	pid, addrs := s.Newest()
	c := testbin.Dial(t, play.Listen{}, addrs[0])
	release := filepath.Join(t.TempDir(), "release")
	c.Send(testbin.Request("until " + release))
	s.Wait("the slow request", asked("until "+release))
	_, interim := s.Restart()
	s.WaitLog(pid, "draining, to execute the program anew")
	load := testbin.NewLoad(t, targets(addrs)...)
	s.Install(filepath.Join(s.Dir(), "nothing"))
	touch(t, release)
	if got := c.Receive(); got.Body != strconv.Itoa(pid) {
		t.Errorf("got %+v, want an answer of %d", got, pid)
	}
	_ = c.Close()
	s.WaitLog(pid, "program can't be executed anew, the new process serves on")
	load.WaitPID(interim)
	load.Stop()
	if got := readPID(t, filepath.Dir(cfg.PIDFile)); got != pid {
		t.Errorf("the PID file names %d, want %d", got, pid)
	}
	s.Signal(pid, syscall.SIGTERM)
	s.WaitReturned(interim)
	if e := s.WaitReturned(pid); e.Event != play.Returned || e.Text != "" {
		t.Errorf("%s %s", e.Event, e.Text)
	}
	s.WaitGone()
	if got := readPID(t, filepath.Dir(cfg.PIDFile)); got != 0 {
		t.Errorf("the PID file is left behind, and names %d", got)
	}
}

// A slow request is answered by the old program, while the interim one answers
// others.
func TestKeepPIDFinishesRequests(t *testing.T) {
	cfg := keepPIDConfig()
	cfg.PIDFile = filepath.Join(t.TempDir(), "pid")
	s := testbin.Start(t, cfg)
	pid, addrs := s.Newest()
	c := testbin.Dial(t, play.Listen{}, addrs[0])
	release := filepath.Join(t.TempDir(), "release")
	c.Send(testbin.Request("until " + release))
	s.Wait("the slow request", asked("until "+release))
	n := len(s.Events())
	s.Signal(pid, syscall.SIGUSR2)
	s.WaitLog(pid, "draining, to execute the program anew")
	testbin.Poll(t, "an answer of the interim process", func() bool { return testbin.AskPID(t, targets(addrs)[0]) != pid })
	// The supervisor has to find the one that comes back.
	expect := func() {
		t.Helper()
		if got := readPID(t, filepath.Dir(cfg.PIDFile)); got != pid {
			t.Errorf("the PID file names %d, want %d", got, pid)
		}
	}
	expect()
	touch(t, release)
	if got := c.Receive(); got.Body != strconv.Itoa(pid) {
		t.Errorf("got %+v, want an answer of %d", got, pid)
	}
	waitInPlace(s, n, pid)
	expect()
	s.Stop()
}

// SIGTERM stops everything at every point of a restart, and cuts nothing.
func TestKeepPIDStops(t *testing.T) {
	for point, stopping := range map[string]string{
		"starting":             "draining",
		"standing by":          "stopping, and the new process too",
		"draining, to execute": "stopping, and the new process too",
	} {
		t.Run(point, func(t *testing.T) {
			cfg := keepPIDConfig()
			if point == "standing by" {
				cfg.Standby = time.Hour
			}
			s := testbin.Start(t, cfg)
			pid, addrs := s.Newest()
			c := testbin.Dial(t, play.Listen{}, addrs[0])
			release := filepath.Join(t.TempDir(), "release")
			c.Send(testbin.Request("until " + release))
			s.Wait("the slow request", asked("until "+release))
			reached := point
			if point == "starting" {
				cfg.Delay = time.Hour
				s.Deploy(cfg)
				reached = "new process started"
			}
			s.Signal(pid, syscall.SIGUSR2)
			s.WaitLog(pid, reached)
			s.Signal(pid, syscall.SIGTERM)
			s.WaitLog(pid, stopping)
			touch(t, release)
			if got := c.Receive(); got.Body != strconv.Itoa(pid) {
				t.Errorf("got %+v, want an answer of %d", got, pid)
			}
			if e := s.WaitReturned(pid); e.Event != play.Returned || e.Text != "" {
				t.Errorf("%s %s", e.Event, e.Text)
			}
			s.WaitGone()
		})
	}
}

// The control socket answers for the service, whichever process has it.
func TestKeepPIDControlSocket(t *testing.T) {
	cfg := keepPIDConfig()
	cfg.ControlSocket = "control"
	s := testbin.Start(t, cfg)
	pid, _ := s.Newest()
	c := s.Control("control")
	for generation := 1; generation < 4; generation++ { // the interim process is of the next one already
		testbin.Poll(t, "the service to be ready", func() bool {
			status, err := c.Status(t.Context())
			return err == nil && status.PID == pid && status.Phase == "serving" && status.Generation == generation
		})
		n := len(s.Events())
		if _, err := c.Upgrade(t.Context(), gracectl.UntilReady); err != nil {
			t.Fatal(err)
		}
		waitInPlace(s, n, pid)
	}
	s.Stop()
	if _, err := os.Lstat(c.Path); !os.IsNotExist(err) {
		t.Errorf("path of the control socket: %v, want it gone", err)
	}
}

// The process that serves in the interim dies: what comes then waits, and is
// answered when the program has been executed anew.
func TestKeepPIDInterimProcessDies(t *testing.T) {
	s := testbin.Start(t, keepPIDConfig())
	pid, addrs := s.Newest()
	slow := testbin.Dial(t, play.Listen{}, addrs[0])
	release := filepath.Join(t.TempDir(), "release")
	slow.Send(testbin.Request("until " + release))
	s.Wait("the slow request", asked("until "+release))
	_, interim := s.Restart()
	s.WaitLog(pid, "draining, to execute the program anew")
	n := len(s.Events())
	s.Signal(interim, syscall.SIGKILL)
	s.WaitLog(pid, "new process died, nobody accepts until the program is executed anew")
	waiting := testbin.Dial(t, play.Listen{}, addrs[0])
	waiting.Send(testbin.Request(""))
	touch(t, release)
	for _, c := range []*testbin.Wire{slow, waiting} {
		if got := c.Receive(); got.Body != strconv.Itoa(pid) {
			t.Errorf("got %+v, want an answer of %d", got, pid)
		}
	}
	s.WaitAfter(n, "the program to be executed anew", func(e play.Event) bool { return e.Event == play.Serving && e.PID == pid })
	testbin.Poll(t, "one process to be left", func() bool { return slices.Equal(s.Processes(), []int{pid}) })
	s.Stop()
}

// The process that was to come back is killed: the one that serves in the interim
// makes room for the one that the supervisor starts, at once.
func TestKeepPIDParentIsKilled(t *testing.T) {
	for _, point := range []string{"standing by", "draining, to execute"} {
		t.Run(point, func(t *testing.T) {
			cfg := keepPIDConfig()
			cfg.StopDelay = time.Hour
			if point == "standing by" {
				cfg.Standby = time.Hour
			}
			s := testbin.Start(t, cfg)
			pid, addrs := s.Newest()
			c := testbin.Dial(t, play.Listen{}, addrs[0])
			c.Send(testbin.Request("sleep 1h"))
			s.Wait("a request that holds the process", asked("sleep 1h"))
			_, interim := s.Restart()
			s.WaitLog(pid, point)
			s.WaitLog(interim, "the old process is told")
			s.Signal(pid, syscall.SIGKILL)
			s.WaitReturned(interim)
			s.WaitGone()
		})
	}
}

// readPID reads the PID file in dir; 0 if there is none.
func readPID(t *testing.T, dir string) int {
	t.Helper()
	b, err := os.ReadFile(filepath.Join(dir, "pid"))
	if os.IsNotExist(err) {
		return 0
	}
	pid, convErr := strconv.Atoi(strings.TrimSuffix(string(b), "\n"))
	if err != nil || convErr != nil {
		t.Fatalf("PID file: %q, %v", b, err)
	}
	return pid
}
