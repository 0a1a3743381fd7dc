//go:build unix

package gracetest

import (
	"cmp"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"syscall"
	"time"

	"github.com/facebookgo/grace/internal/proc"
)

// variable is in the environment of each process of a service, with its directory.
const variable = "GRACETEST"

// Service is a program that a test has started, and every process that has come of
// it: the generations after the first one, and what they have started. It runs through
// a symbolic link of its own, which [Service.Install] moves, as deploys do.
//
// It is made by [Start] or [Launch]; its fields may be set after that. The methods may be
// called by several goroutines at once.
type Service struct {
	// RestartSignal asks for a restart: by default SIGUSR2.
	RestartSignal syscall.Signal
	// StopSignal asks for the end: by default SIGTERM.
	StopSignal syscall.Signal
	// KeepsPID says that a restart keeps the pid: it is over when the processes that
	// it has started have gone again. By default it does not.
	KeepsPID bool
	// Patience is how long the service may take for what it must do before the test
	// fails: by default [Patience].
	Patience time.Duration

	t       TB
	dir     string
	group   int // the process group, if the service has one of its own
	journal *journal
	ended   chan struct{} // closed at the end of standard output
	written chan struct{} // closed when all that is recorded has ended
	left    chan struct{} // closed when the first process has exited

	mu    sync.Mutex
	main  int
	known map[proc.Process]bool // those that have not been seen to exit
}

// Start starts a service, and kills what is left of it when the test ends. Instead of
// the program that cmd names, a link to it is run. What the service writes is recorded,
// and logged if the test fails, unless cmd says where it goes; a data race that it reports
// fails the test. Where cmd sets no environment it is [Environ].
//
// It can't end what is left when the test binary dies: by the timeout of go test, or a
// panic that is not the test's own.
//
// Start does not wait until the service serves: see [Service.WaitAnswer] and
// [Service.WaitLine].
func Start(t TB, cmd *exec.Cmd) *Service {
	t.Helper()
	if cmd.Err != nil {
		t.Fatalf("start the service: %v", cmd.Err)
	}
	program := cmd.Path
	if !filepath.IsAbs(program) {
		program = filepath.Join(cmd.Dir, program) // as os/exec takes it
	}
	program, err := filepath.Abs(program)
	if err != nil {
		t.Fatalf("start the service: %v", err)
	}
	return Launch(t, program, func(s *Service) *exec.Cmd {
		if len(cmd.Args) == 0 {
			cmd.Args = []string{""}
		}
		cmd.Path, cmd.Args[0] = s.Path(), s.Path()
		return cmd
	})
}

// Launch is Start for tests that run the link in another way: by a wrapper, say.
// command gets the service, with a directory and a link to program, and returns what is
// to be started.
func Launch(t TB, program string, command func(*Service) *exec.Cmd) *Service {
	t.Helper()
	s := &Service{
		RestartSignal: syscall.SIGUSR2,
		StopSignal:    syscall.SIGTERM,
		Patience:      Patience,
		t:             t,
		dir:           t.TempDir(),
		journal:       newJournal(),
		ended:         make(chan struct{}),
		written:       make(chan struct{}),
		left:          make(chan struct{}),
		known:         make(map[proc.Process]bool),
	}
	s.Install(program)
	noProc := len(proc.PIDs()) == 0
	cmd := command(s)
	if cmd.Env == nil {
		cmd.Env = Environ()
	}
	cmd.Env = append(cmd.Env, s.variable(), "GORACE=atexit_sleep_ms=0") // else each process takes a second to exit
	if noProc && cmd.SysProcAttr == nil {
		cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	}
	var readers sync.WaitGroup
	var ours, theirs []*os.File
	record := func(isError bool, ended chan struct{}) *os.File {
		r, w, err := os.Pipe()
		if err != nil {
			t.Fatalf("start the service: %v", err)
		}
		ours, theirs = append(ours, r), append(theirs, w)
		readers.Add(1)
		go func() {
			defer readers.Done()
			s.journal.read(r, isError)
			if ended != nil {
				close(ended)
			}
		}()
		return w
	}
	if cmd.Stdout == nil {
		cmd.Stdout = record(false, s.ended)
	}
	if cmd.Stderr == nil {
		cmd.Stderr = record(true, nil)
	}
	err := cmd.Start()
	for _, w := range theirs {
		w.Close()
	}
	go func() {
		defer close(s.written)
		readers.Wait()
	}()
	if err != nil {
		t.Fatalf("start %s: %v", program, err)
	}
	s.main = cmd.Process.Pid
	if cmd.SysProcAttr != nil && cmd.SysProcAttr.Setpgid {
		s.group = s.main
	}
	s.journal.note("process %d was started", s.main)
	if p, err := proc.ReadStat(s.main); err == nil { // its environment can't be read for a moment
		s.known[p.Process] = true
	}
	go func() {
		defer close(s.left)
		_ = cmd.Wait() // does not wait for the pipes, which are files
	}()
	t.Cleanup(func() {
		s.t.Helper()
		s.kill()
		<-s.left
		for _, r := range ours { // somebody else may hold the other end
			_ = r.SetReadDeadline(time.Now().Add(strangers))
		}
		<-s.written
		s.finish()
	})
	return s
}

// Environ is the environment of the test without what a service manager, or a test
// above this one, has set in it.
func Environ() []string {
	return slices.DeleteFunc(os.Environ(), func(kv string) bool {
		name, _, _ := strings.Cut(kv, "=")
		return strings.HasPrefix(name, "LISTEN_") || slices.Contains([]string{"NOTIFY_SOCKET", "INVOCATION_ID", variable}, name)
	})
}

func (s *Service) variable() string { return variable + "=" + s.dir }

// finish says what is to be said when the test is over.
func (s *Service) finish() {
	lines := s.Lines()
	if slices.ContainsFunc(lines, func(l Line) bool { return strings.Contains(l.Text, "DATA RACE") }) {
		s.t.Errorf("a process reported a data race")
	}
	if !s.t.Failed() {
		return
	}
	var b strings.Builder
	for _, l := range lines {
		b.WriteString(l.Text + "\n")
	}
	s.t.Logf("what the service wrote:\n%s", b.String())
}

// Path is the link that is run.
func (s *Service) Path() string { return filepath.Join(s.dir, "server") }

// Dir is the directory of the link.
func (s *Service) Dir() string { return s.dir }

// Install makes the link point to program, in one step. The next process runs that.
func (s *Service) Install(program string) {
	s.t.Helper()
	link := filepath.Join(s.dir, "link")
	err := os.Symlink(program, link)
	if err == nil {
		err = os.Rename(link, s.Path())
	}
	if err != nil {
		s.t.Fatalf("install %s: %v", program, err)
	}
	s.journal.note("%s was installed", program)
}

// Lines returns what the service has written so far.
func (s *Service) Lines() []Line {
	lines, _ := s.journal.all()
	return lines
}

// WaitLine waits for the first line that match accepts of all that come, or have come,
// after the first n. It fails the test, which is told what was waited for, if all
// processes have gone before.
func (s *Service) WaitLine(n int, what string, match func(Line) bool) Line {
	s.t.Helper()
	timeout := time.After(s.Patience)
	for {
		lines, changed := s.journal.all()
		for ; n < len(lines); n++ {
			if match(lines[n]) {
				return lines[n]
			}
		}
		select {
		case <-changed:
		case <-s.written:
			if lines, _ := s.journal.all(); n >= len(lines) {
				s.t.Fatalf("all processes have gone; waited for %s", what)
			}
		case <-timeout:
			s.t.Fatalf("waited in vain for %s", what)
		}
	}
}

// WaitAnswer makes requests until one is answered, and returns the answer. What fails
// before is no loss: the service is only just starting. It fails the test if the service
// has gone, or gives no answer in time.
func (s *Service) WaitAnswer(c Client) string {
	s.t.Helper()
	for deadline := time.Now().Add(s.Patience); ; time.Sleep(5 * time.Millisecond) {
		x, err := c.Do()
		switch {
		case err == nil:
			return x.Answer
		case len(s.Processes()) == 0:
			s.t.Fatalf("the service has gone before it answered %s: %v", c, err)
		case time.Now().After(deadline):
			s.t.Fatalf("the service does not answer %s: %v", c, err)
		}
	}
}

// PID is the process that signals are for: the first one, or what the last restart has
// left, or what [Service.Follow] says.
func (s *Service) PID() int {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.main
}

// Follow says that signals are for another process from now on: for a test that restarts
// the service in a way of its own, or has started it by a wrapper.
func (s *Service) Follow(pid int) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.main = pid
}

// Processes returns the pids of all processes of the service that run, in the order in
// which they were started.
func (s *Service) Processes() []int {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.group != 0 && len(proc.PIDs()) == 0 {
		s.known = make(map[proc.Process]bool)
		for _, p := range proc.InGroup(s.group) {
			s.known[p] = true
		}
	} else {
		for s.look() { // what has gone meanwhile may have started another one
		}
	}
	var all []proc.Process
	for p := range s.known {
		all = append(all, p)
	}
	slices.SortFunc(all, func(a, b proc.Process) int {
		return cmp.Or(cmp.Compare(a.Start, b.Start), cmp.Compare(a.PID, b.PID))
	})
	running := make([]int, len(all))
	for i, p := range all {
		running[i] = p.PID
	}
	return running
}

// look brings known up to date, and reports whether a process has gone. mu is held.
func (s *Service) look() (gone bool) {
	for _, p := range proc.Family(s.variable(), s.known) {
		if !s.known[p] {
			s.known[p] = true
			s.journal.note("process %d is there", p.PID)
		}
	}
	// One that exits has no environment any more, but still its descriptors.
	for p := range s.known {
		if now, err := proc.ReadStat(p.PID); err != nil || now.Process != p || now.Exited() {
			delete(s.known, p)
			s.journal.note("process %d has gone", p.PID)
			gone = true
		}
	}
	return gone
}

// Signal sends sig to a process of the service.
func (s *Service) Signal(pid int, sig syscall.Signal) {
	s.t.Helper()
	s.journal.note("%v is sent to process %d", sig, pid)
	if err := syscall.Kill(pid, sig); err != nil {
		s.t.Fatalf("send %v to process %d: %v", sig, pid, err)
	}
}

// Freeze stops a process with SIGSTOP and returns when it does nothing more.
func (s *Service) Freeze(pid int) {
	s.t.Helper()
	s.Signal(pid, syscall.SIGSTOP)
	s.awaitStop(pid)
}

// awaitStop waits until a process that is sent SIGSTOP does nothing more, or has gone.
func (s *Service) awaitStop(pid int) {
	s.t.Helper()
	s.poll(fmt.Sprintf("process %d to stop", pid), func() bool {
		p, err := proc.ReadStat(pid)
		return err != nil || p.State == 'T' || p.Exited()
	})
}

// Restart asks the service for a restart and waits until it is over: the new process
// is there, and the old one has exited. It returns both pids.
func (s *Service) Restart() (old, new int) {
	s.t.Helper()
	before := s.Processes()
	old = s.PID()
	s.Signal(old, s.RestartSignal)
	return old, s.waitRestart(old, before)
}

// follower names what is waited for.
func (s *Service) follower(old int) string {
	return fmt.Sprintf("a process that follows %d, which was sent %v", old, s.RestartSignal)
}

// askAgain is after how long a service is asked again that does nothing.
const askAgain = 10 * time.Second

// asking returns what asks old again for a restart that it has been asked for now. It may
// have been at the end of another one, or not have begun to catch the signal.
func (s *Service) asking(old int) (again func()) {
	asked := time.Now()
	return func() {
		s.t.Helper()
		if time.Since(asked) > askAgain {
			s.Signal(old, s.RestartSignal)
			asked = time.Now()
		}
	}
}

// waitRestart waits for the end of a restart that old was asked for when there were the
// processes before.
func (s *Service) waitRestart(old int, before []int) (new int) {
	s.t.Helper()
	var came []int
	again := s.asking(old)
	s.poll(s.follower(old), func() bool {
		now := s.Processes()
		if len(now) == 0 {
			s.t.Fatalf("no process of the service is left after %v to process %d", s.RestartSignal, old)
		}
		fresh := slices.DeleteFunc(slices.Clone(now), func(pid int) bool { return slices.Contains(before, pid) })
		if s.KeepsPID && slices.Contains(now, old) {
			over := len(came) > 0 && len(fresh) == 0
			came = append(came, fresh...)
			new = old
			return over
		}
		if slices.Contains(now, old) || len(fresh) == 0 {
			if len(fresh) == 0 {
				again()
			}
			return false
		}
		new = fresh[0] // what else there is it has started
		return true
	})
	s.Follow(new)
	return new
}

// Stop asks the service to drain, and waits until no process is left.
func (s *Service) Stop() {
	s.t.Helper()
	s.Signal(s.PID(), s.StopSignal)
	s.WaitGone()
}

// Gone is closed when the service has closed its standard output: when no process is
// left, that is, of one that leaves it open. It needs a cmd that does not set Stdout.
func (s *Service) Gone() <-chan struct{} { return s.ended }

// strangers is how long what was written may take to arrive when all processes have
// gone: one that is not known as one of them may hold the other end.
const strangers = 5 * time.Second

// WaitGone waits until no process of the service is left, and what they wrote was
// recorded.
func (s *Service) WaitGone() {
	s.t.Helper()
	var left []int
	gone := func() bool {
		left = s.Processes()
		return len(left) == 0
	}
	for deadline := time.Now().Add(s.Patience); !gone(); time.Sleep(5 * time.Millisecond) {
		if time.Now().After(deadline) {
			s.t.Fatalf("the processes %v are left", left)
		}
	}
	select {
	case <-s.written:
	case <-time.After(strangers):
	}
}

// WaitExit waits until a process has exited.
func (s *Service) WaitExit(pid int) {
	s.t.Helper()
	s.poll(fmt.Sprintf("process %d to exit", pid), func() bool { return !slices.Contains(s.Processes(), pid) })
}

func (s *Service) poll(what string, done func() bool) {
	s.t.Helper()
	poll(s.t, s.Patience, what, done)
}

// kill ends every process that is left.
func (s *Service) kill() {
	for deadline := time.Now().Add(Patience); time.Now().Before(deadline); time.Sleep(5 * time.Millisecond) {
		left := s.Processes()
		if len(left) == 0 {
			return
		}
		for _, pid := range left {
			_ = syscall.Kill(pid, syscall.SIGKILL)
		}
	}
}
