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

	unasked bool // no signal was the cause: the first one changes nothing, the second kills

	stay  *handoff.Stay   // set if this process will execute the program anew
	died  <-chan struct{} // closed when child has exited, if stay is set
	more  bool            // a restart was asked for meanwhile
	ended bool            // told to stop, so that it will not
}

// drain finishes what is in flight and returns when all members have left. child
// is the one that takes over; if it is nil there may be one that the program has
// started itself. A signal was the cause, unless it is unasked.
func (l *loop) drain(child *handoff.Child, unasked bool) {
	if child == nil {
		child = l.h.Heir()
	}
	e := &ending{loop: l, child: child, unasked: unasked}
	e.run()
}

func (e *ending) run() {
	l, child := e.loop, e.child
	e.begin = time.Now()
	log := l.handler() // before the members leave
	l.h.Leave(child)
	l.leaves(child)
	if os.Getenv("INVOCATION_ID") != "" {
		again := make(chan os.Signal, 1)
		signal.Notify(again, syscall.SIGTERM)
		defer signal.Stop(again)
		e.again = again
	}
	if e.stay == nil && !e.unasked {
		signal.Stop(l.stop) // a second one kills
	}
	if e.final() {
		defer e.tellStopping()()
	}
	if d := e.announce(); d > 0 && e.wait(time.After(d)) {
		return
	}
	begin := time.Now()
	step := stepLog(log, stepDrain)
	switch {
	case e.stay != nil:
		step.Info("draining, to execute the program anew", "successor", child.PID())
		child.Ignore()
		e.died = child.Exited()
	case child != nil:
		step.Info("draining", "successor", child.MainPID())
		if l.engine.manager.successor(l.h, child) {
			e.named = child.Exited()
		}
		child.TellMain()
	case !e.final():
		step.Info("draining", "successor", l.h.Next())
	default:
		step.Info("draining")
	}
	l.h.Mend()
	l.engine.mu.Lock()
	l.phase = draining
	l.engine.drains.Add(1)
	for _, m := range l.engine.members {
		close(m.drain)
	}
	l.engine.mu.Unlock()
	e.wait(nil)
	stepLog(log, stepExit).Info("drained", "after", time.Since(begin))
}

// final reports whether no process follows.
func (e *ending) final() bool { return e.child == nil && e.h.Next() == 0 }

// tellStopping tells the service manager that the service ends, and prepares to ask it for
// more time, if it is known how much that can be. done ends that.
func (e *ending) tellStopping() (done func()) {
	members := e.members()
	e.engine.manager.stopping(e.h)
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
	if !e.final() {
		return 0
	}
	e.engine.stop.Store(true)
	e.engine.mu.Lock()
	// One that has served in the interim must make room for what the supervisor
	// starts.
	if e.phase == serving && !e.h.Interim() {
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
		case sig := <-e.loop.stop:
			switch {
			case e.stay != nil && !e.ended:
				e.end(sig)
				continue
			case e.unasked:
				e.unasked = false
				signal.Stop(e.loop.stop)
				if e.again == nil || sig != syscall.SIGTERM { // which comes there, too
					e.already()
				}
				continue
			case e.stay != nil: // a second one
				signal.Stop(e.loop.stop)
			}
			// Otherwise it came before the signals were given back.
			if e.again != nil && sig == syscall.SIGTERM {
				e.already()
			} else {
				raise(sig)
			}
		case <-e.again:
			e.already()
		case <-e.engine.restart:
			if e.stay != nil && !e.ended {
				e.more = true
				e.log(stepSignal).Info(restartLater)
				continue
			}
			e.log(stepSignal).Warn("draining already, the request to restart is ignored")
		case <-e.extend:
			e.engine.manager.extend(e.begin, e.limit)
		case <-e.died:
			if e.died = nil; !e.ended {
				e.log(stepDrain).Error("new process died, nobody accepts until the program is executed anew", "child", e.child.PID(), "error", e.child.Status())
			}
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
