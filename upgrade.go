package grace

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"sync"
	"syscall"
	"time"

	"github.com/facebookgo/grace/internal/handoff"
)

// One restart, read downwards: hooks, start, hello, ready, standby. Whatever
// fails on the way leaves this process serving as before.

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
			select {
			case <-child.Exited():
				continue // at the last moment
			default:
			}
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
			if why, ok := lastWord(messages, 20*time.Millisecond); ok {
				return l.left(child, why)
			}
			l.resume()
			// On a busy machine what it said may come late.
			if why, ok := lastWord(messages, time.Second); ok {
				l.pause()
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
	var pid int
	if _, err := fmt.Sscanf(why, handoff.LeavingHandover+" %d", &pid); err == nil && pid > 0 {
		l.log().Info("new process was replaced in its turn", "child", child.PID(), "successor", pid)
		child.Replaced(pid)
		l.drain(child)
		return true
	}
	l.log().Info("new process was told to stop", "child", child.PID())
	child.Release()
	l.drain(nil)
	return true
}

// lastWord returns why a child that has exited said it would. What it has sent
// is followed by end of file, unless a process that it started holds the socket.
func lastWord(messages <-chan handoff.Message, wait time.Duration) (why string, ok bool) {
	timeout := time.After(wait)
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

// resume takes up accepting.
func (l *loop) resume() {
	l.engine.mu.Lock()
	defer l.engine.mu.Unlock()
	l.phase = serving
	for _, m := range l.engine.members {
		m.service.Resume()
	}
}

// takeBack forgets a child that has died.
func (l *loop) takeBack(child *handoff.Child) {
	child.Release()
	child.Kill()
	l.log().Error("new process died, this process serves again", "child", child.PID(), "error", child.Status())
}

// longest is the longest time that a member has configured.
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
