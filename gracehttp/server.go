package gracehttp

import (
	"cmp"
	"context"
	"crypto/tls"
	"net"
	"net/http"
	"strings"
	"sync/atomic"
	"time"

	"github.com/facebookgo/grace/internal/accept"
	"github.com/facebookgo/grace/internal/handoff"
)

// server is one http.Server and what it listens on.
type server struct {
	app      *app
	http     *http.Server
	secure   bool // over TLS; net/http gives others a TLSConfig, too
	listener *accept.Listener
	handed   *handedOver
	kept     *keeper
	served   chan struct{}                 // closed when serve has returned
	heir     atomic.Pointer[handoff.Child] // takes the connections over; may be nil
	leaving  atomic.Bool                   // connections are asked to go to the heir
}

// prepare puts our functions before those of the program.
func (s *server) prepare() {
	s.served = make(chan struct{})
	s.handed = newHandedOver(s.listener.Addr())
	s.handed.drop = s.app.tracker.drop
	s.kept = newKeeper(s)
	s.handed.kept = s.kept
	if s.app.shareTicketKeys && s.secure {
		s.http.TLSConfig = shareTicketKeys(s.http.TLSConfig, s.listener.Listener)
	}
	s.http.Handler = s.handler(s.http.Handler)
	s.http.ConnState = s.connState(s.http.ConnState)
	base := s.http.BaseContext
	s.http.BaseContext = func(net.Listener) context.Context {
		ctx := context.Background()
		if base != nil {
			ctx = base(s.listener.Listener)
		}
		return context.WithValue(ctx, drainingKey{}, (<-chan struct{})(s.app.stop))
	}
	next := s.http.ConnContext
	s.http.ConnContext = func(ctx context.Context, c net.Conn) context.Context {
		if next != nil {
			ctx = next(ctx, c)
		}
		return context.WithValue(ctx, trackedKey{}, s.app.tracker.add(s, c))
	}
}

// watches reports whether connections are of a type of ours.
func (s *server) watches() bool {
	return s.app.waitHijacked || s.app.handOverIdle && !s.secure
}

// handler lets answers carry "Connection: close" while closing. net/http makes a
// GOAWAY of it in HTTP/2. A request for an upgrade is left alone: its answer
// needs the header for itself. So is one whose connection goes to the child.
func (s *server) handler(next http.Handler) http.Handler {
	closing := &s.app.tracker.closing
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if closing.Load() {
			c, _ := r.Context().Value(trackedKey{}).(*tracked)
			c.begins()
			if !upgrades(r) && !c.keeps() {
				w.Header().Set("Connection", "close")
			}
		}
		if next == nil {
			http.DefaultServeMux.ServeHTTP(w, r)
			return
		}
		next.ServeHTTP(w, r)
	})
}

// upgrades reports whether the answer to r may be one that changes the protocol.
// That to h2c is not: curl and Java's client offer it with every request, and who
// accepts takes the connection over and writes the answer himself.
func upgrades(r *http.Request) bool {
	protocol := r.Header.Get("Upgrade")
	return protocol != "" && !strings.EqualFold(protocol, "h2c")
}

func (s *server) serve() error {
	defer close(s.served)
	l := s.app.probed(s.listener)
	if s.watches() {
		l = watching{l, s}
	}
	switch {
	case !s.secure:
		return s.http.Serve(l)
	case s.http.Protocols != nil:
		return s.http.ServeTLS(l, "", "")
	default:
		// ServeTLS would add h2 to what the configuration names.
		return s.http.Serve(tls.NewListener(l, s.http.TLSConfig))
	}
}

// closeListener ends accepting, and returns when the server knows all that was
// accepted. That a listener can't be closed means that it is closed.
func (s *server) closeListener() {
	_ = s.listener.Finish(handoff.This().LastHolder(s.listener.Listener))
	<-s.served
	if s.app.handOverIdle {
		s.kept.refuse() // what is kept is known, and goes on
	} else {
		s.handed.finish()
	}
}

// takeConns serves connections that the parent has handed over, and reports for each
// whether it does.
func (s *server) takeConns(descriptors []*handoff.Descriptor) (taken []bool) {
	if s.app.handOverIdle && !s.secure {
		return s.kept.keep(descriptors)
	}
	taken = make([]bool, len(descriptors))
	// They are made all before the first is put: the server would be woken for each one.
	conns, _ := handoff.Conns(descriptors)
	for i, c := range conns {
		if c == nil {
			continue
		}
		if taken[i] = s.handed.put(s.dress(c), s.serveHanded); !taken[i] {
			_ = c.Close()
		}
	}
	return taken
}

// serveHanded serves what was handed over. If it fails, so does serve.
func (s *server) serveHanded() { _ = s.http.Serve(s.handed) }

// dress makes a connection that was handed over what one is that was accepted.
func (s *server) dress(c net.Conn) net.Conn {
	s.app.probe(c)
	if s.watches() {
		c = s.wrap(c)
	}
	return c
}

// idleTimeout is how long a connection may be idle, as for net/http. 0 is for ever.
func (s *server) idleTimeout() time.Duration { return cmp.Or(s.http.IdleTimeout, s.http.ReadTimeout) }
