//go:build linux

package main

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/facebookgo/grace/internal/proc"
	"golang.org/x/sys/unix"
)

// stage is where measures run: a directory for what they need, and whether somebody has
// asked for the end.
type stage struct {
	dir         string
	interrupted atomic.Bool
	dirs        atomic.Int32
}

var errInterrupted = errors.New("interrupted")

// do runs part of a measure, on a goroutine of its own, and then ends all that it has
// started. It returns why the part could not be carried out.
func (s *stage) do(part func(*scope)) error {
	if s.interrupted.Load() {
		return errInterrupted
	}
	t := &scope{stage: s}
	over := make(chan struct{})
	go func() {
		defer close(over)
		defer t.cleanUp()
		part(t)
	}()
	<-over
	t.sweep()
	return t.err()
}

// adoptOrphans makes processes children of this one whose parent has gone, so that none
// is lost sight of.
func adoptOrphans() error {
	if err := unix.Prctl(unix.PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0); err != nil {
		return fmt.Errorf("adopt orphans: %w", err)
	}
	return nil
}

// sweep ends what is left of the processes that this one has started, and says so: none
// should be.
func (t *scope) sweep() {
	t.ending = true
	for {
		children := t.children(os.Getpid())
		if len(children) == 0 {
			return
		}
		for _, pid := range children {
			var status unix.WaitStatus
			if n, err := unix.Wait4(pid, &status, unix.WNOHANG, nil); n != 0 || err != nil { // it had exited
				continue
			}
			t.Errorf("process %d was left", pid)
			_ = unix.Kill(pid, unix.SIGKILL)
			_, _ = unix.Wait4(pid, &status, 0, nil)
		}
	}
}

// children returns those of a process, zombies too.
func (t *scope) children(pid int) []int {
	t.Helper()
	children, err := proc.Children(pid)
	if err != nil {
		t.Fatalf("%v", err)
	}
	return children
}

// scope is the gracetest.TB of a part of a measure.
type scope struct {
	*stage
	ending   bool // for the goroutine of the part
	cleanups []func()

	mu       sync.Mutex
	failures []error
	log      string // what there is to say if it fails
}

// Helper is called by all that may take long, and so is where the part ends that nobody
// wants any more.
func (t *scope) Helper() {
	if t.interrupted.Load() && !t.ending {
		t.fail(errInterrupted)
		runtime.Goexit()
	}
}

func (t *scope) Cleanup(f func()) { t.cleanups = append(t.cleanups, f) }

func (t *scope) cleanUp() {
	t.ending = true
	for _, f := range slices.Backward(t.cleanups) {
		f()
	}
}

func (t *scope) TempDir() string {
	dir := filepath.Join(t.dir, fmt.Sprint(t.dirs.Add(1)))
	if err := os.Mkdir(dir, 0o755); err != nil { // servers have users of their own
		t.Fatalf("make a directory: %v", err)
	}
	t.Cleanup(func() { _ = os.RemoveAll(dir) })
	return dir
}

func (t *scope) fail(err error) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.failures = append(t.failures, err)
}

func (t *scope) err() error {
	t.mu.Lock()
	defer t.mu.Unlock()
	if len(t.failures) == 0 {
		return nil
	}
	return &failure{errors.Join(t.failures...), t.log}
}

func (t *scope) Failed() bool {
	t.mu.Lock()
	defer t.mu.Unlock()
	return len(t.failures) > 0
}

func (t *scope) Logf(format string, args ...any) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.log += fmt.Sprintf(format, args...) + "\n"
}

func (t *scope) Errorf(format string, args ...any) { t.fail(fmt.Errorf(format, args...)) }

func (t *scope) Fatalf(format string, args ...any) {
	t.Errorf(format, args...)
	if !t.ending {
		runtime.Goexit()
	}
}

// sleep lets time pass in which something else is measured.
func (t *scope) sleep(d time.Duration) {
	const look = 100 * time.Millisecond // for somebody who has asked for the end
	for end := time.Now().Add(d); ; {
		t.Helper()
		left := time.Until(end)
		if left <= 0 {
			return
		}
		time.Sleep(min(left, look))
	}
}

// failure is why a part of a measure could not be carried out.
type failure struct {
	error
	log string // of the servers
}

func (f *failure) Unwrap() error { return f.error }
