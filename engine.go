package grace

import (
	"context"
	"log/slog"
	"os"
	"os/signal"
	"slices"
	"sync"
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

// serve makes m a member until it is drained, or ctx ends.
func (e *engine) serve(ctx context.Context, m *member) error {
	m.drain = make(chan struct{})
	l := e.join(m)
	reportReady(l.h)
	select {
	case <-m.drain:
		defer e.leave(m, l)
		return m.service.Drain()
	case <-ctx.Done():
		e.leave(m, l) // first: the loop must not call m while it drains
		if err := m.service.Drain(); err != nil {
			m.process.logger().Error("draining failed", "error", err)
		}
		return context.Cause(ctx)
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
		e.loop = l
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
	case draining:
		close(m.drain)
	}
	e.members = append(e.members, m)
	m.process.logger().Debug("signals restart and stop this process")
	return l
}

// leave ends the part of m. The last one waits for the loop.
func (e *engine) leave(m *member, l *loop) {
	e.mu.Lock()
	e.members = slices.DeleteFunc(e.members, func(o *member) bool { return o == m })
	last := len(e.members) == 0
	if last {
		e.loop = nil
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
	for {
		select {
		case <-l.quit:
			return
		case sig := <-l.stop:
			l.log().Info("stopping", "signal", sig.String())
			l.drain(nil)
			return
		case <-l.engine.restart:
			if l.upgrade() {
				return
			}
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
	l.h.Leave(child)
	if child != nil {
		child.TellMain()
		reportSuccessor(child)
		l.log().Info("draining", "successor", child.MainPID())
	} else {
		reportStopping(l.h)
		l.log().Info("draining")
	}
	l.engine.mu.Lock()
	l.phase = draining
	for _, m := range l.engine.members {
		close(m.drain)
	}
	l.engine.mu.Unlock()
	again := make(chan os.Signal, 1)
	if os.Getenv("INVOCATION_ID") != "" {
		signal.Notify(again, syscall.SIGTERM)
		defer signal.Stop(again)
	}
	signal.Stop(l.stop) // a second signal kills, but for SIGTERM of a service manager
	for {
		select {
		case <-l.quit:
			return
		case <-l.stop: // it came before Stop
			l.drainingAlready()
		case <-again:
			l.drainingAlready()
		case <-l.engine.restart:
			l.log().Warn("draining already, the request to restart is ignored")
		}
	}
}

func (l *loop) drainingAlready() {
	l.log().Info("draining already, the request to stop changes nothing")
}

func (l *loop) members() []*member {
	l.engine.mu.Lock()
	defer l.engine.mu.Unlock()
	return slices.Clone(l.engine.members)
}

// log is the logger of the first member.
func (l *loop) log() *slog.Logger {
	for _, m := range l.members() {
		return m.process.logger()
	}
	return slog.New(slog.DiscardHandler)
}
