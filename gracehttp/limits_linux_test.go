package gracehttp_test

import (
	"bufio"
	"fmt"
	"io"
	"net/http"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/facebookgo/grace/internal/testbin"
	"github.com/facebookgo/grace/internal/testbin/play"
)

// The directory of the start is gone: the message must not blame the program.
func TestDirectoryIsGone(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "release")
	if err := os.Mkdir(dir, 0o755); err != nil {
		t.Fatal(err)
	}
	s := testbin.Start(t, patient(httpConfig()), testbin.Dir(dir))
	refused(t, s, "directory where this process was started: stat "+dir, func() {
		if err := os.Remove(dir); err != nil {
			t.Fatal(err)
		}
	}, func() {
		if err := os.Mkdir(dir, 0o755); err != nil {
			t.Fatal(err)
		}
	})
}

// It is there, but may not be entered.
func TestDirectoryIsUnreadable(t *testing.T) {
	dir := filepath.Join(testbin.Shared(t), "release")
	if err := os.Mkdir(dir, 0o755); err != nil {
		t.Fatal(err)
	}
	s := testbin.Start(t, patient(httpConfig()), testbin.Dir(dir), testbin.Unprivileged())
	mode := func(perm os.FileMode) func() {
		return func() {
			if err := os.Chmod(dir, perm); err != nil {
				t.Fatal(err)
			}
		}
	}
	refused(t, s, "directory where this process was started: chdir "+dir+": permission denied", mode(0), mode(0o755))
}

// No process can be started: there are too many.
func TestForkFails(t *testing.T) {
	s := testbin.Start(t, patient(httpConfig()), testbin.Unprivileged())
	_, addrs := s.Newest()
	limit := func(n int) func() {
		return func() {
			// The process does that itself: we may be another user.
			question := fmt.Sprintf("limit %d %d", unix.RLIMIT_NPROC, n)
			if answer := testbin.Ask(t, targets(addrs)[0], question); answer != "limited" {
				t.Fatal(answer)
			}
		}
	}
	refused(t, s, "resource temporarily unavailable", limit(1), limit(1<<12))
}

// Descriptors are short, and each time one more can be had: every step of the
// start fails once.
func TestDescriptorsAreShort(t *testing.T) {
	s := testbin.Start(t, httpConfig())
	pid, _ := s.Newest()
	begin := len(s.Events())
	open := descriptors(t, pid)
	reasons := map[string]int{}
	for limit := 4; ; limit++ {
		if limit > open+100 {
			t.Fatalf("it still fails with a limit of %d, %d are open; %v", limit, open, reasons)
		}
		// It reads its limit when it starts a process.
		testbin.Limit(t, pid, unix.RLIMIT_NOFILE, limit)
		n := len(s.Events())
		s.Signal(pid, syscall.SIGUSR2)
		e := s.WaitAfter(n, "the outcome", func(e play.Event) bool {
			return e.PID == pid && (strings.Contains(e.Text, "restart failed") || strings.Contains(e.Text, "draining"))
		})
		if strings.Contains(e.Text, "draining") {
			break
		}
		reasons[reason(e.Text)]++
		if now := descriptors(t, pid); now != open {
			t.Errorf("%d descriptors after %q, want %d", now, e.Text, open)
		}
	}
	t.Log(reasons)
	for _, want := range []string{"pass socket 1 of 3", "pass socket 3 of 3", "make control socket", "too many open files"} {
		found := false
		for _, e := range s.Events()[begin:] {
			found = found || strings.Contains(e.Text, want)
		}
		if !found {
			t.Errorf("no step has failed with %q", want)
		}
	}
	s.WaitReturned(pid)
	// The new one has the tight limit as well, and serves.
	new, _ := s.Newest() // the old one may not have exited yet
	testbin.Limit(t, new, unix.RLIMIT_NOFILE, 1<<10)
	s.Stop()
}

func reason(line string) string {
	_, reason, _ := strings.Cut(line, "error=")
	return reason
}

// descriptors counts those of a process.
func descriptors(t *testing.T, pid int) int {
	t.Helper()
	entries, err := os.ReadDir(fmt.Sprintf("/proc/%d/fd", pid))
	if err != nil {
		t.Fatal(err)
	}
	return len(entries)
}

// The PID file can't be written: a new process is given up for it, and what was
// in the file stays.
func TestPIDFileCannotBeWritten(t *testing.T) {
	cfg := patient(httpConfig())
	cfg.PIDFile = "run/pid" // from the directory of the start
	dir := testbin.Shared(t)
	run := filepath.Join(dir, "run")
	if err := os.Mkdir(run, 0o777); err != nil {
		t.Fatal(err)
	}
	s := testbin.Start(t, cfg, testbin.Dir(dir))
	pid, _ := s.Newest()
	testbin.Poll(t, "the PID file", func() bool { return readPID(t, run) == pid })
	refused(t, s, "new process failed: grace: write PID file "+filepath.Join(run, "pid"), func() {
		// A file that can't grow fails as one on a full disk does.
		testbin.Limit(t, pid, unix.RLIMIT_FSIZE, 0)
	}, func() {
		if got := readPID(t, run); got != pid {
			t.Errorf("PID file names %d, want %d", got, pid)
		}
		testbin.Limit(t, pid, unix.RLIMIT_FSIZE, 1<<30)
	})
	if files, err := os.ReadDir(run); err != nil || len(files) != 0 {
		t.Errorf("left after the stop: %v, %v", files, err)
	}

	// A first process says so, too.
	cfg.PIDFile = filepath.Join(dir, "nowhere", "pid")
	s = testbin.Launch(t, testbin.Executable(t), cfg)
	e := s.Wait("the first process to fail", func(e play.Event) bool { return e.Event == play.Failed })
	if !strings.Contains(e.Text, "grace: write PID file "+cfg.PIDFile+": open") || !strings.Contains(e.Text, "no such file or directory") {
		t.Errorf("failed with %q", e.Text)
	}
	s.WaitGone()
}

// The PID file always names a process that serves.
func TestPIDFile(t *testing.T) {
	cfg := httpConfig()
	dir := t.TempDir()
	cfg.PIDFile = filepath.Join(dir, "pid")
	cfg.Standby = 1 << 40
	s := testbin.Start(t, cfg)
	first, _ := s.Newest()
	expect := func(pid int) {
		t.Helper()
		if got := readPID(t, dir); got != pid {
			t.Errorf("PID file names %d, want %d", got, pid)
		}
	}
	testbin.Poll(t, "the PID file", func() bool { return readPID(t, dir) == first })
	child := s.RestartPID(first)
	s.WaitLog(first, "standing by")
	expect(child)
	s.Signal(child, syscall.SIGKILL)
	s.WaitLog(first, "serves again")
	testbin.Poll(t, "the parent to write it again", func() bool { return readPID(t, dir) == first })
	child = s.RestartPID(first)
	s.WaitLog(first, fmt.Sprintf("standing by child=%d", child))
	s.Signal(first, syscall.SIGTERM)
	s.WaitReturned(first)
	expect(child)
	s.Stop()
	if files, err := os.ReadDir(dir); err != nil || len(files) != 0 {
		t.Errorf("left after the stop: %v, %v", files, err)
	}
}

// refused lets restarts fail while something is wrong, and succeed when it is
// mended. A client with a connection is answered all the time.
func refused(t *testing.T, s *testbin.Service, reason string, damage, mend func()) {
	t.Helper()
	pid, addrs := s.Newest()
	load := testbin.NewLoad(t, targets(addrs)...)
	load.WaitMore(20) // the runtime has the threads that it needs
	load.Pause()
	client := dial(t, addrs[0])
	answers := bufio.NewReader(client)
	damage()
	for range 3 {
		n := len(s.Events())
		s.Signal(pid, syscall.SIGUSR2)
		e := s.WaitAfter(n, "the failure to be logged", logged(pid, "restart failed"))
		if !strings.Contains(e.Text, reason) {
			t.Errorf("logged %q, want the reason %q", e.Text, reason)
		}
		fmt.Fprint(client, "GET / HTTP/1.1\r\nHost: x\r\n\r\n")
		resp, err := http.ReadResponse(answers, nil)
		if err != nil {
			t.Fatal(err)
		}
		b, err := io.ReadAll(resp.Body)
		resp.Body.Close()
		if err != nil || string(b) != strconv.Itoa(pid) {
			t.Errorf("answer %q, %v, want %d", b, err, pid)
		}
	}
	if c := testbin.Children(t, pid); len(c) != 0 {
		t.Errorf("children are left: %v", c)
	}
	mend()
	client.Close()
	load.Resume()
	new := s.RestartPID(pid)
	load.WaitPID(new)
	s.WaitReturned(pid)
	load.Stop()
	s.Stop()
}
