package accept

import (
	"context"
	"errors"
	"os"
	"sync"
	"time"
)

// Gate is what calls that wait for something to come go through: they can be held
// back, and let on. It costs no allocation while it is open.
type Gate struct {
	setDeadline func(time.Time) error // wakes the calls; nil if they can't be held back
	queued      func() bool           // reports whether something waits in the kernel
	end         func() error          // what Close does, once

	started chan struct{} // closed by the first call
	start   sync.Once

	mu      sync.Mutex
	state   state
	changed chan struct{} // closed when state changes, or parked or inside does while it is not open
	inside  int           // calls that may take something
	calls   int           // of them so far
	parked  int           // calls that wait for Resume or Close
	err     error         // of Close

	deadline time.Time // that of the program, while the gate is open

	patience time.Duration // of one call while draining

	// How long Finish waits. Tests that need more than a busy machine gives them change it.
	drainTimeout, calledWithin time.Duration
}

// NewGate makes a Gate for calls that setDeadline wakes, if it is not nil. queued
// reports whether there is something that they would return at once. end is called
// by the first Close.
func NewGate(setDeadline func(time.Time) error, queued func() bool, end func() error) Gate {
	return Gate{
		setDeadline:  setDeadline,
		queued:       queued,
		end:          end,
		started:      make(chan struct{}),
		changed:      make(chan struct{}),
		drainTimeout: drainTimeout,
		calledWithin: calledWithin,
	}
}

type state int

const (
	open state = iota
	paused
	draining // takes what waits already, then closes: Finish
	closed
)

// Started is closed by the first call.
func (g *Gate) Started() <-chan struct{} { return g.started }

// change tells everybody who waits that something has changed. mu is held.
func (g *Gate) change() {
	close(g.changed)
	g.changed = make(chan struct{})
}

// past is a deadline that has passed for certain.
var past = time.Unix(1, 0)

const (
	// drainWait is how long the first Accept of Finish waits.
	drainWait = 5 * time.Millisecond
	// drainTimeout is how long Finish waits for an empty queue.
	drainTimeout = 3 * time.Second
	// calledWithin is how long an accept loop may take to come back.
	calledWithin = 100 * time.Millisecond
)

func (g *Gate) wakeAt(t time.Time) {
	if g.setDeadline != nil {
		_ = g.setDeadline(t)
	}
}

// SetDeadline sets the deadline of the calls. While they are held back it has no
// effect, and none any more once Finish was called: there are deadlines of ours
// then.
func (g *Gate) SetDeadline(t time.Time) error {
	if g.setDeadline == nil {
		return os.ErrNoDeadline
	}
	g.mu.Lock()
	defer g.mu.Unlock()
	g.deadline = t
	if g.state == paused || g.state == draining {
		return nil
	}
	return g.setDeadline(t)
}

// Enter waits until a call may go on; it returns false if the gate is closed.
func (g *Gate) Enter() bool {
	g.start.Do(func() { close(g.started) })
	g.mu.Lock()
	defer g.mu.Unlock()
	if g.state == paused {
		g.parked++
		g.change()
		g.wait(context.Background(), func() bool { return g.state != paused })
		g.parked--
	}
	if g.state == closed {
		return false
	}
	g.inside++
	g.calls++
	if g.state == draining {
		g.wakeAt(time.Now().Add(g.patience))
		g.change()
	}
	return true
}

// Leave notes that a call has returned err, and reports whether to try
// again: a deadline is how we wake it. One that the program has set itself ends
// its call as ever.
func (g *Gate) Leave(err error) (again bool) {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.inside--
	if g.state == open {
		return false
	}
	g.change()
	if !errors.Is(err, os.ErrDeadlineExceeded) {
		return false
	}
	if g.state == draining {
		// A deadline that passes before the call has looked says nothing.
		if g.queued() {
			g.patience *= 2
		} else {
			g.close()
		}
	}
	return true
}

// wait returns when done does, or ctx ends. mu is held.
func (g *Gate) wait(ctx context.Context, done func() bool) {
	for !done() && ctx.Err() == nil {
		changed := g.changed
		g.mu.Unlock()
		select {
		case <-changed:
		case <-ctx.Done():
		}
		g.mu.Lock()
	}
}

// Pause holds the calls back: what comes waits in the kernel from now on. It returns
// when no call can take anything any more and at least loops of them wait for Resume:
// a loop that calls again has dealt with what it got before. It returns earlier when
// ctx ends, or the gate is closed.
//
// Calls that nothing wakes, since there is no setDeadline or it fails, are not held back.
func (g *Gate) Pause(ctx context.Context, loops int) {
	if g.setDeadline == nil {
		return
	}
	g.mu.Lock()
	defer g.mu.Unlock()
	if g.state != open {
		return
	}
	g.state = paused
	if g.setDeadline(past) != nil {
		g.state = open
		return
	}
	g.wait(ctx, func() bool { return g.state != paused || g.inside == 0 && g.parked >= loops })
}

// Resume lets the calls on after Pause, with the deadline of SetDeadline.
func (g *Gate) Resume() {
	g.mu.Lock()
	defer g.mu.Unlock()
	if g.state != paused {
		return
	}
	// Whoever is still inside must meet the deadline that has passed.
	g.wait(context.Background(), func() bool { return g.inside == 0 || g.state != paused })
	if g.state == paused {
		g.state = open
		g.wakeAt(g.deadline)
		g.change()
	}
}

// Finish closes the gate. If this process is the last that holds what it is for, the
// calls get what waits already first: nobody else does. For a listener the kernel
// resets what waits then. That takes drainTimeout at most, since more may never stop
// coming, and less where nobody calls.
func (g *Gate) Finish(last bool) error {
	g.mu.Lock()
	defer g.mu.Unlock()
	if last && g.state != closed {
		g.drain()
	}
	g.close()
	return g.err
}

// drain lets the calls take what waits. mu is held.
func (g *Gate) drain() {
	if g.setDeadline == nil {
		return
	}
	ctx, cancel := context.WithTimeout(context.Background(), g.drainTimeout)
	defer cancel()
	g.state = draining
	g.patience = drainWait
	g.wakeAt(time.Now().Add(g.patience))
	g.change()
	for g.state == draining && ctx.Err() == nil {
		if g.inside == 0 && !g.called(ctx) {
			return
		}
		g.wait(ctx, func() bool { return g.inside == 0 || g.state == closed })
	}
}

// called waits for the next call, and reports whether there is one within calledWithin.
// It waits in steps: of a process that does not get on for a while, longer than all of
// them, only one is over by then, and its loops have the others to come. mu is held.
func (g *Gate) called(ctx context.Context) bool {
	const steps = 10
	before := g.calls
	for i := 0; i < steps && g.calls == before && g.state != closed; i++ {
		step, cancel := context.WithTimeout(ctx, g.calledWithin/steps)
		g.wait(step, func() bool { return g.calls != before || g.state == closed })
		cancel()
	}
	return g.calls != before
}

// Close closes the gate. Calls after the first return the same.
func (g *Gate) Close() error {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.close()
	return g.err
}

// close closes the gate once. mu is held.
func (g *Gate) close() {
	if g.state != closed {
		g.state = closed
		g.err = g.end()
		g.change()
	}
}
