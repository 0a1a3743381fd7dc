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
// its next request, or until the end of the standby and half a second more. Then
// http.Server.Shutdown closes what is idle and waits for the rest, for
// [StopTimeout] at most. Connections that are left are closed.
//
// Hijacked connections delay nothing.
//
// # Connections
//
// ConnState, ConnContext and http.Hijacker see the real *net.TCPConn, or the
// *tls.Conn on it. Serve sets the Handler and the ConnState of each server to
// functions that call those that were there, and BaseContext where there was
// one.
package gracehttp

import (
	"log"
	"log/slog"
	"net/http"
	"time"

	"github.com/facebookgo/grace"
)

// Option configures ServeWithOptions.
type Option = option

type option func(*app)

// Serve listens for the servers and serves them until they are stopped by a
// signal, when it returns nil, or until one of them can't serve any more, when
// it drains the others and returns its error. A server that the program closes
// itself ends Serve with http.ErrServerClosed. Without servers it returns nil.
//
// The address of a server is a TCP address; an empty one means any free port. A
// server that has a TLSConfig is served over TLS with the protocols that its
// configuration names, so over HTTP/2 if "h2" is in TLSConfig.NextProtos or if
// Server.Protocols has it.
//
// Several calls of Serve in one process are restarted and stopped together.
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

// PreStartProcess makes hook be called before each start of a new process. If it
// returns an error no process is started; this one serves on and logs the error.
// It serves on as well if the new process fails, and the next restart calls hook
// again: what hook gives away, this process may have to do without, and what it
// changes in the environment the new process sees.
func PreStartProcess(hook func() error) option {
	return func(a *app) { a.process.PreStart = hook }
}

// StartTimeout is how long a new process may take to become ready before it is
// killed. The default is a minute, also for a time that is not positive.
func StartTimeout(d time.Duration) option {
	return func(a *app) { a.process.StartTimeout = max(d, 0) }
}

// Standby is how long this process stands by after the new one is ready: it
// accepts nothing, answers on the connections it has, and serves again if the
// new process dies. The default is 5 seconds; zero turns it off.
func Standby(d time.Duration) option {
	return func(a *app) {
		a.process.Standby = d
		if d <= 0 {
			a.process.Standby = -1
		}
	}
}

// StopTimeout is how long requests in flight may take when this process drains.
// Connections that are not done then are closed. The default is a minute.
func StopTimeout(d time.Duration) option {
	return func(a *app) { a.stopTimeout = d }
}

// KillTimeout is how long handlers may take to return after their connections
// were closed, before Serve returns without them. The default is a minute.
func KillTimeout(d time.Duration) option {
	return func(a *app) { a.killTimeout = d }
}

// PIDFile is a file that holds the pid of the process that serves, in decimal and
// with a newline. It is written when a process becomes ready, and by one that
// serves again because its successor has died; it is replaced in one step, and
// removed by the last process when it stops. If it can't be written, a first
// process stops and Serve returns the error; a new process is given up, and the
// old one serves on. A path that is not absolute begins in the directory in which
// the process was started. The default is none.
func PIDFile(path string) option {
	return func(a *app) { a.process.PIDFile = path }
}

// Logger sets a logger that gets a record for each step of a restart, as package
// grace describes. It is independent of SetLogger. Nil, the default, means none.
func Logger(l *slog.Logger) option {
	return func(a *app) { a.records = l }
}

// SetLogger sets the logger for what Serve does, as lines for people. Nil, as if
// it were never called, means silence. It counts for calls of Serve that come
// after it.
func SetLogger(l *log.Logger) { logger.Store(l) }

var _ grace.Service = (*app)(nil)
