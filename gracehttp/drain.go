package gracehttp

import (
	"context"
	"os"
	"syscall"

	"github.com/facebookgo/grace/internal/handoff"
)

// How connections come to their end: with an answer that closes them, in the child,
// when they are idle for long enough, or when they take too long. Drain says in
// which order.

// Pause implements grace.Service. A server has one accept loop; when that is
// back in Accept, the server knows the last connection that it was given. A
// listener that the child does not serve is ours until the drain.
func (a *app) Pause(ctx context.Context) {
	a.each(func(s *server) {
		if !handoff.This().LastHolder(s.listener.Listener) {
			s.listener.Pause(ctx, 1)
		}
	})
	a.setHeir()
	a.tracker.closing.Store(true)
}

// Resume implements grace.Service.
func (a *app) Resume() {
	a.tracker.closing.Store(false)
	a.forgetHeir()
	a.each(func(s *server) { s.listener.Resume() })
}

// Announce implements grace.Announcer.
func (a *app) Announce() { a.tracker.closing.Store(true) }

// Abort implements grace.Aborter.
func (a *app) Abort() { close(a.abort) }

// Drain implements grace.Service.
func (a *app) Drain() error {
	log := a.process.Logger.With("step", "drain", "pid", os.Getpid())
	close(a.stop)
	a.setHeir()
	a.tracker.closing.Store(true)
	a.each((*server).closeListener)
	a.handOver()
	a.tracker.wait(a.idleGrace)
	a.settle()
	a.each(func(s *server) { s.handed.finish() })
	if n := a.tracker.moved.Load(); n > 0 {
		log.Info("idle connections were handed over", "connections", n)
	}
	if n := a.tracker.open.Load(); n > 0 {
		log.Info("idle connections are closed, requests in flight are waited for", "connections", n, "for", a.stopTimeout)
	}
	ended := a.shutdown()
	if !ended {
		if !a.aborted() {
			log.Warn("requests take too long, their connections are closed",
				"connections", a.tracker.open.Load(), "after", a.stopTimeout, "for", a.killTimeout)
		}
		a.each(func(s *server) { _ = s.http.Close() })
		a.tracker.closeHijacked()
		ended = a.tracker.wait(a.killTimeout)
	}
	switch {
	case ended:
		a.each(func(s *server) { s.kept.join() })
	case !a.aborted():
		log.Warn("handlers do not return", "connections", a.tracker.open.Load(), "after", a.killTimeout)
	}
	return nil
}

func (a *app) aborted() bool {
	select {
	case <-a.abort:
		return true
	default:
		return false
	}
}

// setHeir learns which servers have a successor that takes connections over.
func (a *app) setHeir() {
	child := handoff.This().Heir()
	if !a.handOverIdle || child == nil {
		return
	}
	for _, s := range a.servers {
		if !s.secure && child.Takes(s.listener.Listener) {
			s.heir.Store(child)
		}
	}
}

func (a *app) forgetHeir() {
	for _, s := range a.servers {
		s.heir.Store(nil)
	}
}

// handOver asks each connection that can go to the child to do so as soon as no
// request is under way on it.
func (a *app) handOver() {
	for _, s := range a.servers {
		s.leaving.Store(true) // what is made of one that is kept is asked, too
	}
	for c := range a.tracker.all {
		c.server.ask(c)
	}
	for _, s := range a.servers {
		if heir := s.heir.Load(); heir != nil {
			s.kept.pass(func(conns []syscall.Conn) []bool { return s.passTo(heir, conns) })
		}
	}
}

// ask asks one connection.
func (s *server) ask(c *tracked) {
	if heir := s.heir.Load(); heir != nil && c.watch != nil {
		c.watch.ask(func() bool { return s.passTo(heir, []syscall.Conn{c.watch.socket})[0] })
	}
}

// passTo hands connections over and reports which of them were taken.
func (s *server) passTo(heir *handoff.Child, conns []syscall.Conn) (taken []bool) {
	taken = heir.Pass(s.listener.Listener, conns...)
	for _, ok := range taken {
		if ok {
			s.app.tracker.moved.Add(1) // before settle can miss it
		}
	}
	return taken
}

// shutdown closes what is idle and waits for the rest. It reports whether all
// connections have ended in time. http.Server.Shutdown starts that, and would
// notice the end up to half a second late.
func (a *app) shutdown() bool {
	ctx, cancel := context.WithTimeout(context.Background(), a.stopTimeout)
	done := make(chan struct{})
	a.tracker.closeUnused()
	go func() {
		defer close(done)
		a.each(func(s *server) { _ = s.http.Shutdown(ctx) })
	}()
	ended := a.tracker.wait(a.stopTimeout)
	cancel()
	<-done
	return ended
}
