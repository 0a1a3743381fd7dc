package grace

import (
	"context"
	"errors"
	"fmt"
	"os"
	"syscall"
	"time"

	"github.com/facebookgo/grace/internal/handoff"
)

// Requests to restart or to stop that wait for an answer, unlike signals. They come
// from the program, and from the control socket.

// Upgrade restarts the service, as SIGUSR2 does, and returns nil when the new
// process serves; this one then drains. If that fails it returns an
// [*UpgradeError], and this process serves on. While a restart is under way it
// returns an error that wraps [ErrUpgrading], and one that wraps [ErrNotServing]
// if nobody serves, here or any more. If ctx ends first, it returns the cause; the
// upgrade goes on.
//
// It must not be called where the engine waits for the caller: from a hook of
// PreStart, or from the methods of a [Service].
func Upgrade(ctx context.Context) error {
	_, err := shared.upgrade(ctx, false)
	return err
}

var (
	// ErrUpgrading is wrapped by an error of [Upgrade]: one restart at a time.
	ErrUpgrading = errors.New("grace: a restart is under way already")

	// ErrNotServing is wrapped by an error of [Upgrade]: this process does not
	// serve yet, is about to stop, or was replaced.
	ErrNotServing = errors.New("grace: this process does not serve")
)

// An UpgradeError says why an upgrade has failed.
type UpgradeError struct {
	Err   error         // what is logged, with the exit status of the child if it has exited
	Child int           // its pid; 0 if none was started
	After time.Duration // since the upgrade began

	// Stderr is what was last written to standard error, 20 lines and 4 KB at most,
	// on Linux. If that is a file that this process may read, it is what was written
	// since the child was started, by whomever. If it is a pipe, a FIFO, a stream
	// socket or /dev/null, it is what the child has written between the
	// initialisation of this package in it and the moment when it was ready. It is
	// empty for a terminal, for the journal, and for a child that sends standard
	// error elsewhere.
	Stderr string

	// Journal is the command that shows what the child has written to standard
	// error, if that is the journal of systemd.
	Journal string
}

func (e *UpgradeError) Error() string { return "grace: upgrade: " + e.Err.Error() }
func (e *UpgradeError) Unwrap() error { return e.Err }

// request is one upgrade that somebody waits for.
type request struct {
	standby bool         // until the standby is over
	outcome chan outcome // gets one
}

type outcome struct {
	child int
	after time.Duration
	err   error
}

// course is the restart that is under way, or the last one.
type course struct {
	asks    chan *request // holds those for whom doing was set
	asked   *request      // who waits; only for the goroutine of the loop
	stderr  mark          // likewise
	started time.Time     // likewise: when the restart began

	// The rest is guarded by engine.mu.
	doing     string // what it does; empty if none is under way
	child     *handoff.Child
	childBorn time.Time
	ends      bool  // this process has begun to end its part
	halt      bool  // because of askStop
	failure   error // of the last one that failed
	failedAt  time.Time
}

// upgrade is Upgrade, or waits until the standby is over.
func (e *engine) upgrade(ctx context.Context, standby bool) (outcome, error) {
	l, r, err := e.askUpgrade(standby)
	if err != nil {
		return outcome{}, err
	}
	select {
	case o := <-r.outcome:
		return o, o.err
	case <-ctx.Done():
		return outcome{}, context.Cause(ctx)
	case <-l.done:
	}
	select {
	case o := <-r.outcome:
		return o, o.err
	default:
		return outcome{}, fmt.Errorf("%w: its last service has ended", ErrNotServing)
	}
}

func (e *engine) askUpgrade(standby bool) (*loop, *request, error) {
	e.mu.Lock()
	defer e.mu.Unlock()
	if err := e.here(); err != nil {
		return nil, nil, err
	}
	c := &e.loop.course
	if c.doing != "" {
		return nil, nil, fmt.Errorf("%w: %s", ErrUpgrading, c.doing)
	}
	c.doing = "it was just asked for"
	r := &request{standby, make(chan outcome, 1)}
	c.asks <- r
	return e.loop, r, nil
}

// askStop is SIGTERM from ourselves. The service ends, also if a child starts.
func (e *engine) askStop() error {
	e.mu.Lock()
	defer e.mu.Unlock()
	if err := e.here(); err != nil {
		return err
	}
	e.loop.course.halt = true
	select {
	case e.loop.stop <- asked{}:
	default: // a signal has come already
	}
	return nil
}

// asked is what askStop sends in the place of a signal. It kills nothing when it
// comes late.
type asked struct{}

func (asked) String() string { return "none, asked on the control socket" }
func (asked) Signal()        {}

var _ os.Signal = asked{}

// here returns an error unless this process is the one to ask. mu is held.
func (e *engine) here() error {
	switch {
	case e.loop == nil:
		return ErrNotServing
	case (e.loop.phase == standby || e.loop.ends) && e.loop.child != nil:
		return fmt.Errorf("%w: process %d does now", ErrNotServing, e.loop.child.PID())
	case e.loop.ends:
		return fmt.Errorf("%w any more", ErrNotServing)
	}
	return nil
}

// do notes what the restart does.
func (l *loop) do(what string) {
	l.engine.mu.Lock()
	defer l.engine.mu.Unlock()
	l.doing = what
}

// begin notes that a restart begins. Somebody may have asked for one just as a
// signal did.
func (l *loop) begin() {
	l.started = time.Now()
	l.do("the pre-start hook runs")
	if l.asked == nil {
		select {
		case l.asked = <-l.asks:
		default:
		}
	}
}

// starts notes that a child is about to be started.
func (l *loop) starts() {
	l.do("the new process starts")
	l.stderr = markStderr()
}

// runs notes the child that was started.
func (l *loop) runs(child *handoff.Child) {
	l.engine.mu.Lock()
	defer l.engine.mu.Unlock()
	l.child, l.childBorn = child, time.Now()
}

// serves notes that child serves.
func (l *loop) serves(child *handoff.Child) {
	l.do("")
	if l.asked != nil && !l.asked.standby {
		l.answer(child, nil)
	}
}

// fails notes why a restart has come to nothing. What the child has taken over is
// taken back.
func (l *loop) fails(child *handoff.Child, err error) {
	pid := 0
	if child != nil {
		pid = child.PID()
		if err := l.engine.controls.restore(pid); err != nil {
			l.log(stepTakeBack).Error("nobody can connect to this process", "error", err)
		}
	}
	l.engine.mu.Lock()
	l.doing, l.child = "", nil
	l.failure, l.failedAt = err, time.Now()
	l.engine.mu.Unlock()
	failure := &UpgradeError{Err: err, Child: pid, After: time.Since(l.started)}
	if child != nil && l.asked != nil {
		failure.Stderr, failure.Journal = l.stderr.tail(), journalOf(pid)
		if b, cut := child.Stderr(); len(b) != 0 {
			failure.Stderr = lastLines(b, cut)
		}
	}
	l.answer(child, failure)
}

// leaves notes that this process begins to end its part. child takes over, unless
// it is nil.
func (l *loop) leaves(child *handoff.Child) {
	l.engine.mu.Lock()
	l.course.ends = true
	l.doing, l.child = "", child
	halt := l.halt
	l.engine.mu.Unlock()
	if halt && child != nil {
		_ = child.Signal(syscall.SIGTERM) // it was ready in this very moment
	}
	if l.asked == nil {
		select {
		case l.asked = <-l.asks: // nobody has begun with it
		default:
		}
	}
	if child == nil {
		l.answer(nil, fmt.Errorf("%w any more: told to stop", ErrNotServing))
		return
	}
	l.answer(child, nil)
}

// answer tells who has asked.
func (l *loop) answer(child *handoff.Child, err error) {
	if l.asked == nil {
		return
	}
	o := outcome{after: time.Since(l.started), err: err}
	if child != nil {
		o.child = child.MainPID()
	}
	l.asked.outcome <- o
	l.asked = nil
}

// halted reports whether this process was asked to stop with all that belongs to
// the service. A signal may come from a child that has taken over.
func (l *loop) halted() bool {
	l.engine.mu.Lock()
	defer l.engine.mu.Unlock()
	return l.halt
}
