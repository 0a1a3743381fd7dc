package grace

import (
	"context"
	"errors"
	"math"
	"slices"
	"sync"
	"time"

	"github.com/facebookgo/grace/internal/handoff"
)

// drained is what Wait drains.
type drained interface {
	holds() any // whose descriptor is passed on
	pause(ctx context.Context)
	resume()
	since() int64                                                // engine.drains when it was made
	shutdown(ctx context.Context, idleGrace time.Duration) error // returns at the end of ctx, too
	kill()                                                       // closes all that is open
	gone() <-chan struct{}                                       // closed when nothing is open
	open() int                                                   // connections
}

// waiting is the service behind Wait.
type waiting struct {
	listeners []Listener
	ours      []drained // those of them that are of NewListener, and the packet connections
	timeout   time.Duration
	idleGrace time.Duration

	ctx context.Context // ends when nothing is to be waited for any more
	cut context.CancelCauseFunc
}

func newWaiting(p *Process, listeners []Listener) *waiting {
	w := &waiting{listeners: listeners, timeout: p.TermTimeout, idleGrace: max(0, orDefault(p.IdleGrace, DefaultIdleGrace))}
	for _, l := range listeners {
		if l, ok := l.(*listener); ok {
			w.ours = append(w.ours, l)
		}
	}
	for _, c := range p.PacketConns {
		w.ours = append(w.ours, c)
	}
	w.ctx, w.cut = context.WithCancelCause(context.Background())
	return w
}

// made is engine.drains when the first of what is ours was made.
func (w *waiting) made() int64 {
	made := int64(math.MaxInt64)
	for _, d := range w.ours {
		made = min(made, d.since())
	}
	return made
}

// each calls f for all that is ours, at once, and waits. Another implementation of
// Listener goes on accepting until Drain.
func (w *waiting) each(f func(drained)) {
	var wg sync.WaitGroup
	for _, d := range w.ours {
		wg.Add(1)
		go func() {
			defer wg.Done()
			f(d)
		}()
	}
	wg.Wait()
}

func (w *waiting) Start() {} // the program serves already

// Pause implements Service. What the child does not serve is ours until the drain.
func (w *waiting) Pause(ctx context.Context) {
	w.each(func(d drained) {
		if !handoff.This().LastHolder(d.holds()) {
			d.pause(ctx)
		}
	})
}

func (w *waiting) Resume() { w.each(drained.resume) }

// Connections implements Counter.
func (w *waiting) Connections() (n int) {
	for _, d := range w.ours {
		n += d.open()
	}
	return n
}

// Abort implements Aborter.
func (w *waiting) Abort() { w.cut(errAborted) }

var (
	errTermTimeout = errors.New("grace: TERM timeout in closing listeners")
	errAborted     = errors.New("grace: the successor died, closing listeners was cut short")
)

func (w *waiting) Drain() error {
	defer w.cut(nil)
	if w.timeout > 0 {
		timer := time.AfterFunc(w.timeout, func() { w.cut(errTermTimeout) })
		defer timer.Stop()
	}
	var all []func() error
	for _, d := range w.ours {
		all = append(all, func() error { return d.shutdown(w.ctx, w.idleGrace) })
	}
	for _, l := range w.listeners {
		switch l := l.(type) {
		case *listener:
		case Drainer:
			all = append(all, func() error { return l.Shutdown(w.ctx) })
		default:
			all = append(all, l.Close) // when it takes too long it ends with the process
		}
	}
	closed := make(chan error, len(all))
	for _, shutdown := range all {
		go func() { closed <- shutdown() }()
	}
	var errs []error
	for range all {
		select {
		case err := <-closed:
			if err != nil && w.ctx.Err() != nil {
				return w.kill()
			}
			errs = append(errs, err)
		case <-w.ctx.Done():
			return w.kill()
		}
	}
	// One error is returned as it is.
	if errs = slices.DeleteFunc(errs, func(err error) bool { return err == nil }); len(errs) == 1 {
		return errs[0]
	}
	return errors.Join(errs...)
}

// kill closes all connections and returns why. When the time is over the program
// goes on after that, so handlers are waited for a little: those that were in Read
// or Write come back at once.
func (w *waiting) kill() error {
	why := context.Cause(w.ctx)
	late, cancel := context.WithTimeout(context.Background(), comeBack)
	defer cancel()
	w.each(func(d drained) {
		d.kill()
		if why != errTermTimeout {
			return
		}
		select {
		case <-d.gone():
		case <-late.Done():
		}
	})
	return why
}
