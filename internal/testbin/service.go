//go:build unix

package testbin

import (
	"bufio"
	"encoding/json"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/facebookgo/grace/internal/testbin/play"
)

// Patience is how long a test waits for what must happen. It is long, since a
// busy machine is no failure.
const Patience = 60 * time.Second

// Service is a server and all generations that come after it. They share the
// standard output of the first one, so its end of file shows that all are gone.
type Service struct {
	t   testing.TB
	dir string

	mu      sync.Mutex
	changed chan struct{} // closed at each event
	events  []play.Event
	stderr  strings.Builder
	ended   chan struct{} // closed at end of file

	first *exec.Cmd
}

// Option changes how the first process is started.
type Option func(*Service, *exec.Cmd)

// Env adds variables to the environment.
func Env(kv ...string) Option {
	return func(_ *Service, cmd *exec.Cmd) { cmd.Env = append(cmd.Env, kv...) }
}

// Files passes files as descriptors 3 and up.
func Files(files ...*os.File) Option {
	return func(_ *Service, cmd *exec.Cmd) { cmd.ExtraFiles = files }
}

// Argv0 starts the program under another name: "./server" in its directory.
func Argv0(name string) Option {
	return func(_ *Service, cmd *exec.Cmd) { cmd.Path, cmd.Args[0] = name, name }
}

// OwnListenPID sets LISTEN_PID to the pid of the process, as service managers do.
func OwnListenPID() Option { return ownPID("LISTEN_PID") }

// OwnWatchdogPID does so with WATCHDOG_PID.
func OwnWatchdogPID() Option { return ownPID("WATCHDOG_PID") }

func ownPID(name string) Option {
	return func(_ *Service, cmd *exec.Cmd) {
		cmd.Args = []string{"sh", "-c", name + `=$$ exec "$0"`, cmd.Path}
		cmd.Path = "/bin/sh"
	}
}

// OwnGroup makes the first process the leader of a process group.
func OwnGroup() Option {
	return func(_ *Service, cmd *exec.Cmd) { cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true} }
}

// Under starts the program by another one, which gets its path as argument.
func Under(wrapper string) Option {
	return func(_ *Service, cmd *exec.Cmd) {
		cmd.Args = []string{wrapper, cmd.Path}
		cmd.Path = wrapper
	}
}

// Dir starts the program in another directory.
func Dir(dir string) Option {
	return func(_ *Service, cmd *exec.Cmd) { cmd.Dir = dir }
}

// Start starts a service and waits until it serves, or has failed. What is left
// of it when the test ends is killed.
func Start(t testing.TB, cfg play.Config, options ...Option) *Service {
	t.Helper()
	return StartProgram(t, Executable(t), cfg, options...)
}

// StartProgram is Start for another program than the test binary.
func StartProgram(t testing.TB, program string, cfg play.Config, options ...Option) *Service {
	t.Helper()
	s := Launch(t, program, cfg, options...)
	e := s.Wait("the first process to serve", func(e play.Event) bool {
		return e.Event == play.Serving || e.Event == play.Failed
	})
	if e.Event == play.Failed {
		t.Fatalf("the first process failed: %s", e.Text)
	}
	return s
}

// Launch is StartProgram without waiting.
func Launch(t testing.TB, program string, cfg play.Config, options ...Option) *Service {
	t.Helper()
	s := &Service{t: t, dir: t.TempDir(), changed: make(chan struct{}), ended: make(chan struct{})}
	s.Deploy(cfg)
	s.Install(program)
	r, w, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	er, ew, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	cmd := exec.Command(s.Path())
	cmd.Dir = s.dir
	cmd.Env = append(environ(), play.EnvConfig+"="+filepath.Join(s.dir, "config"),
		"GORACE=atexit_sleep_ms=0") // else each process takes a second to exit
	cmd.Stdout, cmd.Stderr = w, ew
	for _, o := range options {
		o(s, cmd)
	}
	cmd.Env = slices.DeleteFunc(cmd.Env, func(kv string) bool { return kv == "" })
	err = cmd.Start()
	w.Close()
	ew.Close()
	if err != nil {
		t.Fatal(err)
	}
	s.first = cmd
	var readers sync.WaitGroup
	readers.Add(2)
	go func() { defer readers.Done(); s.readEvents(r) }()
	go func() { defer readers.Done(); s.readErrors(er) }()
	waited := make(chan struct{})
	go func() { defer close(waited); _ = cmd.Wait() }()
	t.Cleanup(func() {
		s.kill()
		<-waited
		readers.Wait()
		if strings.Contains(s.stderr.String(), "DATA RACE") {
			t.Error("a process reported a data race")
		}
		if t.Failed() {
			t.Logf("what happened:\n%s", s.history())
		}
	})
	return s
}

// environ is our environment without what a service manager may have set in it.
func environ() []string {
	return slices.DeleteFunc(os.Environ(), func(kv string) bool {
		return strings.HasPrefix(kv, "LISTEN_") || strings.HasPrefix(kv, "NOTIFY_SOCKET=") || strings.HasPrefix(kv, "INVOCATION_ID=")
	})
}

// Executable is the test binary.
func Executable(t testing.TB) string {
	t.Helper()
	path, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	return path
}

var oldDir string // removed by Main

var buildOld = sync.OnceValues(func() (string, error) {
	dir, err := os.MkdirTemp("", "oldgrace")
	if err != nil {
		return "", err
	}
	oldDir = dir
	path := filepath.Join(dir, "oldgrace")
	out, err := exec.Command("go", "build", "-o", path, "github.com/facebookgo/grace/internal/testbin/oldgrace").CombinedOutput()
	if err != nil {
		return "", fmt.Errorf("build oldgrace: %w\n%s", err, out)
	}
	return path, nil
})

// OldGrace is a server with the protocol of the original, without this library.
func OldGrace(t testing.TB) string {
	t.Helper()
	path, err := buildOld()
	if err != nil {
		t.Fatal(err)
	}
	return path
}

// Path is the link under which the service is started.
func (s *Service) Path() string { return filepath.Join(s.dir, "server") }

// Dir is the directory in which the service is started.
func (s *Service) Dir() string { return s.dir }

// Install makes the path of the service a link to target, in one step.
func (s *Service) Install(target string) {
	s.t.Helper()
	link := filepath.Join(s.dir, "link")
	if err := os.Symlink(target, link); err != nil {
		s.t.Fatal(err)
	}
	if err := os.Rename(link, s.Path()); err != nil {
		s.t.Fatal(err)
	}
}

// Deploy makes cfg what the next process does.
func (s *Service) Deploy(cfg play.Config) {
	s.t.Helper()
	b, err := json.Marshal(cfg)
	if err != nil {
		s.t.Fatal(err)
	}
	name := filepath.Join(s.dir, "config")
	if err := os.WriteFile(name+".new", b, 0o600); err != nil {
		s.t.Fatal(err)
	}
	if err := os.Rename(name+".new", name); err != nil {
		s.t.Fatal(err)
	}
}

func (s *Service) readEvents(r *os.File) {
	defer r.Close()
	defer close(s.ended)
	lines := bufio.NewScanner(r)
	for lines.Scan() {
		var e play.Event
		if err := json.Unmarshal(lines.Bytes(), &e); err != nil {
			e = play.Event{Event: "not an event", Text: lines.Text()}
		}
		s.mu.Lock()
		s.events = append(s.events, e)
		close(s.changed)
		s.changed = make(chan struct{})
		s.mu.Unlock()
	}
}

func (s *Service) readErrors(r *os.File) {
	defer r.Close()
	lines := bufio.NewScanner(r)
	for lines.Scan() {
		s.mu.Lock()
		fmt.Fprintln(&s.stderr, lines.Text())
		s.mu.Unlock()
	}
}

// Errors returns what was written to standard error so far.
func (s *Service) Errors() string {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.stderr.String()
}

// Events returns what has happened so far.
func (s *Service) Events() []play.Event {
	s.mu.Lock()
	defer s.mu.Unlock()
	return slices.Clone(s.events)
}

// Wait returns the first event of all that have come, or will, that match
// accepts.
func (s *Service) Wait(what string, match func(play.Event) bool) play.Event {
	s.t.Helper()
	return s.WaitAfter(0, what, match)
}

// WaitAfter is Wait for the events after the first n.
func (s *Service) WaitAfter(n int, what string, match func(play.Event) bool) play.Event {
	s.t.Helper()
	timeout := time.After(Patience)
	for {
		s.mu.Lock()
		events, changed := s.events, s.changed
		s.mu.Unlock()
		for ; n < len(events); n++ {
			if match(events[n]) {
				return events[n]
			}
		}
		select {
		case <-changed:
		case <-s.ended:
			s.mu.Lock()
			more := n < len(s.events)
			s.mu.Unlock()
			if !more {
				s.t.Fatalf("all processes have gone; waited for %s", what)
			}
		case <-timeout:
			s.t.Fatalf("waited in vain for %s", what)
		}
	}
}

// WaitLog waits until the process pid has logged a line with text; any process
// if pid is 0.
func (s *Service) WaitLog(pid int, text string) play.Event {
	s.t.Helper()
	return s.Wait(fmt.Sprintf("pid %d to log %q", pid, text), func(e play.Event) bool {
		return e.Event == play.Log && (pid == 0 || e.PID == pid) && strings.Contains(e.Text, text)
	})
}

// Newest returns the last process that said it serves, and its addresses.
func (s *Service) Newest() (pid int, addrs []string) {
	s.t.Helper()
	events := s.Events()
	for i := len(events) - 1; i >= 0; i-- {
		if e := events[i]; e.Event == play.Serving {
			return e.PID, e.Addrs
		}
	}
	s.t.Fatal("no process serves")
	return 0, nil
}

// Signal sends sig to a process of the service.
func (s *Service) Signal(pid int, sig syscall.Signal) {
	s.t.Helper()
	if err := syscall.Kill(pid, sig); err != nil {
		s.t.Fatalf("send %v to %d: %v", sig, pid, err)
	}
}

// Restart sends SIGUSR2 to the newest process and waits until another one
// serves. It returns both pids.
func (s *Service) Restart() (old, new int) {
	s.t.Helper()
	old, _ = s.Newest()
	return old, s.RestartPID(old)
}

// RestartPID is Restart for a process that need not be the newest.
func (s *Service) RestartPID(old int) (new int) {
	s.t.Helper()
	n := len(s.Events())
	s.Signal(old, syscall.SIGUSR2)
	e := s.WaitAfter(n, "the next generation to serve", func(e play.Event) bool {
		return e.Event == play.Serving && e.PID != old
	})
	return e.PID
}

// WaitReturned waits until Serve of the process pid has returned.
func (s *Service) WaitReturned(pid int) play.Event {
	s.t.Helper()
	return s.Wait(fmt.Sprintf("pid %d to return", pid), func(e play.Event) bool {
		return e.PID == pid && (e.Event == play.Returned || e.Event == play.Failed)
	})
}

// Stop sends SIGTERM to the newest process and waits until all have gone.
func (s *Service) Stop() {
	s.t.Helper()
	pid, _ := s.Newest()
	s.Signal(pid, syscall.SIGTERM)
	s.WaitGone()
}

// Gone is closed when no process of the service is left.
func (s *Service) Gone() <-chan struct{} { return s.ended }

// WaitGone waits until no process of the service is left.
func (s *Service) WaitGone() {
	s.t.Helper()
	select {
	case <-s.ended:
	case <-time.After(Patience):
		s.t.Fatal("processes are left")
	}
}

// Poll waits until done reports true, which nothing announces.
func Poll(t testing.TB, what string, done func() bool) {
	t.Helper()
	for deadline := time.Now().Add(Patience); !done(); time.Sleep(5 * time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatalf("waited in vain for %s", what)
		}
	}
}

// Processes returns the pids of all processes of the service.
func (s *Service) Processes() []int { return s.alive() }

// WaitExit waits until the process pid has exited. It may be a zombie.
func (s *Service) WaitExit(pid int) {
	s.t.Helper()
	Poll(s.t, fmt.Sprintf("pid %d to exit", pid), func() bool { return !slices.Contains(s.alive(), pid) })
}

// WaitOne waits until one process is left and no restart that was asked for is
// still to be begun.
func (s *Service) WaitOne() {
	s.t.Helper()
	Poll(s.t, "one process to be left", func() bool {
		waiting := map[int]bool{}
		for _, e := range s.Events() {
			switch {
			case strings.Contains(e.Text, "restart waits until"):
				waiting[e.PID] = true
			case strings.Contains(e.Text, "new process started"), strings.Contains(e.Text, "restart failed"):
				delete(waiting, e.PID)
			}
		}
		newest, _ := s.Newest()
		alive := s.alive()
		return len(waiting) == 0 && len(alive) == 1 && alive[0] == newest
	})
}

// kill ends every process that is left. It knows them by their events, and those
// that never said anything by the configuration that is in their environment.
func (s *Service) kill() {
	for {
		for _, pid := range s.alive() {
			_ = syscall.Kill(pid, syscall.SIGKILL)
		}
		select {
		case <-s.ended:
			return
		case <-time.After(50 * time.Millisecond):
		}
	}
}

// alive returns the pids of processes that have our configuration.
func (s *Service) alive() []int {
	var pids []int
	mark := play.EnvConfig + "=" + filepath.Join(s.dir, "config") + "\x00"
	environs, _ := filepath.Glob("/proc/[0-9]*/environ")
	for _, name := range environs {
		if b, err := os.ReadFile(name); err == nil && strings.Contains(string(b)+"\x00", mark) {
			var pid int
			if _, err := fmt.Sscanf(name, "/proc/%d/environ", &pid); err == nil && pid != os.Getpid() {
				pids = append(pids, pid)
			}
		}
	}
	if len(environs) == 0 { // no /proc
		for _, e := range s.Events() {
			pids = append(pids, e.PID)
		}
	}
	return pids
}

// Freeze stops a process with SIGSTOP and returns when it does nothing more.
func (s *Service) Freeze(pid int) {
	s.t.Helper()
	s.Signal(pid, syscall.SIGSTOP)
	Poll(s.t, fmt.Sprintf("pid %d to stop", pid), func() bool {
		p, err := readStat(fmt.Sprintf("/proc/%d/stat", pid))
		return err != nil || p.state == "T"
	})
}

// stat is what /proc/PID/stat says of a process.
type stat struct {
	pid, parent int
	state       string
}

func readStat(name string) (stat, error) {
	var p stat
	b, err := os.ReadFile(name)
	if err != nil {
		return p, err
	}
	// pid (name) state parent
	end := strings.LastIndexByte(string(b), ')')
	if _, err := fmt.Sscan(string(b), &p.pid); err != nil {
		return p, err
	}
	_, err = fmt.Sscan(string(b[end+1:]), &p.state, &p.parent)
	return p, err
}

// Children returns the pids of the children of pid, zombies too.
func Children(t testing.TB, pid int) []int {
	t.Helper()
	names, err := filepath.Glob("/proc/[0-9]*/stat")
	if err != nil || len(names) == 0 {
		t.Fatal("no /proc")
	}
	var pids []int
	for _, name := range names {
		// One that can't be read has gone since.
		if p, err := readStat(name); err == nil && p.parent == pid {
			pids = append(pids, p.pid)
		}
	}
	return pids
}

// ResidentKB is the memory of a process in KiB.
func ResidentKB(t testing.TB, pid int) int {
	t.Helper()
	b, err := os.ReadFile(fmt.Sprintf("/proc/%d/statm", pid))
	var size, pages int
	if err == nil {
		_, err = fmt.Sscan(string(b), &size, &pages)
	}
	if err != nil {
		t.Fatal(err)
	}
	return pages * os.Getpagesize() / 1024
}

func (s *Service) history() string {
	var b strings.Builder
	for _, e := range s.Events() {
		fmt.Fprintf(&b, "%d %s %v %s\n", e.PID, e.Event, e.Addrs, e.Text)
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	return b.String() + s.stderr.String()
}
