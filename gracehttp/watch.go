package gracehttp

import (
	"errors"
	"net/http"
	"os"
	"sync"
	"time"

	"github.com/facebookgo/grace/internal/accept"
	"github.com/facebookgo/grace/internal/framing"
)

// watch knows where in the stream of requests a connection is, and can take it
// away from the server between two of them.
//
// The server reads the next request, or the first, while the connection is new or
// idle. If it waits in Read then, and all that it has read belongs to requests that
// are complete, it knows nothing that another process would not know: those
// requests are answered, or the connection would not be idle. It is told that
// its time is over. net/http closes a connection at such an error without a word,
// where it would answer any other one.
type watch struct {
	socket  socket
	follows bool // requests is up to date

	mu       sync.Mutex
	requests framing.Requests
	state    http.ConnState
	served   int       // requests that the server has begun to serve
	reading  bool      // the server is in Read
	deadline time.Time // for Read, as the server has set it
	pass     func() bool
	ends     bool // it is to close as soon as it is between two requests
	woken    bool // the deadline of the socket is ours
	refused  bool // pass has failed
	gone     bool // handed over, or at its end
	closed   bool
	onClose  func()
}

// past is a deadline that has passed for certain.
var past = time.Unix(1, 0)

func (w *watch) read(p []byte) (int, error) {
	if !w.follows {
		return w.socket.Read(p)
	}
	for {
		if !w.enter() {
			return 0, os.ErrDeadlineExceeded
		}
		n, err := w.socket.Read(p)
		if !w.leave(p[:n], err) {
			return n, err
		}
	}
}

// enter is called before a Read. It hands the connection over if it can go, or ends
// it if that is asked for and nothing has come. It returns false if it has gone.
func (w *watch) enter() bool {
	w.mu.Lock()
	defer w.mu.Unlock()
	if pass := w.pass; pass != nil && !w.gone && w.between() {
		w.pass = nil
		w.mu.Unlock()
		taken := pass()
		w.mu.Lock()
		if taken {
			w.gone = true
			_ = w.socket.Close() // not the connection, which the child has
		} else {
			w.refused = true
		}
	}
	if w.ends && !w.gone && w.between() && !accept.Queued(w.socket) {
		w.gone = true
	}
	w.reading = !w.gone
	return !w.gone
}

// leave is called after a Read, and reports whether to read again.
func (w *watch) leave(p []byte, err error) (again bool) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.reading = false
	w.requests.Feed(p)
	if !w.woken {
		return false
	}
	w.woken = false
	_ = w.socket.SetReadDeadline(w.deadline)
	return len(p) == 0 && errors.Is(err, os.ErrDeadlineExceeded)
}

// between reports whether the server waits for a request and knows nothing of it.
// mu is held.
func (w *watch) between() bool { return w.waits() && w.requests.Boundary() }

// waits reports whether the server serves no request. mu is held.
func (w *watch) waits() bool { return w.state == http.StateNew || w.state == http.StateIdle }

// ask makes the connection go as soon as it can. pass hands it over and reports
// whether it was taken.
func (w *watch) ask(pass func() bool) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if !w.follows || w.gone || w.refused {
		return
	}
	w.pass = pass
	w.wake()
}

// end makes the connection close as soon as nothing of a request has come, and reports
// whether it will. Who closes it from outside can't see what a Read is about to return.
// w may be nil.
func (w *watch) end() bool {
	if w == nil || !w.follows {
		return false
	}
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.requests.Lost() {
		return false
	}
	if !w.ends {
		w.ends = true
		w.wake()
	}
	return true
}

// ending reports whether end will close the connection at once. w may be nil.
func (w *watch) ending() bool {
	if w == nil {
		return false
	}
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.ends && w.between()
}

// wake ends a Read that waits for a request. mu is held.
func (w *watch) wake() {
	if w.reading && w.between() {
		w.woken = true
		_ = w.socket.SetReadDeadline(past)
	}
}

// mayMove reports whether the connection can still be handed over.
func (w *watch) mayMove() bool {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.movable()
}

// movable is mayMove. mu is held.
func (w *watch) movable() bool {
	return w.follows && !w.refused && !w.gone && w.state != http.StateHijacked && !w.requests.Lost()
}

// keeps reports whether the answer to the request that is served now must not
// close the connection: it can be handed over afterwards, if there is an heir, or
// the client has sent more requests.
func (w *watch) keeps(heir bool) bool {
	w.mu.Lock()
	defer w.mu.Unlock()
	if !w.follows || w.requests.Lost() {
		return false
	}
	headers, more := w.requests.Begun()
	return heir && w.movable() || headers > w.served || more
}

// halfway reports whether a part of a request has come that the server has not begun to
// serve, if that is known. That may be one after the request that is served now. w may be
// nil.
func (w *watch) halfway() (halfway, known bool) {
	if w == nil || !w.follows {
		return false, false
	}
	w.mu.Lock()
	defer w.mu.Unlock()
	headers, more := w.requests.Begun()
	halfway = headers > w.served || more
	switch w.state {
	case http.StateNew, http.StateIdle:
		halfway = halfway || !w.requests.Boundary() || accept.Queued(w.socket)
	case http.StateHijacked, http.StateClosed:
		halfway = false
	}
	return halfway, !w.requests.Lost()
}

func (w *watch) setState(state http.ConnState) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.state = state
	switch state {
	case http.StateActive:
		w.served++
	case http.StateHijacked:
		w.pass = nil
	}
}

func (w *watch) setReadDeadline(t time.Time) error {
	w.mu.Lock()
	defer w.mu.Unlock()
	if t.IsZero() && w.deadline.IsZero() && !w.closed {
		return nil // net/http takes away what is not there several times with each request
	}
	w.deadline = t
	if w.woken {
		return nil // leave sets it
	}
	return w.socket.SetReadDeadline(t)
}

func (w *watch) setDeadline(t time.Time) error {
	return errors.Join(w.socket.SetWriteDeadline(t), w.setReadDeadline(t))
}

// whenClosed makes f be called when the connection is closed, at once if it is.
func (w *watch) whenClosed(f func()) {
	w.mu.Lock()
	w.onClose = f
	closed := w.closed
	w.mu.Unlock()
	if closed {
		w.callOnClose()
	}
}

func (w *watch) close() error {
	err := w.socket.Close()
	w.mu.Lock()
	w.closed = true
	w.mu.Unlock()
	w.callOnClose()
	return err
}

// callOnClose calls it once.
func (w *watch) callOnClose() {
	w.mu.Lock()
	f := w.onClose
	w.onClose = nil
	w.mu.Unlock()
	if f != nil {
		f()
	}
}
