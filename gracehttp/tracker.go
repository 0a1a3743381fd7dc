package gracehttp

import (
	"crypto/tls"
	"net"
	"net/http"
	"sync"
	"sync/atomic"
	"time"
)

// tracker knows the connections of an app, and makes answers close them while
// it drains.
type tracker struct {
	closing atomic.Bool
	open    atomic.Int64  // connections, but for hijacked ones
	unused  sync.Map      // net.Conn: those that have not sent a whole request
	none    chan struct{} // gets a value when open becomes 0
}

// handler lets answers carry "Connection: close" while closing. net/http makes a
// GOAWAY of it in HTTP/2. A request for an upgrade is left alone: its answer
// needs the header for itself.
func (t *tracker) handler(next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if t.closing.Load() && r.Header.Get("Upgrade") == "" {
			w.Header().Set("Connection", "close")
		}
		if next == nil {
			http.DefaultServeMux.ServeHTTP(w, r)
			return
		}
		next.ServeHTTP(w, r)
	})
}

// connState counts connections. It is called in the accept loop for a new
// connection, and when the goroutine that serves it ends.
func (t *tracker) connState(next func(net.Conn, http.ConnState)) func(net.Conn, http.ConnState) {
	return func(c net.Conn, state http.ConnState) {
		switch state {
		case http.StateNew:
			t.open.Add(1)
			t.unused.Store(c, nil)
		case http.StateActive:
			t.unused.Delete(c)
		}
		if next != nil {
			next(c, state)
		}
		switch state {
		case http.StateClosed, http.StateHijacked:
			t.unused.Delete(c)
			if t.open.Add(-1) == 0 {
				select {
				case t.none <- struct{}{}:
				default:
				}
			}
		}
	}
}

// wait waits until there is no connection, for timeout at most, and reports
// whether that is so.
func (t *tracker) wait(timeout time.Duration) bool {
	timer := time.NewTimer(timeout)
	defer timer.Stop()
	for t.open.Load() != 0 {
		select {
		case <-t.none:
		case <-timer.C:
			return t.open.Load() == 0
		}
	}
	return true
}

// closeUnused closes the connections on which nothing was ever received.
// http.Server.Shutdown would wait five seconds for them.
func (t *tracker) closeUnused() {
	t.unused.Range(func(key, _ any) bool {
		c := key.(net.Conn)
		if tc, ok := c.(*tls.Conn); ok {
			c = tc.NetConn()
		}
		if tc, ok := c.(*net.TCPConn); ok && nothingReceived(tc) {
			_ = tc.Close()
		}
		return true
	})
}
