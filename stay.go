package grace

import (
	"os"
	"os/signal"
	"syscall"

	"github.com/facebookgo/grace/internal/handoff"
)

// A restart that keeps the pid: the child serves while this process drains, then
// this process executes the program anew, which takes over from the child.

const restartLater = "restart follows when this one is complete"

// keepsPID reports whether this process restarts in that way.
func (l *loop) keepsPID() bool {
	if os.Getpid() == 1 {
		return true
	}
	for _, m := range l.members() {
		if m.process.KeepPID {
			return true
		}
	}
	return false
}

// hold keeps the members here until run has returned: the program may exit when
// they leave.
func (l *loop) hold() {
	l.engine.mu.Lock()
	l.stays = true
	l.engine.mu.Unlock()
}

// comeBack drains, and executes the program anew. again asks for one more restart.
// It reports whether this process has nothing more to do.
func (l *loop) comeBack(child *handoff.Child, again bool) (done bool) {
	stay, err := child.Stay()
	if err != nil {
		child.Release()
		l.resume()
		return l.failed(child, err)
	}
	defer stay.Close()
	l.hold()
	members := l.members()
	e := &ending{loop: l, child: child, stay: stay, more: again}
	e.run()
	log := stepLog(handlerOf(members), stepStart)
	if !e.ended {
		log.Info("program is executed anew", "child", child.PID())
		l.engine.controls.close() // who has asked is answered before
		// Until the program can catch it again, it would be its end.
		signal.Ignore(restartSignals...)
		err := stay.Exec(e.more)
		log.Error("program can't be executed anew, the new process serves on under this one", "child", child.PID(), "error", err)
	}
	l.follow(child)
	child.Release() // nobody comes after this process
	for _, m := range members {
		m.process.removePIDFile()
	}
	return true
}

// stopBoth stops the child, and this process, which was to come after it.
func (l *loop) stopBoth(child *handoff.Child) {
	l.hold()
	_ = child.Signal(syscall.SIGTERM)
	child.Ignore()
	child.Release()
	l.drain(nil, false)
	l.follow(child)
}

// end makes an end of the drain: the program is not executed anew.
func (e *ending) end(sig os.Signal) {
	e.ended = true
	e.log(stepSignal).Info("stopping, and the new process too", "child", e.child.PID(), "signal", sig.String())
	_ = e.child.Signal(syscall.SIGTERM)
	e.child.Release()
	e.engine.manager.stopping(e.h)
}

// follow waits until the child has exited, and lets it be stopped: also by a signal that
// has come since the drain was over.
func (l *loop) follow(child *handoff.Child) {
	signal.Notify(l.stop, syscall.SIGTERM, os.Interrupt) // run ends that
	for {
		select {
		case <-child.Exited():
			return
		case <-l.stop:
			_ = child.Signal(syscall.SIGTERM)
		}
	}
}
