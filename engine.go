package grace

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"os/signal"
	"slices"
	"strings"
	"sync"
	"syscall"
	"time"

	"github.com/facebookgo/grace/internal/handoff"
)

// The engine: what a signal does, read downwards. There is one for the process,
// since its signals, its parent and its child are shared by all that serve in
// it. One goroutine decides, that of loop.run; it ends with the last member.

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

// errStopped is the verdict on an upgrade during which this process was told to
// stop, or its last service has ended.
var errStopped = errors.New("told to stop")

// upgrade is one restart. It reports whether this process has nothing more to
// do; otherwise it serves as before.
func (l *loop) upgrade() (done bool) {
	begin := time.Now()
	if err := l.preStart(); err != nil {
		return l.failed(nil, err)
	}
	child, err := l.h.Start(true)
	if err != nil {
		return l.failed(nil, err)
	}
	l.log().Info("new process started", "child", child.PID())
	unused, err := l.awaitReady(child)
	if err != nil {
		return l.failed(child, err)
	}
	l.log().Info("new process is ready", "child", child.PID(), "after", time.Since(begin))
	return l.standby(child, unused)
}

// failed ends an upgrade that came to nothing.
func (l *loop) failed(child *handoff.Child, err error) (done bool) {
	if errors.Is(err, errStopped) {
		if child != nil {
			// The signal may be the way in which a child with the original
			// protocol says that it is ready. It is left to serve.
			child.Hold("")
		}
		l.drain(child)
		return true
	}
	attrs := []any{"error", err}
	if child != nil {
		child.Kill()
		attrs = append(attrs, "child", child.PID())
	}
	l.log().Error("restart failed, this process goes on serving", attrs...)
	return false
}

// preStart runs the hooks. A hook that never returns keeps its goroutine.
func (l *loop) preStart() error {
	hooks := make(chan error, 1)
	members := l.members()
	go func() {
		for _, m := range members {
			if hook := m.process.PreStart; hook != nil {
				if err := hook(); err != nil {
					hooks <- fmt.Errorf("pre-start hook: %w", err)
					return
				}
			}
		}
		hooks <- nil
	}()
	for {
		select {
		case err := <-hooks:
			return err
		case <-l.stop:
			return errStopped
		case <-l.quit:
			return errStopped
		case <-l.engine.restart:
			l.busy()
		}
	}
}

// awaitReady returns when the child serves, with the positions of the sockets
// that it does not use.
func (l *loop) awaitReady(child *handoff.Child) (unused string, err error) {
	timeout := longest(l.members(), func(p *Process) time.Duration { return orDefault(p.StartTimeout, DefaultStartTimeout) })
	timer := time.NewTimer(timeout)
	defer timer.Stop()
	messages := child.Messages()
	for {
		select {
		case m, ok := <-messages:
			switch {
			case !ok:
				return "", l.vanished(child)
			case m.Word == handoff.Ready:
				return m.Args, nil
			case m.Word == handoff.Leaving:
				return "", errors.New("new process was told to stop before it was ready")
			case m.Word != handoff.Hello:
				return "", fmt.Errorf("new process sent %.60q on the control socket, which is no message of a handover", strings.TrimSpace(m.Word+" "+m.Args))
			}
			l.log().Info("new process takes part in the handover", "child", child.PID(), "hello", m.Args)
		case <-child.Exited():
			return "", exitedEarly(child)
		case <-timer.C:
			return "", fmt.Errorf("new process is not ready within %v", timeout)
		case <-l.stop:
			return "", errStopped
		case <-l.quit:
			return "", errStopped
		case <-l.engine.restart:
			l.busy()
		}
	}
}

func exitedEarly(child *handoff.Child) error {
	return fmt.Errorf("new process exited before it was ready: %s", child.Status())
}

// vanished tells why the control socket is closed. Nearly always the child has
// exited, and its status says more.
func (l *loop) vanished(child *handoff.Child) error {
	select {
	case <-child.Exited():
		return exitedEarly(child)
	case <-time.After(time.Second):
		return errors.New("new process closed its control socket before it was ready")
	}
}

func (l *loop) busy() {
	l.log().Warn("a restart is under way already, the signal is ignored")
}

// standby lets the child serve alone and watches over it for a while.
func (l *loop) standby(child *handoff.Child, unused string) (done bool) {
	child.Hold(unused)
	l.pause()
	d := longest(l.members(), func(p *Process) time.Duration { return orDefault(p.Standby, DefaultStandby) })
	if d > 0 {
		l.log().Info("standing by", "child", child.PID(), "for", d)
	}
	timer := time.NewTimer(max(d, 0))
	defer timer.Stop()
	messages := child.Messages()
	for {
		select {
		case <-timer.C:
		case <-l.stop:
		case <-l.quit:
		case m, ok := <-messages:
			switch {
			case !ok:
				messages = nil // only its exit tells that it has died
				continue
			case m.Word != handoff.Leaving:
				continue
			}
			return l.left(child, m.Args)
		case <-child.Exited():
			if why, ok := lastWord(messages); ok {
				return l.left(child, why)
			}
			l.takeBack(child)
			return false
		case <-l.engine.restart:
			// Who sent it can't know yet that the child is the one to ask.
			l.log().Info("restart is passed on to the new process", "child", child.PID())
			if err := child.Signal(restartSignals[0].(syscall.Signal)); err != nil {
				l.log().Warn("restart could not be passed on", "child", child.PID(), "error", err)
			}
			continue
		}
		l.drain(child)
		return true
	}
}

// left ends the standby of a child that has ended its own service on purpose.
func (l *loop) left(child *handoff.Child, why string) (done bool) {
	if why == handoff.LeavingHandover {
		child.Replaced()
		l.drain(child)
		return true
	}
	l.log().Info("new process was told to stop", "child", child.PID())
	child.Release()
	l.drain(nil)
	return true
}

// lastWord returns why a child that has exited said it would. What it has sent
// is here already, unless a process that it started holds the socket.
func lastWord(messages <-chan handoff.Message) (why string, ok bool) {
	timeout := time.After(20 * time.Millisecond)
	for messages != nil {
		select {
		case m, ok := <-messages:
			if !ok {
				return "", false
			}
			if m.Word == handoff.Leaving {
				return m.Args, true
			}
		case <-timeout:
			return "", false
		}
	}
	return "", false
}

func (l *loop) pause() {
	l.engine.mu.Lock()
	defer l.engine.mu.Unlock()
	l.phase = standby
	var wg sync.WaitGroup
	for _, m := range l.engine.members {
		wg.Add(1)
		go func() {
			defer wg.Done()
			m.pause()
		}()
	}
	wg.Wait()
}

// pauseTimeout is longer than net/http sleeps after an error of Accept.
const pauseTimeout = 2 * time.Second

func (m *member) pause() {
	ctx, cancel := context.WithTimeout(context.Background(), pauseTimeout)
	defer cancel()
	m.service.Pause(ctx)
}

// takeBack serves again in place of a child that has died.
func (l *loop) takeBack(child *handoff.Child) {
	child.Release()
	l.engine.mu.Lock()
	l.phase = serving
	for _, m := range l.engine.members {
		m.service.Resume()
	}
	l.engine.mu.Unlock()
	child.Kill()
	l.log().Error("new process died, this process serves again", "child", child.PID(), "error", child.Status())
}

// drain finishes what is in flight and returns when all members have left. child
// is the one that takes over; if it is nil there may be one that the program has
// started itself.
func (l *loop) drain(child *handoff.Child) {
	if child == nil {
		child = l.h.Heir()
	}
	if child != nil {
		child.TellMain()
		l.h.Leave(handoff.LeavingHandover)
		reportSuccessor(child)
		l.log().Info("draining", "successor", child.PID())
	} else {
		l.h.Leave(handoff.LeavingStop)
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

func longest(members []*member, of func(*Process) time.Duration) time.Duration {
	d := time.Duration(-1)
	for _, m := range members {
		d = max(d, of(m.process))
	}
	return d
}

func orDefault(d, byDefault time.Duration) time.Duration {
	if d == 0 {
		return byDefault
	}
	return d
}

// log is the logger of the first member.
func (l *loop) log() *slog.Logger {
	for _, m := range l.members() {
		return m.process.logger()
	}
	return slog.New(slog.DiscardHandler)
}
