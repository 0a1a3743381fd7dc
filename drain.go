package grace

import (
	"os"
	"os/signal"
	"syscall"
	"time"

	"github.com/facebookgo/grace/internal/handoff"
)

// The end of this process's part in the service, with a successor or without.

// ending is one drain.
type ending struct {
	*loop
	child *handoff.Child   // takes over; may be nil
	again <-chan os.Signal // a second SIGTERM of a service manager, which does not kill

	named  <-chan struct{}  // closed when child has exited, if the manager takes it for the main process
	extend <-chan time.Time // when to ask the manager for more time
	begin  time.Time
	limit  time.Duration // how long it may take
}

// drain finishes what is in flight and returns when all members have left. child
// is the one that takes over; if it is nil there may be one that the program has
// started itself.
func (l *loop) drain(child *handoff.Child) {
	if child == nil {
		child = l.h.Heir()
	}
	e := &ending{loop: l, child: child, begin: time.Now()}
	log := l.handler() // before the members leave
	l.h.Leave(child)
	if os.Getenv("INVOCATION_ID") != "" {
		again := make(chan os.Signal, 1)
		signal.Notify(again, syscall.SIGTERM)
		defer signal.Stop(again)
		e.again = again
	}
	signal.Stop(l.stop) // a second one kills
	if child == nil {
		defer e.tellStopping()()
	}
	if d := e.announce(); d > 0 && e.wait(time.After(d)) {
		return
	}
	begin := time.Now()
	if child != nil {
		stepLog(log, stepDrain).Info("draining", "successor", child.MainPID())
		if l.engine.manager.successor(l.h, child) {
			e.named = child.Exited()
		}
		child.TellMain()
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
	e.wait(nil)
	stepLog(log, stepExit).Info("drained", "after", time.Since(begin))
}

// tellStopping tells the service manager that the service ends, and prepares to ask it for
// more time, if it is known how much that can be. done ends that.
func (e *ending) tellStopping() (done func()) {
	members := e.members()
	e.engine.manager.stopping(e.h, "stops")
	limit := longest(members, func(p *Process) time.Duration { return p.TermTimeout })
	if limit <= 0 {
		return func() {}
	}
	e.limit = limit + longest(members, func(p *Process) time.Duration { return p.StopDelay })
	e.engine.manager.extend(e.begin, e.limit)
	tick := time.NewTicker(extensionEvery)
	e.extend = tick.C
	return tick.Stop
}

// announce says that the service ends, unless a child takes over, and returns how
// long it goes on accepting. A process on standby does not accept.
func (e *ending) announce() (delay time.Duration) {
	if e.child != nil {
		return 0
	}
	e.engine.mu.Lock()
	e.engine.stop = true
	if e.phase == serving {
		delay = longest(e.engine.members, func(p *Process) time.Duration { return p.StopDelay })
	}
	e.phase = announcing
	for _, m := range e.engine.members {
		m.announce()
	}
	e.engine.mu.Unlock()
	if delay > 0 {
		e.log(stepStop).Info("stopping soon, still accepting", "for", delay)
	}
	return delay
}

func (m *member) announce() {
	if a, ok := m.service.(Announcer); ok {
		a.Announce()
	}
}

// wait answers signals until all members have left, when it returns true, or until
// timeout.
func (e *ending) wait(timeout <-chan time.Time) bool {
	for {
		select {
		case <-e.quit:
			return true
		case <-timeout:
			return false
		case sig := <-e.loop.stop: // it came before the signals were given back
			if e.again != nil && sig == syscall.SIGTERM {
				e.already()
			} else {
				raise(sig)
			}
		case <-e.again:
			e.already()
		case <-e.engine.restart:
			e.log(stepSignal).Warn("draining already, the request to restart is ignored")
		case <-e.extend:
			e.engine.manager.extend(e.begin, e.limit)
		case <-e.named:
			if e.named = nil; e.child.Crashed() {
				e.abort()
			}
		}
	}
}

// abort makes this process leave at once, since the service manager does not learn
// that the main process has died before its parent has gone.
func (e *ending) abort() {
	e.log(stepDrain).Error("the new process died, this one leaves at once for the service manager to see it", "child", e.child.PID())
	for _, m := range e.members() {
		if a, ok := m.service.(Aborter); ok {
			a.Abort()
		}
	}
}

func (e *ending) already() {
	e.log(stepSignal).Info("draining already, the request to stop changes nothing")
}
