// Package accept can stop accepting connections on a listener and take it up
// again, without closing it in between.
package accept

import (
	"context"
	"errors"
	"net"
	"os"
	"sync"
	"time"
)

// Listener is a listener that can be paused. It hands out the connections as
// they come, without a wrapper.
type Listener struct {
	net.Listener // the one that is served

	closeInner func(net.Listener) error

	started chan struct{} // closed by the first Accept
	start   sync.Once

	mu      sync.Mutex
	state   state
	changed chan struct{} // closed when state changes, or parked or inside does
	inside  int           // Accept calls that may take a connection
	calls   int           // of them so far
	parked  int           // Accept calls that wait for Resume or Close
	err     error         // of Close

	deadline time.Time // that of the program, while it accepts

	patience time.Duration // of one Accept while draining
}

type state int

const (
	open state = iota
	paused
	draining // accepts what waits already, then closes: Finish
	closed
)

// deadliner is what a listener must have to be paused: net.TCPListener and
// net.UnixListener have it.
type deadliner interface{ SetDeadline(time.Time) error }

// New makes a Listener of l, which is closed by closeInner.
func New(l net.Listener, closeInner func(net.Listener) error) *Listener {
	return &Listener{Listener: l, closeInner: closeInner, started: make(chan struct{}), changed: make(chan struct{})}
}

// Started is closed when Accept is called for the first time.
func (l *Listener) Started() <-chan struct{} { return l.started }

// change tells everybody who waits that something has changed. mu is held.
func (l *Listener) change() {
	close(l.changed)
	l.changed = make(chan struct{})
}

// past is a deadline that has passed for certain.
var past = time.Unix(1, 0)

const (
	// drainWait is how long the first Accept of Finish waits.
	drainWait = 5 * time.Millisecond
	// drainTimeout is how long Finish waits for an empty queue.
	drainTimeout = time.Second
	// calledWithin is how long an accept loop may take to come back.
	calledWithin = 100 * time.Millisecond
)

func (l *Listener) setDeadline(t time.Time) {
	if d, ok := l.Listener.(deadliner); ok {
		_ = d.SetDeadline(t)
	}
}

// SetDeadline sets the deadline of Accept. While the listener is paused it has no
// effect, and none any more once Finish was called: there are deadlines of ours
// then.
func (l *Listener) SetDeadline(t time.Time) error {
	d, ok := l.Listener.(deadliner)
	if !ok {
		return os.ErrNoDeadline
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	l.deadline = t
	if l.state == paused || l.state == draining {
		return nil
	}
	return d.SetDeadline(t)
}

// Accept waits for the next connection. It returns net.ErrClosed after Close,
// and blocks while the listener is paused.
func (l *Listener) Accept() (net.Conn, error) {
	l.start.Do(func() { close(l.started) })
	for {
		if !l.enter() {
			return nil, net.ErrClosed
		}
		c, err := l.Listener.Accept()
		if !l.leave(err) {
			return c, err
		}
	}
}

// enter waits until Accept may go on; it returns false if the listener is
// closed.
func (l *Listener) enter() bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.state == paused {
		l.parked++
		l.change()
		l.wait(context.Background(), func() bool { return l.state != paused })
		l.parked--
	}
	if l.state == closed {
		return false
	}
	l.inside++
	l.calls++
	if l.state == draining {
		l.setDeadline(time.Now().Add(l.patience))
		l.change()
	}
	return true
}

// leave notes that the inner Accept returned err, and reports whether to try
// again: a deadline is how we wake it. One that the program has set itself ends
// its Accept as ever.
func (l *Listener) leave(err error) (again bool) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.inside--
	l.change()
	if l.state == open || !errors.Is(err, os.ErrDeadlineExceeded) {
		return false
	}
	if l.state == draining {
		// A deadline that passes before Accept has looked says nothing.
		if queued(l.Listener) {
			l.patience *= 2
		} else {
			l.close()
		}
	}
	return true
}

// wait returns when done does, or ctx ends. mu is held.
func (l *Listener) wait(ctx context.Context, done func() bool) {
	for !done() && ctx.Err() == nil {
		changed := l.changed
		l.mu.Unlock()
		select {
		case <-changed:
		case <-ctx.Done():
		}
		l.mu.Lock()
	}
}

// Pause stops accepting. Connections wait in the kernel from now on. It returns
// when no Accept call can take one any more and at least loops of them wait for
// Resume: a loop that calls Accept again has dealt with what it got before. It
// returns earlier when ctx ends, or the listener is closed.
//
// A listener without SetDeadline can't be paused and goes on accepting.
func (l *Listener) Pause(ctx context.Context, loops int) {
	if _, ok := l.Listener.(deadliner); !ok {
		return
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.state != open {
		return
	}
	l.state = paused
	l.setDeadline(past)
	l.wait(ctx, func() bool { return l.state != paused || l.inside == 0 && l.parked >= loops })
}

// Resume takes up accepting after Pause, with the deadline of SetDeadline.
func (l *Listener) Resume() {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.state != paused {
		return
	}
	// Whoever is still inside must meet the deadline that has passed.
	l.wait(context.Background(), func() bool { return l.inside == 0 || l.state != paused })
	if l.state == paused {
		l.state = open
		l.setDeadline(l.deadline)
		l.change()
	}
}

// Finish closes the listener. If this process is the last that holds it, Accept
// gets the connections that wait already first, since the kernel resets what
// waits for a listener that nobody holds any more. That takes drainTimeout at
// most, since new ones may never stop coming, and less where nobody calls
// Accept.
func (l *Listener) Finish(last bool) error {
	l.mu.Lock()
	defer l.mu.Unlock()
	if last && l.state != closed {
		l.drain()
	}
	l.close()
	return l.err
}

// drain lets Accept take what waits. mu is held.
func (l *Listener) drain() {
	if _, ok := l.Listener.(deadliner); !ok {
		return
	}
	ctx, cancel := context.WithTimeout(context.Background(), drainTimeout)
	defer cancel()
	l.state = draining
	l.patience = drainWait
	l.setDeadline(time.Now().Add(l.patience))
	l.change()
	for l.state == draining && ctx.Err() == nil {
		if l.inside == 0 {
			before := l.calls
			called, cancel := context.WithTimeout(ctx, calledWithin)
			l.wait(called, func() bool { return l.calls != before || l.state == closed })
			cancel()
			if l.calls == before {
				return
			}
		}
		l.wait(ctx, func() bool { return l.inside == 0 || l.state == closed })
	}
}

// Close closes the listener. Calls after the first return the same.
func (l *Listener) Close() error {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.close()
	return l.err
}

// close closes the inner listener once. mu is held.
func (l *Listener) close() {
	if l.state != closed {
		l.state = closed
		l.err = l.closeInner(l.Listener)
		l.change()
	}
}
