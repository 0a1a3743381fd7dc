package grace

import (
	"context"
	"errors"
	"fmt"
	"runtime/debug"
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
	l.begin()
	l.engine.manager.reload(l.h)
	if err := l.preStart(); err != nil {
		return l.failed(nil, err)
	}
	l.starts()
	for try := 1; ; try++ {
		child, err := l.h.Start(handoff.Options{Control: true, Interim: l.keepsPID(), Stderr: l.asked != nil && !isJournal()})
		if err != nil {
			return l.failed(nil, err)
		}
		l.runs(child)
		l.log(stepStart).Info("new process started", "child", child.PID())
		ready, err := l.awaitReady(child)
		switch {
		case err == nil:
			l.log(stepReady).Info("new process is ready", "child", child.PID(), "after", time.Since(l.started))
			return l.standby(child, ready)
		case try < maxTries && child.Struck(restartSignals[0].(syscall.Signal)):
			l.log(stepStart).Info("new process was in the way of a signal that restarts, another one is started", "child", child.PID(), "error", err)
			l.kill(child)
		default:
			return l.failed(child, err)
		}
	}
}

// maxTries is how often a child is started that can't catch signals yet and is
// killed by that for this process. Who sends it to all processes of the service one
// by one, as systemd does, finds the child among them.
const maxTries = 3

// failed ends an upgrade that came to nothing.
func (l *loop) failed(child *handoff.Child, err error) (done bool) {
	if errors.Is(err, errStopped) {
		if child != nil && (l.halted() || l.keepsPID()) { // nobody comes after this process
			l.kill(child)
			child = nil
		}
		if child != nil {
			// The signal may be the way in which a child with the original
			// protocol says that it is ready. It is left to serve.
			child.Hold("")
		}
		l.drain(child, false)
		return true
	}
	var attrs []any
	if child != nil {
		attrs = append(attrs, "child", child.PID())
		l.kill(child)
	}
	l.engine.manager.failed(l.h, err)
	attrs = append(attrs, "after", time.Since(l.started), "error", err)
	l.log(stepFail).Error("restart failed, this process goes on serving", attrs...)
	l.fails(child, err)
	return false
}

// kill ends a child. One that can't be reaped now must not hold anything up.
func (l *loop) kill(child *handoff.Child) {
	if !child.Kill() {
		l.log(stepFail).Warn("new process is killed, but is not gone yet", "child", child.PID())
	}
	l.restorePIDFiles(stepFail)
}

// restorePIDFiles writes the PID files after the end of a child that may have done so.
func (l *loop) restorePIDFiles(step string) {
	for _, p := range l.processes() {
		if err := p.restorePIDFile(); err != nil {
			l.log(step).Error("PID file names the process that died", "error", err)
		}
	}
}

// preStart runs the hooks. A hook that never returns keeps its goroutine.
func (l *loop) preStart() error {
	hooks := make(chan error, 1)
	processes := l.processes()
	go func() {
		err := errors.New("pre-start hook: ended its goroutine")
		defer func() { hooks <- err }()
		err = runHooks(processes)
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
			l.busy("the pre-start hook runs")
		}
	}
}

// runHooks runs the hooks of all processes. One that panics must not take down a
// service that only wants to be restarted.
func runHooks(processes []*Process) (err error) {
	defer func() {
		if r := recover(); r != nil {
			err = fmt.Errorf("pre-start hook: panic: %v\n%s", r, debug.Stack())
		}
	}()
	for _, p := range processes {
		if p.PreStart == nil {
			continue
		}
		if err := p.PreStart(); err != nil {
			return fmt.Errorf("pre-start hook: %w", err)
		}
	}
	return nil
}

// awaitReady returns when the child serves, with what it says about the sockets.
func (l *loop) awaitReady(child *handoff.Child) (ready string, err error) {
	timeout := longest(l.members(), func(p *Process) time.Duration { return orDefault(p.StartTimeout, DefaultStartTimeout) })
	timer := time.NewTimer(timeout)
	defer timer.Stop()
	var (
		messages = child.Messages()
		exited   = child.Exited()
		ended    <-chan struct{} // closed when nothing more is expected
		hello    bool
		reason   string // which the child gave itself
	)
	for {
		select {
		case m, ok := <-messages:
			switch {
			case !ok:
				if messages = nil; exited == nil {
					return "", whyNotReady(child, true, reason)
				}
				ended = handoff.AfterLastWords()
			case m.Word == handoff.Ready:
				return m.Args, nil
			case m.Word == handoff.Hello && !hello:
				hello = true
				l.log(stepHello).Info("new process takes part in the handover", "child", child.PID(), "after", time.Since(l.started))
			case m.Word == handoff.Failed && reason == "":
				reason = m.Args
				ended = handoff.AfterLastWords()
			default:
				return "", fmt.Errorf("new process sent %.60q on the control socket, which is no message of a handover", strings.TrimSpace(m.Word+" "+m.Args))
			}
		case <-exited:
			if exited = nil; messages == nil {
				return "", whyNotReady(child, true, reason)
			}
			ended = handoff.AfterLastWords()
		case <-ended:
			return "", whyNotReady(child, exited == nil, reason)
		case <-timer.C:
			if !hello {
				return "", fmt.Errorf("new process is not ready within %v, and has not said hello: it hangs at its start, or does not use this library", timeout)
			}
			return "", fmt.Errorf("new process is not ready within %v", timeout)
		case <-l.stop:
			return "", errStopped
		case <-l.quit:
			return "", errStopped
		case <-l.engine.restart:
			l.busy("the new process starts")
		}
	}
}

// whyNotReady tells why a child gave up.
func whyNotReady(child *handoff.Child, exited bool, reason string) error {
	switch {
	case exited && reason != "":
		return fmt.Errorf("new process failed: %s (%s)", reason, child.Status())
	case exited:
		return fmt.Errorf("new process exited before it was ready: %s", child.Status())
	case reason != "":
		return fmt.Errorf("new process failed: %s", reason)
	}
	return errors.New("new process closed its control socket before it was ready")
}

func (l *loop) busy(what string) {
	l.log(stepSignal).Warn("a restart is under way already, the signal is ignored", "now", what, "after", time.Since(l.started))
}

// standby lets the child serve alone and watches over it for a while.
func (l *loop) standby(child *handoff.Child, told string) (done bool) {
	child.Hold(told)
	l.pause()
	child.TellStandby()
	l.engine.manager.standby(l.h, child)
	l.serves(child)
	d := max(0, longest(l.members(), func(p *Process) time.Duration { return orDefault(p.Standby, DefaultStandby) }))
	if d > 0 {
		l.log(stepStandby).Info("standing by", "child", child.PID(), "for", d)
	}
	ready := time.Now()
	timer := time.NewTimer(d)
	defer timer.Stop()
	messages := child.Messages()
	warned, asked := false, false
	keeps, again, stop := l.keepsPID(), false, false
	for {
		select {
		case <-timer.C:
			if child.Gone() {
				continue // at the last moment
			}
		case sig := <-l.stop:
			if keeps {
				l.log(stepSignal).Info("stopping, and the new process too", "child", child.PID(), "signal", sig.String())
				l.stopBoth(child)
				return true
			}
			stop = true
		case <-l.quit:
			if keeps { // the program does not want to come back
				l.stopBoth(child)
				return true
			}
		case m, ok := <-messages:
			switch {
			case !ok:
				messages = nil // only its exit tells that it has died
			case m.Word == handoff.Leaving:
				return l.left(child, m.Args)
			case m.Word == handoff.Hasten:
				asked = true
				if d > DefaultStandby {
					d = DefaultStandby
					timer.Reset(max(0, time.Until(ready.Add(d))))
					l.log(stepStandby).Info("standing by less long, since the new process shall restart", "child", child.PID(), "for", d)
				}
			case !warned:
				warned = true
				l.log(stepStandby).Warn("new process is ready already, what it sends is ignored", "child", child.PID(), "message", fmt.Sprintf("%.60s", m.Word))
			}
			continue
		case <-child.Exited():
			why, ok, hasten := lastWord(messages, time.After(20*time.Millisecond))
			asked = asked || hasten
			if ok {
				return l.left(child, why)
			}
			l.resume()
			// On a busy machine what it said may come late.
			why, ok, hasten = lastWord(messages, handoff.AfterLastWords())
			asked = asked || hasten
			if ok {
				l.pause()
				return l.left(child, why)
			}
			l.takeBack(ready, child)
			if asked {
				l.engine.askRestart()
			}
			return false
		case <-l.engine.restart:
			if keeps {
				again = true
				l.log(stepSignal).Info(restartLater)
				continue
			}
			// Who sent it can't know yet that the child is the one to ask.
			asked = true
			if err := child.Signal(restartSignals[0].(syscall.Signal)); err != nil {
				l.log(stepSignal).Warn("restart could not be passed on", "child", child.PID(), "error", err)
			} else {
				l.log(stepSignal).Info("restart is passed on to the new process", "child", child.PID())
			}
			continue
		}
		if child.Gone() { // in the moment in which this process was told to stop
			if why, ok, _ := lastWord(messages, handoff.AfterLastWords()); ok {
				return l.left(child, why)
			}
			child.Release()
			child = nil
		}
		if child != nil && child.Stops() { // what it said is still to be read
			child.Ignore()
			return l.left(child, handoff.LeavingStop)
		}
		if keeps && child != nil {
			return l.comeBack(child, again)
		}
		l.drain(child, !stop)
		return true
	}
}

// left ends the standby of a child that has ended its own service on purpose.
func (l *loop) left(child *handoff.Child, why string) (done bool) {
	var pid int
	if _, err := fmt.Sscanf(why, handoff.LeavingHandover+" %d", &pid); err == nil && pid > 0 {
		l.log(stepStandby).Info("new process was replaced in its turn", "child", child.PID(), "successor", pid)
		child.Replaced(pid)
		l.drain(child, true)
		return true
	}
	l.log(stepStandby).Info("new process was told to stop", "child", child.PID())
	child.Release()
	// The signal may be on its way to this process, too.
	l.drain(nil, true)
	return true
}

// lastWord returns why a child that has exited said it would, and whether it has said that
// it was to restart. What it has sent is followed by end of file, unless a process that it
// started holds the socket.
func lastWord[T any](messages <-chan handoff.Message, timeout <-chan T) (why string, ok, hasten bool) {
	for messages != nil {
		select {
		case m, more := <-messages:
			switch {
			case !more:
				return "", false, hasten
			case m.Word == handoff.Leaving:
				return m.Args, true, hasten
			case m.Word == handoff.Hasten:
				hasten = true
			}
		case <-timeout:
			return "", false, hasten
		}
	}
	return "", false, false
}

func (l *loop) pause() {
	l.h.Mend()
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
func (l *loop) takeBack(ready time.Time, child *handoff.Child) {
	child.Release()
	child.Kill() // it is reaped already: this closes what belonged to it
	l.engine.manager.failed(l.h, fmt.Errorf("new process died: %s", child.Status()))
	l.log(stepTakeBack).Error("new process died, this process serves again", "child", child.PID(), "after", time.Since(ready), "error", child.Status())
	l.restorePIDFiles(stepTakeBack)
	l.fails(child, fmt.Errorf("new process died: %s", child.Status()))
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
