package grace_test

import (
	"bytes"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/facebookgo/grace/gracectl"
	"github.com/facebookgo/grace/internal/testbin"
	"github.com/facebookgo/grace/internal/testbin/play"
)

// says is a server that writes to standard error before it serves.
func says(cfg play.Config, what play.Says) play.Config {
	cfg.Role, cfg.Says = "says", what
	return cfg
}

// A sink reads what is written to standard error.
type sink struct {
	w    *os.File // for the processes
	r    *os.File
	done chan struct{}

	mu  sync.Mutex
	buf bytes.Buffer
}

// newSink makes a sink of the two ends. It does not read yet.
func newSink(t *testing.T, r, w *os.File) *sink {
	t.Helper()
	s := &sink{w: w, r: r, done: make(chan struct{})}
	t.Cleanup(func() { r.Close(); w.Close() })
	return s
}

func pipe(t *testing.T) *sink {
	t.Helper()
	r, w, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	return newSink(t, r, w)
}

// read reads from now on, n bytes at a time.
func (s *sink) read(n int) *sink {
	go func() {
		defer close(s.done)
		b := make([]byte, n)
		for {
			n, err := s.r.Read(b)
			s.mu.Lock()
			s.buf.Write(b[:n])
			s.mu.Unlock()
			if err != nil {
				return
			}
		}
	}()
	return s
}

func (s *sink) String() string {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.buf.String()
}

// wait waits until just want was written.
func (s *sink) wait(t *testing.T, want string) {
	t.Helper()
	waitWritten(t, s.String, want)
}

func waitWritten(t *testing.T, written func() string, want string) {
	t.Helper()
	testbin.Poll(t, "what was written to standard error", func() bool {
		got := written()
		if len(got) < len(want) && strings.HasPrefix(want, got) {
			return false
		}
		if got != want {
			i := 0
			for i < min(len(got), len(want)) && got[i] == want[i] {
				i++
			}
			t.Fatalf("standard error has %d bytes, want %d. After %d bytes, %q: got\n%.300q, want\n%.300q",
				len(got), len(want), i, got[max(0, i-100):i], got[i:], want[i:])
		}
		return true
	})
}

// stderrOf is what the standard error of a process is.
func stderrOf(t *testing.T, pid int) string {
	t.Helper()
	target, err := os.Readlink(fmt.Sprintf("/proc/%d/fd/2", pid))
	if err != nil {
		t.Fatal(err)
	}
	return target
}

// pipesOf are the pipes that a process has beside its standard files.
func pipesOf(t *testing.T, pid int) (pipes []string) {
	t.Helper()
	dir := fmt.Sprintf("/proc/%d/fd/", pid)
	entries, err := os.ReadDir(dir)
	if err != nil {
		t.Fatal(err)
	}
	for _, e := range entries {
		target, _ := os.Readlink(dir + e.Name()) // or it is closed by now
		if !slices.Contains([]string{"0", "1", "2"}, e.Name()) && strings.HasPrefix(target, "pipe:") {
			pipes = append(pipes, target)
		}
	}
	return pipes
}

// noPipes fails the test unless the process comes to have no pipes but those that
// the first one had, from whoever has started this test.
func noPipes(t *testing.T, pid int, had []string) {
	t.Helper()
	testbin.Poll(t, fmt.Sprintf("pid %d to close its pipes", pid), func() bool {
		return slices.Equal(pipesOf(t, pid), had)
	})
}

// said waits until the process that was started last has said what its standard
// error was when it began.
func said(s *testbin.Service, n int) string {
	e := s.WaitAfter(n, "the new process to talk", func(e play.Event) bool { return strings.HasPrefix(e.Text, "standard error is ") })
	return strings.TrimPrefix(e.Text, "standard error is ")
}

func touch(t *testing.T, file string) {
	t.Helper()
	if err := os.WriteFile(file, nil, 0o600); err != nil {
		t.Fatal(err)
	}
}

// mode is whether a file is non-blocking.
func mode(t *testing.T, f *os.File) (flags int) {
	t.Helper()
	raw, err := f.SyscallConn()
	if err != nil {
		t.Fatal(err)
	}
	_ = raw.Control(func(fd uintptr) { flags, err = unix.FcntlInt(fd, unix.F_GETFL, 0) })
	if err != nil {
		t.Fatal(err)
	}
	return flags & unix.O_NONBLOCK
}

// What the new process writes to standard error before it is ready is told to who
// has asked, and goes where it belongs, whatever that is. A process that is ready
// has the standard error of the one before.
func TestStderr(t *testing.T) {
	for _, kind := range []struct {
		name string
		make func(t *testing.T) *sink
	}{
		{"pipe", pipe},
		{"FIFO", func(t *testing.T) *sink { return fifo(t, 0) }},
		{"FIFO, appending", func(t *testing.T) *sink { return fifo(t, os.O_APPEND) }},
		{"socket", func(t *testing.T) *sink { return sockets(t, unix.SOCK_STREAM) }},
		{"null device", func(t *testing.T) *sink {
			f, err := os.OpenFile(os.DevNull, os.O_RDWR, 0)
			if err != nil {
				t.Fatal(err)
			}
			return newSink(t, f, f)
		}},
	} {
		for _, flags := range []int{0, unix.O_NONBLOCK} {
			t.Run(fmt.Sprintf("%s/%d", kind.name, flags), func(t *testing.T) {
				err := kind.make(t)
				null := kind.name == "null device"
				if !null {
					err.read(1 << 10)
				}
				testStderr(t, err, flags, null)
			})
		}
	}
}

func fifo(t *testing.T, flags int) *sink {
	t.Helper()
	path := filepath.Join(t.TempDir(), "fifo")
	if err := unix.Mkfifo(path, 0o600); err != nil {
		t.Fatal(err)
	}
	r, err := os.OpenFile(path, os.O_RDWR, 0)
	if err != nil {
		t.Fatal(err)
	}
	w, err := os.OpenFile(path, os.O_WRONLY|flags, 0)
	if err != nil {
		t.Fatal(err)
	}
	return newSink(t, r, w)
}

func sockets(t *testing.T, typ int) *sink {
	t.Helper()
	fds, err := unix.Socketpair(unix.AF_UNIX, typ|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		t.Fatal(err)
	}
	_ = unix.SetNonblock(fds[0], true)
	return newSink(t, os.NewFile(uintptr(fds[0]), "socket"), os.NewFile(uintptr(fds[1]), "socket"))
}

func testStderr(t *testing.T, errs *sink, flags int, null bool) {
	cfg := controlled(t)
	cfg.Standby = time.Hour // so that both processes can be looked at
	s, c := started(t, cfg, testbin.Stderr(errs.w))
	pid, addrs := s.Newest()
	had := pipesOf(t, pid)
	target := testbin.HTTP("http", addrs[0])
	before, is := testbin.Ask(t, target, "fds"), stderrOf(t, pid)
	raw, err := errs.w.SyscallConn()
	if err != nil {
		t.Fatal(err)
	}
	_ = raw.Control(func(fd uintptr) { err = unix.SetNonblock(int(fd), flags != 0) })
	if err != nil {
		t.Fatal(err)
	}
	var all string
	wait := func(more string) {
		t.Helper()
		if all += more; !null {
			errs.wait(t, all)
		}
	}

	s.Deploy(says(cfg, play.Says{Lines: 30, Then: "fatal"}))
	n := len(s.Events())
	_, err = c.Upgrade(patient(t), gracectl.UntilReady)
	answer := refused(t, err, gracectl.ErrFailed, "new process exited before it was ready: exit status 1")
	if want := testbin.Talked("talk", 11, 30) + "the last word\n"; answer.Stderr != want {
		t.Errorf("told %q, want %q", answer.Stderr, want)
	}
	if said(s, n) == is {
		t.Error("nobody has listened to the new process")
	}
	wait(testbin.Talked("talk", 0, 30) + "the last word\n")

	s.Deploy(says(cfg, play.Says{Then: "panic"}))
	_, err = c.Upgrade(patient(t), gracectl.UntilReady)
	answer = refused(t, err, gracectl.ErrFailed, "exit status 2")
	if !strings.HasPrefix(answer.Stderr, "panic: on purpose\n") || !strings.Contains(answer.Stderr, "testbin.serveSays(") {
		t.Errorf("told %q, want a trace", answer.Stderr)
	}
	wait(answer.Stderr)

	s.Deploy(play.Config{Role: "exit"})
	_, err = c.Upgrade(patient(t), gracectl.UntilReady)
	if answer = refused(t, err, gracectl.ErrFailed, "exit status 7"); answer.Stderr != "" {
		t.Errorf("told %q of a process that has said nothing", answer.Stderr)
	}
	testbin.SameDescriptors(t, target, before)

	s.Deploy(says(cfg, play.Says{Lines: 100}))
	r := upgrade(t, c)
	noPipes(t, pid, had)
	noPipes(t, r.New, had)
	if got := stderrOf(t, r.New); got != is {
		t.Errorf("standard error of the new process is %s, want %s", got, is)
	}
	testbin.Ask(t, target, "stderr ready")
	wait(testbin.Talked("talk", 0, 100) + "ready\n")
	s.Signal(pid, syscall.SIGTERM)
	s.WaitReturned(pid)
	s.WaitExit(pid)
	testbin.SameDescriptors(t, target, before)
	testbin.Ask(t, target, "stderr alone")
	wait("alone\n")
	if mode(t, errs.w) != flags {
		t.Errorf("standard error has changed its mode, which was %#x", flags)
	}
	s.Wait("the new process to serve", serves(r.New))
	s.Stop()
}

// A process that waits for an upgrade of its own is told the same.
func TestStderrOfUpgrade(t *testing.T) {
	cfg := controlled(t)
	cfg.Role = "asking"
	s, _ := started(t, cfg)
	pid, _ := s.Newest()
	s.Deploy(says(cfg, play.Says{Lines: 3, Then: "fatal"}))
	s.Signal(pid, syscall.SIGHUP)
	want := testbin.Talked("talk", 0, 3) + "the last word\n"
	if e := s.WaitLog(pid, "Stderr: "); e.Text != "Stderr: "+want {
		t.Errorf("told %q, want %q", e.Text, want)
	}
	waitWritten(t, s.Errors, want)
	s.Stop()
}

// What a child has said before it was ready is not why it has died after that.
func TestStderrOfTakeBack(t *testing.T) {
	cfg := controlled(t)
	cfg.Standby = time.Hour
	s, c := started(t, cfg)
	parent, addrs := s.Newest()
	had := pipesOf(t, parent)
	s.Deploy(says(cfg, play.Says{Lines: 3}))
	failed := make(chan error, 1)
	go func() {
		_, err := c.Upgrade(patient(t), gracectl.UntilAlone)
		failed <- err
	}()
	s.WaitLog(parent, "standing by child=")
	child, _ := s.Newest()
	s.Signal(child, syscall.SIGKILL)
	if answer := refused(t, <-failed, gracectl.ErrFailed, "new process died"); answer.Stderr != "" {
		t.Errorf("told %q", answer.Stderr)
	}
	waitWritten(t, s.Errors, testbin.Talked("talk", 0, 3))
	if got := testbin.AskPID(t, testbin.HTTP("http", addrs[0])); got != parent {
		t.Errorf("answered by %d, want %d", got, parent)
	}
	noPipes(t, parent, had)
	s.Signal(parent, syscall.SIGTERM)
	s.WaitGone()
}

// When standard error is read slowly, nothing is lost, and the new process waits
// as it would without us.
func TestStderrSlowReader(t *testing.T) {
	errs := pipe(t)
	cfg := controlled(t)
	s, c := started(t, cfg, testbin.Stderr(errs.w))
	pid, addrs := s.Newest()
	had := pipesOf(t, pid)
	s.Deploy(says(cfg, play.Says{Lines: 3000}))
	n := len(s.Events())
	upgraded := make(chan error)
	go func() {
		_, err := c.Upgrade(patient(t), gracectl.UntilReady)
		upgraded <- err
	}()
	said(s, n)
	waitFull(t, errs)
	if status := testbin.Status(t, c); status.PID != pid || status.Phase != "upgrading" {
		t.Errorf("status %+v, want an upgrade that is under way", status)
	}
	errs.read(100)
	if err := <-upgraded; err != nil {
		t.Error(err)
	}
	testbin.Ask(t, testbin.HTTP("http", addrs[0]), "stderr ready")
	errs.wait(t, testbin.Talked("talk", 0, 3000)+"ready\n")
	s.WaitReturned(pid)
	new := testbin.Status(t, c).PID
	noPipes(t, new, had)
	s.Wait("the new process to serve", serves(new))
	s.Stop()
}

// waitFull waits until standard error takes no more.
func waitFull(t *testing.T, errs *sink) {
	t.Helper()
	raw, err := errs.w.SyscallConn()
	if err != nil {
		t.Fatal(err)
	}
	testbin.Poll(t, "standard error to be full", func() (full bool) {
		_ = raw.Control(func(fd uintptr) {
			n, _ := unix.Poll([]unix.PollFd{{Fd: int32(fd), Events: unix.POLLOUT}}, 0)
			full = n == 0
		})
		return full
	})
}

// If the parent is killed while the new process starts, nothing that this writes
// is lost, or comes twice, and it comes to serve.
func TestStderrParentKilled(t *testing.T) {
	for _, full := range []bool{false, true} {
		t.Run(fmt.Sprintf("full=%t", full), func(t *testing.T) {
			errs := pipe(t)
			cfg := controlled(t)
			s, c := started(t, cfg, testbin.Stderr(errs.w))
			pid, addrs := s.Newest()
			had := pipesOf(t, pid)
			is := stderrOf(t, pid)
			file := filepath.Join(t.TempDir(), "go")
			lines, more := 3, 2000
			if full {
				lines = 3000
			} else {
				errs.read(4 << 10)
			}
			s.Deploy(says(cfg, play.Says{Lines: lines, Until: file, More: more}))
			n := len(s.Events())
			upgraded := make(chan error)
			go func() {
				_, err := c.Upgrade(patient(t), gracectl.UntilReady)
				upgraded <- err
			}()
			if said(s, n) == is {
				t.Error("nobody listens to the new process")
			}
			if full {
				waitFull(t, errs)
			} else {
				s.WaitLog(0, "waits")
			}
			s.Signal(pid, syscall.SIGKILL)
			s.WaitExit(pid)
			if err := <-upgraded; err == nil {
				t.Error("a process that was killed has said that it is replaced")
			}
			if full {
				errs.read(1 << 10)
			}
			touch(t, file)
			new := s.WaitAfter(n, "the new process to serve", func(e play.Event) bool { return e.Event == play.Serving && e.PID != pid }).PID
			target := testbin.HTTP("http", addrs[0])
			testbin.Poll(t, "its standard error to be what it was", func() bool { return stderrOf(t, new) == is })
			if got := testbin.AskPID(t, target); got != new {
				t.Errorf("answered by %d, want %d", got, new)
			}
			testbin.Ask(t, target, "stderr ready")
			want := testbin.Talked("talk", 0, lines+more) + "ready\n"
			if full {
				// It has gone on writing, so that two lines may have changed places when
				// it got its standard error back.
				testbin.Poll(t, "the last line", func() bool { return len(errs.String()) >= len(want) })
				got, sorted := strings.SplitAfter(errs.String(), "\n"), strings.SplitAfter(want, "\n")
				slices.Sort(got)
				slices.Sort(sorted)
				if !slices.Equal(got, sorted) {
					t.Errorf("%d lines, want each of %d once", len(got), len(sorted))
				}
			} else {
				errs.wait(t, want)
			}
			noPipes(t, new, had)
			s.Stop()
		})
	}
}

// A program that makes something else its standard error keeps that.
func TestStderrRedirected(t *testing.T) {
	file := filepath.Join(t.TempDir(), "log")
	written := func() string { b, _ := os.ReadFile(file); return string(b) }
	cfg := controlled(t)
	s, c := started(t, cfg)
	pid, addrs := s.Newest()
	had := pipesOf(t, pid)
	s.Deploy(says(cfg, play.Says{Lines: 3, Redirect: file, Then: "fatal"}))
	_, err := c.Upgrade(patient(t), gracectl.UntilReady)
	answer := refused(t, err, gracectl.ErrFailed, "exit status 1")
	if want := testbin.Talked("talk", 0, 3); answer.Stderr != want {
		t.Errorf("told %q, want %q", answer.Stderr, want)
	}
	waitWritten(t, written, "redirected\nthe last word\n")
	s.Deploy(says(cfg, play.Says{Lines: 3, Redirect: file}))
	r := upgrade(t, c)
	if got := stderrOf(t, r.New); got != file {
		t.Errorf("standard error is %s, want %s", got, file)
	}
	testbin.Ask(t, testbin.HTTP("http", addrs[0]), "stderr ready")
	waitWritten(t, written, "redirected\nthe last word\nredirected\nready\n")
	waitWritten(t, s.Errors, testbin.Talked("talk", 0, 3)+testbin.Talked("talk", 0, 3))
	noPipes(t, r.New, had)
	s.WaitReturned(pid)
	s.Wait("the new process to serve", serves(r.New))
	s.Stop()
}

// So does a wrapper script, which does it before the new process begins.
func TestStderrRedirectedByAWrapper(t *testing.T) {
	file := filepath.Join(t.TempDir(), "log")
	cfg := controlled(t)
	s, c := started(t, cfg)
	pid, addrs := s.Newest()
	had := pipesOf(t, pid)
	script := filepath.Join(s.Dir(), "script")
	if err := os.WriteFile(script, []byte(fmt.Sprintf("#!/bin/sh\nexec '%s' 2>>'%s'\n", testbin.Executable(t), file)), 0o700); err != nil {
		t.Fatal(err)
	}
	s.Install(script)
	s.Deploy(says(cfg, play.Says{Lines: 3, Then: "fatal"}))
	_, err := c.Upgrade(patient(t), gracectl.UntilReady)
	if answer := refused(t, err, gracectl.ErrFailed, "exit status 1"); answer.Stderr != "" {
		t.Errorf("told %q, which is elsewhere", answer.Stderr)
	}
	s.Deploy(says(cfg, play.Says{Lines: 3}))
	r := upgrade(t, c)
	noPipes(t, r.New, had)
	testbin.Ask(t, testbin.HTTP("http", addrs[0]), "stderr ready")
	waitWritten(t, func() string { b, _ := os.ReadFile(file); return string(b) },
		testbin.Talked("talk", 0, 3)+"the last word\n"+testbin.Talked("talk", 0, 3)+"ready\n")
	if got := s.Errors(); got != "" {
		t.Errorf("standard error of the old process has %q", got)
	}
	s.WaitReturned(pid)
	s.Wait("the new process to serve", serves(r.New))
	s.Stop()
}

// A new process with the protocol of the original, or without any, has its standard
// error from the beginning. The pipe it does not know of holds up nobody, and is not
// found in the process after it.
func TestStderrOfTheOriginal(t *testing.T) {
	cfg := controlled(t)
	s, c := started(t, cfg)
	pid, addrs := s.Newest()
	had := pipesOf(t, pid)
	is := stderrOf(t, pid)
	target := testbin.HTTP("http", addrs[0])
	s.Install("/bin/false")
	_, err := c.Upgrade(patient(t), gracectl.UntilReady)
	if answer := refused(t, err, gracectl.ErrFailed, "exit status 1"); answer.Stderr != "" {
		t.Errorf("told %q", answer.Stderr)
	}
	noPipes(t, pid, had)
	s.Install(testbin.OldGrace(t))
	upgrade(t, c)
	s.WaitReturned(pid)
	s.WaitExit(pid)
	old := testbin.AskPID(t, target)
	if old == pid || stderrOf(t, old) != is {
		t.Errorf("answered by %d, whose standard error is %s, want %s", old, stderrOf(t, old), is)
	}
	const lines = 1000
	for i := range lines {
		testbin.Ask(t, target, "stderr "+strings.TrimSuffix(play.Line("talk", i), "\n"))
	}
	waitWritten(t, s.Errors, testbin.Talked("talk", 0, lines))
	s.Install(testbin.Executable(t))
	n := len(s.Events())
	s.Signal(old, syscall.SIGUSR2)
	new := s.WaitAfter(n, "the last process to serve", func(e play.Event) bool { return e.Event == play.Serving && e.PID != old }).PID
	s.WaitReturned(old)
	noPipes(t, new, had)
	s.Stop()
}

// What nobody has asked for, and what has to stay what it is, is left alone.
func TestStderrLeftAlone(t *testing.T) {
	for _, kind := range []struct {
		name string
		make func(t *testing.T) *sink
	}{
		{"terminal", terminal},
		{"journal", pipe},
		{"socket for datagrams", func(t *testing.T) *sink { return sockets(t, unix.SOCK_DGRAM) }},
		{"socket for packets", func(t *testing.T) *sink { return sockets(t, unix.SOCK_SEQPACKET) }},
		{"signal", pipe},
	} {
		t.Run(kind.name, func(t *testing.T) {
			errs := kind.make(t).read(1 << 10)
			cfg := controlled(t)
			var env []string
			if kind.name == "journal" {
				var st unix.Stat_t
				raw, err := errs.w.SyscallConn()
				if err == nil {
					_ = raw.Control(func(fd uintptr) { err = unix.Fstat(int(fd), &st) })
				}
				if err != nil {
					t.Fatal(err)
				}
				env = append(env, fmt.Sprintf("JOURNAL_STREAM=%d:%d", st.Dev, st.Ino))
			}
			s, c := started(t, cfg, testbin.Stderr(errs.w), testbin.Env(env...))
			pid, _ := s.Newest()
			is := stderrOf(t, pid)
			s.Deploy(says(cfg, play.Says{Lines: 2, Then: "fatal"}))
			n := len(s.Events())
			if kind.name == "signal" {
				s.Signal(pid, syscall.SIGUSR2)
				s.WaitLog(pid, "exit status 1")
			} else {
				_, err := c.Upgrade(patient(t), gracectl.UntilReady)
				answer := refused(t, err, gracectl.ErrFailed, "exit status 1")
				if answer.Stderr != "" || (answer.Journal != "") != (kind.name == "journal") {
					t.Errorf("answer %+v", answer)
				}
			}
			if got := said(s, n); got != is {
				t.Errorf("standard error of the new process was %s, want %s", got, is)
			}
			want := testbin.Talked("talk", 0, 2) + "the last word\n"
			if kind.name == "terminal" {
				want = strings.ReplaceAll(want, "\n", "\r\n")
			}
			errs.wait(t, want)
			s.Stop()
		})
	}
}

// terminal is a pseudo terminal.
func terminal(t *testing.T) *sink {
	t.Helper()
	master, err := os.OpenFile("/dev/ptmx", os.O_RDWR|unix.O_NOCTTY, 0)
	if err != nil {
		t.Fatal(err)
	}
	var n int
	raw, err := master.SyscallConn()
	if err == nil {
		_ = raw.Control(func(fd uintptr) {
			n, err = unix.IoctlGetInt(int(fd), unix.TIOCGPTN)
			err = errors.Join(err, unix.IoctlSetPointerInt(int(fd), unix.TIOCSPTLCK, 0))
		})
	}
	if err != nil {
		t.Fatal(err)
	}
	slave, err := os.OpenFile(fmt.Sprintf("/dev/pts/%d", n), os.O_RDWR|unix.O_NOCTTY, 0)
	if err != nil {
		t.Fatal(err)
	}
	return newSink(t, master, slave)
}

// With KeepPID it is the process in the interim that is listened to.
func TestStderrKeepPID(t *testing.T) {
	cfg := controlled(t)
	cfg.KeepPID = true
	s, c := started(t, cfg)
	pid, addrs := s.Newest()
	had := pipesOf(t, pid)
	is := stderrOf(t, pid)
	s.Deploy(says(cfg, play.Says{Lines: 3, Then: "fatal"}))
	_, err := c.Upgrade(patient(t), gracectl.UntilReady)
	words := testbin.Talked("talk", 0, 3) + "the last word\n"
	if answer := refused(t, err, gracectl.ErrFailed, "exit status 1"); answer.Stderr != words {
		t.Errorf("told %q, want %q", answer.Stderr, words)
	}
	s.Deploy(says(cfg, play.Says{Lines: 1000}))
	n := len(s.Events())
	r := upgrade(t, c)
	s.WaitAfter(n, "the process to come back", func(e play.Event) bool { return e.Event == play.Serving && e.PID == pid })
	s.WaitExit(r.New)
	testbin.Ask(t, testbin.HTTP("http", addrs[0]), "stderr back")
	waitWritten(t, s.Errors, words+testbin.Talked("talk", 0, 1000)+testbin.Talked("talk", 0, 1000)+"back\n")
	if got := stderrOf(t, pid); got != is {
		t.Errorf("standard error is %s, want %s", got, is)
	}
	noPipes(t, pid, had)
	s.Signal(pid, syscall.SIGTERM)
	s.WaitGone()
}

// A process that the new one starts before it is ready has the pipe. Who has asked
// does not wait for its end, and what it writes later arrives: through the old
// process if the new one has failed, or else through the new one, when the old one
// has gone.
func TestStderrOfAHelper(t *testing.T) {
	cfg := controlled(t)
	s, c := started(t, cfg)
	pid, addrs := s.Newest()
	had := pipesOf(t, pid)
	target := testbin.HTTP("http", addrs[0])
	before := testbin.Ask(t, target, "fds")
	file := filepath.Join(t.TempDir(), "go")
	s.Deploy(says(cfg, play.Says{Lines: 3, Helper: file, Then: "fatal"}))
	_, err := c.Upgrade(patient(t), gracectl.UntilReady)
	words := testbin.Talked("talk", 0, 3) + "the last word\n"
	if answer := refused(t, err, gracectl.ErrFailed, "exit status 1"); answer.Stderr != words {
		t.Errorf("told %q, want %q", answer.Stderr, words)
	}
	touch(t, file)
	all := words + testbin.Talked("helper", 0, play.HelperLines)
	waitWritten(t, s.Errors, all)
	testbin.SameDescriptors(t, target, before)

	file += " again"
	s.Deploy(says(cfg, play.Says{Lines: 3, Helper: file}))
	r := upgrade(t, c)
	s.WaitReturned(pid)
	s.WaitExit(pid)
	touch(t, file)
	waitWritten(t, s.Errors, all+testbin.Talked("talk", 0, 3)+testbin.Talked("helper", 0, play.HelperLines))
	noPipes(t, r.New, had)
	s.Wait("the new process to serve", serves(r.New))
	s.Stop()
}

// Nobody reads standard error any more. The old process copes, and so does who asks.
func TestStderrBroken(t *testing.T) {
	errs := pipe(t)
	cfg := controlled(t)
	s, c := started(t, cfg, testbin.Stderr(errs.w))
	errs.r.Close()
	s.Deploy(says(cfg, play.Says{Lines: 3000, Then: "fatal"}))
	_, err := c.Upgrade(patient(t), gracectl.UntilReady)
	want := testbin.Talked("talk", 2981, 3000) + "the last word\n"
	if answer := refused(t, err, gracectl.ErrFailed, "exit status 1"); answer.Stderr != want {
		t.Errorf("told %q, want %q", answer.Stderr, want)
	}
	s.Stop()
}

func number(t *testing.T, target testbin.Target, question string) int {
	t.Helper()
	n, err := strconv.Atoi(testbin.Ask(t, target, question))
	if err != nil {
		t.Fatal(err)
	}
	return n
}

// However many upgrades fail, nothing is left of them.
func TestStderrLeavesNothing(t *testing.T) {
	cfg := controlled(t)
	s, c := started(t, cfg)
	pid, addrs := s.Newest()
	had := pipesOf(t, pid)
	target := testbin.HTTP("http", addrs[0])
	before, goroutines := testbin.Ask(t, target, "fds"), number(t, target, "goroutines")
	s.Deploy(says(cfg, play.Says{Lines: 1, Then: "fatal"}))
	words := testbin.Talked("talk", 0, 1) + "the last word\n"
	for range 100 {
		_, err := c.Upgrade(patient(t), gracectl.UntilReady)
		if answer := refused(t, err, gracectl.ErrFailed, "exit status 1"); answer.Stderr != words {
			t.Fatalf("told %q, want %q", answer.Stderr, words)
		}
	}
	testbin.SameDescriptors(t, target, before)
	// Some are there for a moment only, then as now; of a hundred none may be left.
	testbin.Poll(t, "goroutines to end", func() bool { return number(t, target, "goroutines") < goroutines+10 })
	waitWritten(t, s.Errors, strings.Repeat(words, 100))
	noPipes(t, pid, had)
	s.Stop()
}
