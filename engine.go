package grace

import (
	"context"
	"os"
	"os/signal"
	"slices"
	"sync"
	"sync/atomic"
	"syscall"

	"github.com/facebookgo/grace/internal/handoff"
)

// The engine: who takes part, and what a signal does. There is one for the
// process, since its signals, its parent and its child are shared by all that
// serve in it. One goroutine decides, that of loop.run; it ends with the last
// member. What SIGUSR2 does is in upgrade.go.

var shared = engine{restart: make(chan os.Signal, 1)}

type engine struct {
	restart chan os.Signal // SIGUSR2, caught for good once it is
	caught  sync.Once

	mu      sync.Mutex
	members []*member
	loop    *loop // nil while nobody serves

	// The service ends: told to stop, or nobody serves, and there is no successor.
	// Ready reads it without mu, since the methods of a service may ask, and mu is held
	// while they are called.
	stop atomic.Bool

	// How often this process has begun to drain. What was made before that drains too, even
	// if the program comes to Wait when all is over.
	drains atomic.Int64

	manager  manager
	controls controls
	asked    bool // the restart that was asked for before this program was executed has been begun
}

// member is a service that takes part, and how it was configured.
type member struct {
	process   *Process
	service   Service
	interrupt bool          // SIGINT stops, too
	made      int64         // engine.drains when what it serves was made
	drain     chan struct{} // closed when it shall drain
}

type phase int

const (
	serving phase = iota
	standby
	announcing // told to stop, and accepting until StopDelay is over
	draining
)

type loop struct {
	engine *engine
	h      *handoff.Process
	stop   chan os.Signal
	quit   chan struct{} // closed when no member is left
	done   chan struct{} // closed when run has returned
	phase  phase         // guarded by engine.mu
	stays  bool          // no member leaves before run has returned; guarded by engine.mu

	watched chan struct{} // closed when manager.watch has returned
	course
}

// catchRestart makes SIGUSR2 wait for the engine. One signal is kept; the others
// of a burst would ask for the same.
func (e *engine) catchRestart() {
	e.caught.Do(func() {
		if len(restartSignals) != 0 {
			signal.Notify(e.restart, restartSignals...)
		}
	})
}

// askRestart is SIGUSR2 from ourselves.
func (e *engine) askRestart() {
	select {
	case e.restart <- restartSignals[0]:
	default: // one waits already
	}
}

// serve makes m a member until it is drained, or ctx ends.
func (e *engine) serve(ctx context.Context, m *member) error {
	m.drain = make(chan struct{})
	l := e.join(m)
	if l == nil {
		m.process.log(stepDrain).Info("draining")
		defer m.process.removePIDFile()
		return m.service.Drain()
	}
	e.manager.ready(l.h)
	select {
	case <-m.drain:
		defer e.leave(m, l)
		defer m.process.removePIDFile()
		return m.service.Drain()
	case <-ctx.Done():
		cause := context.Cause(ctx)
		l.h.Fail(cause)
		e.leave(m, l) // first: the loop must not call m while it drains
		m.process.log(stepDrain).Info("draining", "error", cause)
		if err := m.service.Drain(); err != nil {
			m.process.log(stepDrain).Error("draining failed", "error", err)
		}
		m.process.removePIDFile()
		return cause
	}
}

// join returns nil if m comes too late: the drain that it should have had is over.
func (e *engine) join(m *member) *loop {
	e.catchRestart()
	e.mu.Lock()
	defer e.mu.Unlock()
	l := e.loop
	if m.made < e.drains.Load() && (l == nil || l.phase != draining) {
		return nil
	}
	if l == nil {
		l = &loop{
			engine: e,
			h:      handoff.This(),
			stop:   make(chan os.Signal, 1),
			quit:   make(chan struct{}),
			done:   make(chan struct{}),

			watched: make(chan struct{}),
			course:  course{asks: make(chan *request, 1)},
		}
		e.loop = l
		e.stop.Store(false)
		if _, again := l.h.Comeback(); again && !e.asked {
			e.asked = true
			e.askRestart()
		}
		go l.run()
		reaped := make(chan struct{})
		go func() {
			defer close(reaped)
			if os.Getpid() == 1 {
				reapOrphans(l.quit)
			}
		}()
		go func() {
			defer close(l.watched)
			e.manager.watch(l.h, l.quit)
			<-reaped
		}()
	}
	if l.phase != draining {
		signal.Notify(l.stop, syscall.SIGTERM)
		if m.interrupt {
			signal.Notify(l.stop, os.Interrupt)
		}
	}
	m.service.Start()
	switch l.phase {
	case standby:
		m.pause()
	case announcing:
		m.announce()
	case draining:
		close(m.drain)
	}
	e.members = append(e.members, m)
	m.process.log(stepSignal).Debug("signals restart and stop this process")
	return l
}

// leave ends the part of m. The last one waits for the loop.
func (e *engine) leave(m *member, l *loop) {
	e.mu.Lock()
	e.members = slices.DeleteFunc(e.members, func(o *member) bool { return o == m })
	last := len(e.members) == 0
	if last {
		e.loop = nil
		e.stop.Store(l.h.Heir() == nil)
		close(l.quit)
	}
	stays := l.stays
	e.mu.Unlock()
	if last || stays {
		<-l.done
	}
	if last {
		<-l.watched
		e.controls.close()
		l.h.End()
	}
}

func (l *loop) run() {
	defer close(l.done)
	defer signal.Stop(l.stop)
	var alone <-chan struct{} // set while a restart waits for the parent to go
	for {
		select {
		case <-l.quit:
			return
		case sig := <-l.stop:
			l.log(stepSignal).Info("stopping", "signal", sig.String())
			l.drain(nil, false)
			return
		case <-l.h.Relieved():
			l.drain(nil, true)
			return
		case <-l.engine.restart:
			switch {
			case alone != nil:
				l.log(stepSignal).Warn("a restart waits already, the signal is ignored")
				continue
			case l.h.Guarded():
				alone = l.wait()
				continue
			}
		case l.asked = <-l.asks:
			if alone != nil {
				continue // a signal has come first
			}
			if l.h.Guarded() {
				alone = l.wait()
				continue
			}
		case <-alone:
			alone = nil
		}
		if l.upgrade() {
			return
		}
	}
}

// wait puts a restart off until this process is on its own.
func (l *loop) wait() (alone <-chan struct{}) {
	l.do("it waits until the process before this one no longer stands by")
	alone = l.h.Hasten()
	_, parent := l.h.Origin()
	l.log(stepSignal).Info("restart waits until the process before this one no longer stands by", "parent", parent)
	return alone
}

func (l *loop) members() []*member {
	l.engine.mu.Lock()
	defer l.engine.mu.Unlock()
	return slices.Clone(l.engine.members)
}

// processes are those of the members, each once.
func (l *loop) processes() (processes []*Process) {
	for _, m := range l.members() {
		if !slices.Contains(processes, m.process) {
			processes = append(processes, m.process)
		}
	}
	return processes
}
