// Package gracehttp serves http.Servers that are restarted and upgraded without
// a client noticing.
//
//	log.Fatal(gracehttp.Serve(
//		&http.Server{Addr: ":8080", Handler: public},
//		&http.Server{Addr: "127.0.0.1:8081", Handler: admin},
//	))
//
// SIGUSR2 starts the program anew. The new process inherits the listening
// sockets, and when it serves, this one drains and Serve returns. SIGTERM and
// SIGINT drain and make Serve return without a successor; a second one kills the
// process, but not under systemd. A restart that fails is logged, and this
// process serves on.
//
// # Draining
//
// Draining stops accepting first. Requests in flight are finished, and answers
// carry "Connection: close" (in HTTP/2 that sends GOAWAY), so that clients open
// their next connection to the new process. An idle connection stays open until
// its next request, or until the end of the standby and [IdleGrace] more. A
// request whose header has not come to its end then has five more seconds for it.
// After that http.Server.Shutdown closes what is idle and waits for the rest, for
// [StopTimeout] at most. Connections that are left are closed, and [KillTimeout]
// is for their handlers.
//
// With [HandOverIdle] connections go to the new process instead, as they are.
//
// Long-lived requests, such as streams of events, are told by [Draining]. So are
// hijacked connections; they delay nothing, unless [WaitHijacked] says so.
//
// # Connections
//
// ConnState, ConnContext and http.Hijacker see the real *net.TCPConn, or the
// *tls.Conn on it, unless an option says otherwise. Serve sets Handler, ConnState,
// BaseContext, ConnContext and, for [ShareTicketKeys], TLSConfig of each server to ones
// that call or copy those that were there.
package gracehttp

import (
	"context"
	"log"
	"net/http"

	"github.com/facebookgo/grace"
)

// Serve listens for the servers and serves them until they are stopped by a
// signal, when it returns nil, or until one of them can't serve any more, when
// it drains the others and returns its error. A server that the program closes
// itself ends Serve with http.ErrServerClosed. Without servers it returns nil.
//
// The address of a server is a TCP address, where an empty one means any free port;
// or "unix:" and the path of a unix socket; or "fd:" and the name of an inherited
// socket, as gracenet.Net.ListenNamed finds it. A server that has a TLSConfig is served
// over TLS with the protocols that its configuration names, so over HTTP/2 if "h2" is in
// TLSConfig.NextProtos or if Server.Protocols has it.
//
// Several calls of Serve in one process are restarted and stopped together. Of their
// times the longest count.
func Serve(servers ...*http.Server) error {
	return ServeWithOptions(servers)
}

// ServeWithOptions is Serve with options.
func ServeWithOptions(servers []*http.Server, options ...option) error {
	a := newApp(servers)
	for _, o := range options {
		o(a)
	}
	return a.run()
}

// SetLogger sets the logger for what Serve does, as lines for people. Nil, as if
// it were never called, means silence. It counts for calls of Serve that come
// after it.
func SetLogger(l *log.Logger) { logger.Store(l) }

// Ready is [grace.Ready]: whether the service is up and stays up. A health check
// that load balancers ask answers with it.
func Ready() bool { return grace.Ready() }

type drainingKey struct{}

// Draining returns a channel that is closed when the process that serves a request
// begins to drain for good: when the standby is over, or it stops and [StopDelay] is
// over. ctx is the context of the request, or made of it. Handlers of requests that go on
// for long should come to an end then; they have until [StopTimeout]. For another context
// the channel is nil.
func Draining(ctx context.Context) <-chan struct{} {
	c, _ := ctx.Value(drainingKey{}).(<-chan struct{})
	return c
}
