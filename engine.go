package grace

import (
	"context"
	"os"
	"os/signal"
	"slices"
	"sync"
	"syscall"
	"time"

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
	stop    bool  // the service ends: told to stop, or nobody serves, and there is no successor
}

// member is a service that takes part, and how it was configured.
type member struct {
	process   *Process
	service   Service
	interrupt bool          // SIGINT stops, too
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

func (e *engine) stopping() bool {
	e.mu.Lock()
	defer e.mu.Unlock()
	return e.stop
}

// serve makes m a member until it is drained, or ctx ends.
func (e *engine) serve(ctx context.Context, m *member) error {
	m.drain = make(chan struct{})
	l := e.join(m)
	reportReady(l.h)
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

func (e *engine) join(m *member) *loop {
	e.catchRestart()
	e.mu.Lock()
	defer e.mu.Unlock()
	l := e.loop
	if l == nil {
		l = &loop{
			engine: e,
			h:      handoff.This(),
			stop:   make(chan os.Signal, 1),
			quit:   make(chan struct{}),
			done:   make(chan struct{}),
		}
		e.loop, e.stop = l, false
		go l.run()
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
		e.stop = l.h.Heir() == nil
		close(l.quit)
	}
	e.mu.Unlock()
	if last {
		<-l.done
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
			l.drain(nil)
			return
		case <-l.engine.restart:
			switch {
			case alone != nil:
				l.log(stepSignal).Warn("a restart waits already, the signal is ignored")
				continue
			case l.h.Guarded():
				alone = l.h.Hasten()
				_, parent := l.h.Origin()
				l.log(stepSignal).Info("restart waits until the process before this one no longer stands by", "parent", parent)
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

// drain finishes what is in flight and returns when all members have left. child
// is the one that takes over; if it is nil there may be one that the program has
// started itself.
func (l *loop) drain(child *handoff.Child) {
	if child == nil {
		child = l.h.Heir()
	}
	log := l.handler() // before the members leave
	l.h.Leave(child)
	if child == nil {
		reportStopping(l.h)
	}
	// A second signal kills, but for SIGTERM of a service manager.
	var again chan os.Signal
	if os.Getenv("INVOCATION_ID") != "" {
		again = make(chan os.Signal, 1)
		signal.Notify(again, syscall.SIGTERM)
		defer signal.Stop(again)
	}
	signal.Stop(l.stop)
	if d := l.announce(child); d > 0 && l.drained(again, time.After(d)) {
		return
	}
	begin := time.Now()
	if child != nil {
		stepLog(log, stepDrain).Info("draining", "successor", child.MainPID())
		child.TellMain()
		reportSuccessor(child)
	} else {
		stepLog(log, stepDrain).Info("draining")
	}
	l.h.Mend()
	l.engine.mu.Lock()
	l.phase = draining
	for _, m := range l.engine.members {
		close(m.drain)
	}
	l.engine.mu.Unlock()
	l.drained(again, nil)
	stepLog(log, stepExit).Info("drained", "after", time.Since(begin))
}

// announce says that the service ends, unless child takes over, and returns how
// long it goes on accepting. A process on standby does not accept.
func (l *loop) announce(child *handoff.Child) (delay time.Duration) {
	if child != nil {
		return 0
	}
	l.engine.mu.Lock()
	l.engine.stop = true
	if l.phase == serving {
		delay = longest(l.engine.members, func(p *Process) time.Duration { return p.StopDelay })
	}
	l.phase = announcing
	for _, m := range l.engine.members {
		m.announce()
	}
	l.engine.mu.Unlock()
	if delay > 0 {
		l.log(stepStop).Info("stopping soon, still accepting", "for", delay)
	}
	return delay
}

func (m *member) announce() {
	if a, ok := m.service.(Announcer); ok {
		a.Announce()
	}
}

// drained answers signals until all members have left, when it returns true, or
// until timeout.
func (l *loop) drained(again <-chan os.Signal, timeout <-chan time.Time) bool {
	for {
		select {
		case <-l.quit:
			return true
		case <-timeout:
			return false
		case sig := <-l.stop: // it came before the signals were given back
			if again != nil && sig == syscall.SIGTERM {
				l.drainingAlready()
			} else {
				raise(sig)
			}
		case <-again:
			l.drainingAlready()
		case <-l.engine.restart:
			l.log(stepSignal).Warn("draining already, the request to restart is ignored")
		}
	}
}

func (l *loop) drainingAlready() {
	l.log(stepSignal).Info("draining already, the request to stop changes nothing")
}

func (l *loop) members() []*member {
	l.engine.mu.Lock()
	defer l.engine.mu.Unlock()
	return slices.Clone(l.engine.members)
}
