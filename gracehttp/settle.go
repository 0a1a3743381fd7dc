package gracehttp

import (
	"slices"
	"time"
)

// What must be over before http.Server.Shutdown, which drops a request that it finds
// between Read and the handler.

// settleTimeout is how long http.Server.Shutdown is put off for what it would cut:
// a request whose header is half-way here, a connection that is to be handed over,
// one that was just answered.
const settleTimeout = 5 * time.Second

// endTimeout is how long those that end by themselves may take for it, when the time of
// the others is over.
const endTimeout = time.Second

// settle waits until nothing is left that Shutdown would cut, for settleTimeout at
// most, and endTimeout if what is idle has to end then. settleTimeout begins anew while
// connections go to the child: handing over very many takes longer.
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
			for late := time.Now().Add(endTimeout); a.tracker.ending() && time.Now().Before(late) && !a.aborted(); {
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
