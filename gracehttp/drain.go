package gracehttp

import (
	"context"
	"os"
	"slices"
	"syscall"
	"time"

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

// settleTimeout is how long http.Server.Shutdown is put off for what it would cut:
// a request whose header is half-way here, a connection that is to be handed over,
// one that was just answered.
const settleTimeout = 5 * time.Second

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

// settle waits until nothing is left that Shutdown would cut, for settleTimeout at
// most. That begins anew while connections go to the child: handing over very many
// takes longer.
func (a *app) settle() {
	defer a.forgetHeir() // the rest is closed
	timeout := time.NewTimer(settleTimeout)
	defer timeout.Stop()
	again := time.NewTicker(10 * time.Millisecond) // no event tells of half a header
	defer again.Stop()
	end := time.Now().Add(a.stopTimeout)
	moved := a.tracker.moved.Load()
	for !a.settled() {
		select {
		case <-again.C:
			if n := a.tracker.moved.Load(); n != moved && time.Now().Before(end) {
				moved = n
				timeout.Reset(settleTimeout)
			}
		case <-timeout.C:
			a.endIdle()
			for end := time.Now().Add(endTimeout); a.tracker.ending() && time.Now().Before(end); {
				<-again.C
			}
			return
		case <-a.abort:
			return
		}
	}
}

// settled reports whether nothing is left that Shutdown would cut. It makes what is idle
// end by itself when everything else is done, which takes a moment. A request may begin
// in that moment.
func (a *app) settled() bool { return !a.unsettled() && !a.endIdle() && !a.unsettled() }

// endTimeout is how long those that end by themselves may take for it, when the time of
// the others is over.
const endTimeout = time.Second

// endIdle makes those connections end that wait for a request and can do that by
// themselves, and reports whether it has found any.
func (a *app) endIdle() (found bool) {
	a.each(func(s *server) { s.handed.finish() })
	return a.tracker.end()
}

// unsettled reports whether settle has something to wait for.
func (a *app) unsettled() bool {
	return a.tracker.unsettled(a.idleGrace) || slices.ContainsFunc(a.servers, func(s *server) bool { return s.kept.passing() })
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
