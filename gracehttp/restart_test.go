//go:build unix

package gracehttp_test

import (
	"fmt"
	"io"
	"net"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/facebookgo/grace/internal/testbin"
	"github.com/facebookgo/grace/internal/testbin/play"
)

func httpConfig() play.Config {
	return play.Config{Role: "http", Listens: []play.Listen{
		{Addr: "127.0.0.1:0"},
		{Addr: ""},
		{Addr: "127.0.0.1:0", TLS: true},
	}}
}

// patient is cfg with time for clients on a busy machine, which may be a while between
// connecting and sending a request. Connections that nobody uses hold up the drain.
func patient(cfg play.Config) play.Config {
	cfg.IdleGrace = testbin.Patience
	return cfg
}

// targets asks each address of httpConfig on fresh connections.
func targets(addrs []string) []testbin.Target {
	_, port, _ := strings.Cut(addrs[1], "]:") // [::]:port
	return []testbin.Target{
		testbin.HTTP("http", addrs[0]),
		testbin.HTTP("http", "127.0.0.1:"+port),
		testbin.HTTP("https", addrs[2]),
	}
}

func TestRestartUnderLoad(t *testing.T) {
	s := testbin.Start(t, patient(httpConfig()))
	first, addrs := s.Newest()
	load := testbin.NewLoad(t, targets(addrs)...)
	load.WaitPID(first)
	before := testbin.Ask(t, targets(addrs)[0], "fds")
	pids := map[int]bool{first: true}
	for range 5 {
		old, new := s.Restart()
		if pids[new] {
			t.Fatalf("pid %d has served before", new)
		}
		pids[new] = true
		load.WaitPID(new)
		if e := s.WaitReturned(old); e.Text != "" || e.Event != play.Returned {
			t.Fatalf("Serve of %d: %s %s", old, e.Event, e.Text)
		}
		_, now := s.Newest()
		if fmt.Sprint(now) != fmt.Sprint(addrs) {
			t.Fatalf("addresses changed from %v to %v", addrs, now)
		}
		for i, target := range targets(addrs) {
			if pid := testbin.AskPID(t, target); pid != new {
				t.Errorf("address %d is answered by %d, want %d", i, pid, new)
			}
		}
		s.WaitLog(new, fmt.Sprintf("Graceful handoff of %s with new pid %d and old pid %d", strings.Join(addrs, ", "), new, old))
		s.WaitLog(old, fmt.Sprintf("Exiting pid %d.", old))
	}
	load.Stop()
	// Descriptors that a generation has too many would be passed on for ever.
	testbin.SameDescriptors(t, targets(addrs)[0], before)
	last, _ := s.Newest()
	if c := testbin.Children(t, last); len(c) != 0 {
		t.Errorf("pid %d has the children %v", last, c)
	}
	s.Stop()
}

// Clients that keep their connections and never try again lose no request. Each
// of them makes its next request before the standby ends, also on a busy machine.
func TestKeepAliveLosesNothing(t *testing.T) {
	s := testbin.Start(t, play.Config{Role: "http", Listens: []play.Listen{{Addr: "127.0.0.1:0"}}, Standby: time.Hour})
	first, addrs := s.Newest()
	var clients []testbin.Target
	var last [64]atomic.Value // the last answer of each
	for i := range last {
		ask := testbin.KeepAlive(addrs[0])
		clients = append(clients, func(question string) (string, error) {
			answer, err := ask(question)
			last[i].Store(answer)
			return answer, err
		})
	}
	load := testbin.NewLoad(t, clients...)
	load.WaitPID(first)
	for range 2 {
		old, new := s.Restart()
		s.WaitLog(old, "standing by")
		for i := range last {
			testbin.Poll(t, "an answer of the new process", func() bool { return last[i].Load() == strconv.Itoa(new) })
		}
		s.Signal(old, syscall.SIGTERM) // ends the standby
		s.WaitReturned(old)
	}
	load.Stop()
	s.Stop()
}

// Several calls of Serve in one process share one inheritance and one restart.
func TestTwoServesRestartOnce(t *testing.T) {
	cfg := patient(httpConfig())
	cfg.Role = "twice"
	cfg.Listens[0].Addr = "127.0.0.2:0" // no two the same: who asks first is by chance
	s := testbin.Start(t, cfg)
	first, addrs := s.Newest()
	load := testbin.NewLoad(t, targets(addrs)...)
	load.WaitPID(first)
	for range 3 {
		old, new := s.Restart()
		load.WaitPID(new)
		if e := s.WaitReturned(old); e.Event != play.Returned || e.Text != "" {
			t.Fatalf("pid %d: %s %s", old, e.Event, e.Text)
		}
		for i, target := range targets(addrs) {
			if pid := testbin.AskPID(t, target); pid != new {
				t.Errorf("address %d is answered by %d, want %d", i, pid, new)
			}
		}
	}
	load.Stop()
	pids := map[int]bool{}
	for _, e := range s.Events() {
		pids[e.PID] = true
	}
	if len(pids) != 4 {
		t.Errorf("%d processes were started, want 4", len(pids))
	}
	s.Stop()
}

// A program may come to Wait when its other servers have been replaced, or stopped:
// what it listens on is closed then, and it exits.
func TestWaitComesLate(t *testing.T) {
	path := filepath.Join(t.TempDir(), "socket")
	for name, late := range map[string][]play.Listen{
		"listeners": {{Network: "tcp4", Addr: "127.0.0.1:0"}, {Network: "unix", Addr: path}},
		"packets":   {{Network: "udp", Addr: "127.0.0.1:0"}},
	} {
		t.Run(name, func(t *testing.T) {
			cfg := play.Config{Role: "late", Listens: append(late, play.Listen{Network: "tcp", Addr: "127.0.0.1:0"})}
			s := testbin.Start(t, cfg)
			_, addrs := s.Newest()
			for range 2 {
				old, new := s.Restart()
				if e := s.WaitReturned(old); e.Event != play.Returned || e.Text != "" {
					t.Fatalf("pid %d: %s %s", old, e.Event, e.Text)
				}
				if pid := testbin.AskPID(t, testbin.HTTP("http", addrs[0])); pid != new {
					t.Errorf("answered by %d, want %d", pid, new)
				}
				if name != "listeners" {
					continue
				}
				if pid := testbin.AskPID(t, testbin.Lines("unix", path)); pid != new {
					t.Errorf("answered by %d, want %d", pid, new)
				}
			}
			s.Stop()
			if _, err := os.Lstat(path); !os.IsNotExist(err) {
				t.Errorf("path of the unix socket: %v, want it gone", err)
			}
		})
	}
}

// An address that the new version does not listen on is served to the end by the
// old one, and is free then.
func TestAddressIsDropped(t *testing.T) {
	cfg := httpConfig()
	cfg.Standby = time.Hour
	cfg.Listens[0].Addr = "127.0.0.2:0" // not the same as another one
	s := testbin.Start(t, cfg)
	old, addrs := s.Newest()
	less := cfg
	less.Listens = cfg.Listens[1:]
	s.Deploy(less)
	new := s.RestartPID(old)
	s.WaitLog(old, "standing by")
	// This one waits for a process that nobody starts; the last holder answers.
	answer := make(chan string)
	begun := make(chan struct{})
	go func() {
		c, err := net.Dial("tcp", addrs[0])
		if err != nil {
			close(begun)
			answer <- err.Error()
			return
		}
		defer c.Close()
		fmt.Fprint(c, "GET / HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n")
		close(begun)
		b, err := io.ReadAll(c)
		answer <- fmt.Sprint(string(b), err)
	}()
	<-begun
	s.Signal(old, syscall.SIGTERM)
	if got := <-answer; !strings.Contains(got, "200 OK") || !strings.Contains(got, strconv.Itoa(old)) {
		t.Errorf("the dropped address answers %q, want %d", got, old)
	}
	s.WaitReturned(old)
	l, err := net.Listen("tcp", addrs[0])
	if err != nil {
		t.Errorf("the dropped address is not free: %v", err)
	} else {
		l.Close()
	}
	if pid := testbin.AskPID(t, targets(addrs)[2]); pid != new {
		t.Errorf("answered by %d, want %d", pid, new)
	}
	s.Stop()
}

// A slow request is finished by the old process, and quick ones are answered by
// the new one meanwhile.
func TestSlowRequestIsFinished(t *testing.T) {
	s := testbin.Start(t, play.Config{Role: "http", Listens: []play.Listen{{Addr: "127.0.0.1:0"}}})
	first, addrs := s.Newest()
	target := testbin.HTTP("http", addrs[0])
	release := filepath.Join(t.TempDir(), "release")
	slow := make(chan string)
	go func() {
		answer, err := target("until " + release)
		slow <- fmt.Sprint(answer, err)
	}()
	s.Wait("the slow request to begin", asked("until "+release))
	_, second := s.Restart()
	s.WaitLog(first, "draining")
	if pid := testbin.AskPID(t, target); pid != second {
		t.Errorf("answered by %d, want %d", pid, second)
	}
	select {
	case answer := <-slow:
		t.Fatalf("the slow request was over before the quick one: %s", answer)
	default:
	}
	create(t, release)
	if got, want := <-slow, fmt.Sprint(strconv.Itoa(first), error(nil)); got != want {
		t.Errorf("slow request: %s, want %s", got, want)
	}
	s.WaitReturned(first)
	s.Stop()
}

// A request on a connection that was accepted before, or that waits in the queue
// of the kernel, is answered when the last process stops.
func TestStopAnswersWhatIsInFlight(t *testing.T) {
	s := testbin.Start(t, play.Config{Role: "http", Listens: []play.Listen{{Addr: "127.0.0.1:0"}}})
	pid, addrs := s.Newest()
	target := testbin.HTTP("http", addrs[0])
	answers := make(chan string)
	for range 10 {
		go func() {
			answer, err := target("sleep 1s")
			answers <- fmt.Sprint(answer, err)
		}()
	}
	n := 0
	s.Wait("all requests to begin", func(e play.Event) bool {
		if e.Event == play.Asked {
			n++
		}
		return n == 10
	})
	s.Signal(pid, syscall.SIGTERM)
	for range 10 {
		if got, want := <-answers, fmt.Sprint(strconv.Itoa(pid), error(nil)); got != want {
			t.Errorf("got %s, want %s", got, want)
		}
	}
	s.WaitGone()
	if e := s.WaitReturned(pid); e.Text != "" {
		t.Errorf("Serve returned %q", e.Text)
	}
}

// Idle connections, and those that were never used, do not hold up a stop.
func TestStopDoesNotWaitForIdleConnections(t *testing.T) {
	// Without care it takes the 5 seconds of net/http. Any one may be slow on a busy
	// machine.
	const most, tries = 4 * time.Second, 5
	for _, sig := range []syscall.Signal{syscall.SIGTERM, syscall.SIGINT} {
		fastest := time.Hour
		for try := 0; try < tries && fastest > most; try++ {
			s := testbin.Start(t, play.Config{Role: "http", Listens: []play.Listen{{Addr: "127.0.0.1:0"}}})
			pid, addrs := s.Newest()
			testbin.Ask(t, testbin.KeepAlive(addrs[0]), "")
			dial(t, addrs[0]) // sends nothing
			begin := time.Now()
			s.Signal(pid, sig)
			s.WaitGone()
			fastest = min(fastest, time.Since(begin))
		}
		if fastest > most {
			t.Errorf("%v took %v at best", sig, fastest)
		}
	}
}

// Hijacked connections hold up neither a restart nor a stop.
func TestHijackedConnectionsDelayNothing(t *testing.T) {
	s := testbin.Start(t, play.Config{Role: "http", Listens: []play.Listen{{Addr: "127.0.0.1:0"}}})
	_, addrs := s.Newest()
	hijack := func() net.Conn {
		c := dial(t, addrs[0])
		fmt.Fprint(c, "GET /hijack HTTP/1.1\r\nHost: x\r\n\r\n")
		b := make([]byte, len("taken\n"))
		if _, err := io.ReadFull(c, b); err != nil || string(b) != "taken\n" {
			t.Fatalf("read %q, %v", b, err)
		}
		return c
	}
	hijack()
	old, _ := s.Restart()
	s.WaitReturned(old) // long before StopTimeout, which is as long as our patience
	hijack()
	s.Stop()
}

func TestSecondSignalKills(t *testing.T) {
	s := testbin.Start(t, play.Config{Role: "http", Listens: []play.Listen{{Addr: "127.0.0.1:0"}}})
	pid, addrs := s.Newest()
	go testbin.HTTP("http", addrs[0])("sleep 1h")
	s.Wait("the request to begin", asked("sleep 1h"))
	s.Signal(pid, syscall.SIGTERM)
	s.WaitLog(pid, "draining")
	n := 0
	for alive := true; alive; n++ {
		// The default action is back some microseconds after the log line.
		_ = syscall.Kill(pid, syscall.SIGTERM)
		select {
		case <-s.Gone():
			alive = false
		case <-time.After(20 * time.Millisecond):
		}
		if n > 500 {
			t.Fatal("it does not die")
		}
	}
}

// The program, its directory, arguments and environment are looked at anew.
func TestNewProcessIsWhatIsThereNow(t *testing.T) {
	cfg := play.Config{
		Role:    "http",
		Listens: []play.Listen{{Addr: "127.0.0.1:0"}},
		Chdir:   "/",
		SetEnv:  map[string]string{"SET_BY_HOOK": "yes"},
	}
	// A relative name is found from the directory of the start, though the
	// process has left it.
	s := testbin.Start(t, cfg, testbin.Argv0("./server"))
	first, addrs := s.Newest()
	target := testbin.HTTP("http", addrs[0])
	if dir := testbin.Ask(t, target, "dir"); dir != "/" {
		t.Fatalf("directory is %s", dir)
	}
	cfg.Chdir = ""
	s.Deploy(cfg)
	_, second := s.Restart()
	s.WaitReturned(first)
	dir, err := filepath.EvalSymlinks(s.Dir())
	if err != nil {
		t.Fatal(err)
	}
	for question, want := range map[string]string{
		"dir":                dir,
		"env SET_BY_HOOK":    "yes",
		"env LISTEN_FDS":     "1",
		"env LISTEN_PID":     strconv.Itoa(second),
		"env GRACE_HANDOVER": "",
	} {
		if got := testbin.Ask(t, target, question); got != want {
			t.Errorf("%s: %q, want %q", question, got, want)
		}
	}
	s.Stop()
}

// A program that is started by the service keeps its hands off the sockets.
func TestCommandOfTheServiceInheritsNothing(t *testing.T) {
	s := testbin.Start(t, play.Config{Role: "http", Listens: []play.Listen{{Addr: "127.0.0.1:0"}}})
	first, _ := s.Newest()
	s.Restart() // LISTEN_FDS and LISTEN_PID are set now
	s.WaitReturned(first)
	second, addrs := s.Newest()
	s.Deploy(play.Config{Role: "env", Listens: []play.Listen{{Network: "tcp", Addr: "127.0.0.1:0"}}})
	out := testbin.Ask(t, testbin.HTTP("http", addrs[0]), "run")
	for _, want := range []string{"LISTEN_FDS=1 LISTEN_PID=" + strconv.Itoa(second), "listen: no error", "inherit: grace: no inherited listeners"} {
		if !strings.Contains(out, want) {
			t.Errorf("no %q in %s", want, out)
		}
	}
	s.Stop()
}

// asked accepts the event that a request which takes time has begun.
func asked(question string) func(play.Event) bool {
	return func(e play.Event) bool { return e.Event == play.Asked && e.Text == question }
}

// dial opens a connection that is closed when the test ends.
func dial(t *testing.T, addr string) net.Conn {
	t.Helper()
	c, err := net.Dial("tcp", addr)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { c.Close() })
	return c
}
