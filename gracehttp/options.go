package gracehttp

import (
	"log/slog"
	"net"
	"time"
)

// Option configures ServeWithOptions.
type Option = option

type option func(*app)

// PreStartProcess makes hook be called by each restart before it starts a new process. If
// it returns an error or panics no process is started; this one serves on and logs why. It
// serves while hook runs, however long that takes. It serves on as well if the new process
// fails, and the next restart calls hook again: what hook gives away, this process may have
// to do without, and what it changes in the environment the new process sees. The default
// is none.
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
// new process dies. The default is 5 seconds; zero or less turns it off.
func Standby(d time.Duration) option {
	return func(a *app) {
		a.process.Standby = d
		if d <= 0 {
			a.process.Standby = -1
		}
	}
}

// StopTimeout is how long requests in flight may take when this process drains, from the
// moment in which idle connections are closed. Connections that are not done then are
// closed. The default is a minute; zero or less is no time at all.
func StopTimeout(d time.Duration) option {
	return func(a *app) { a.stopTimeout = max(d, 0) }
}

// KillTimeout is how long handlers may take to return after their connections
// were closed, before Serve returns without them. The default is a minute; zero or less
// is no time at all.
func KillTimeout(d time.Duration) option {
	return func(a *app) { a.killTimeout = max(d, 0) }
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

// KeepPID makes every generation have the same pid, for supervisors that can't
// follow a changing one: supervisord, runit, a container. The new process serves
// only while this one drains; then this one executes the program anew, with the pid
// that it has, and takes over from the new process, which drains and exits. It is
// on for a process whose pid is 1.
func KeepPID() option {
	return func(a *app) { a.process.KeepPID = true }
}

// FDStore makes systemd keep the listeners, so that no client is refused while the
// service is restarted by systemctl or has crashed: connections wait. The unit
// needs FileDescriptorStoreMax. Unix sockets with a path are not kept; a socket
// unit serves for those.
func FDStore() option {
	return func(a *app) { a.process.FDStore = true }
}

// ControlSocket is the path of a unix socket on which the command gracectl, and
// package gracectl, ask for upgrades and wait for the outcome, for the status, and
// for a stop. Only root and the user of this process are answered. It is made when
// a process becomes ready, in one step in the place of the one before, and removed
// by the last process when it stops. If that fails, because there is a file that is
// no socket or another service uses it, a first process stops and Serve returns the
// error; a new process is given up, and the old one serves on. A path that is not
// absolute begins in the directory in which the process was started. The default
// is none.
func ControlSocket(path string) option {
	return func(a *app) { a.process.ControlSocket = path }
}

// ListenConfig is how sockets are made that were not inherited, as the field of
// gracenet.Net describes it. Its keep-alive probes are for the connections of inherited
// ones as well. The default is the zero value.
func ListenConfig(c net.ListenConfig) option {
	return func(a *app) { a.net.ListenConfig = c }
}

// ReplaceStale makes a server on a unix socket take the place of one that a process has
// left behind which has crashed, as the field of gracenet.Net describes it. Without it
// Serve returns an error then.
func ReplaceStale() option {
	return func(a *app) { a.net.ReplaceStale = true }
}

// Logger sets a logger that gets a record for each step of a restart, as package
// grace describes. It is independent of SetLogger. Nil, the default, means none.
func Logger(l *slog.Logger) option {
	return func(a *app) { a.records = l }
}

// IdleGrace is how long idle connections stay open at the end, when the standby is
// over or this process stops: a request may be on its way to them. The default is
// half a second; zero or less is no time at all.
func IdleGrace(d time.Duration) option {
	return func(a *app) { a.idleGrace = max(d, 0) }
}

// StopDelay is how long this process goes on accepting after it was told to stop,
// if no other process follows. [Ready] is false from the beginning of it, and
// answers carry "Connection: close", so that load balancers turn away before
// connections are refused. The default is zero, and so is less: it stops at once. A
// restart knows no such delay.
func StopDelay(d time.Duration) option {
	return func(a *app) { a.process.StopDelay = max(d, 0) }
}

// WaitHijacked makes the drain wait for hijacked connections, such as those of
// WebSockets, until they are closed: for StopTimeout at most, when it closes them.
// Without it they delay nothing, and end with the process. [Draining] and
// http.Server.RegisterOnShutdown tell their handlers.
//
// What ConnState, ConnContext and http.Hijacker see is then no *net.TCPConn but a
// type that embeds one, or a *tls.Conn on it.
func WaitHijacked() option {
	return func(a *app) { a.waitHijacked = true }
}

// HandOverIdle makes connections outlive this process: when the standby is over,
// those on which no request is under way go to the new process, and the client
// does not notice. Those that are busy go after their answer. This is for HTTP/1.1
// without TLS, on TCP and on unix sockets. What can't go is drained: HTTP/2, TLS,
// HTTP/1.0, connections on which a request takes long, and all of them if the new
// process does not serve the address with this library, or serves it over TLS.
//
// What ConnState, ConnContext and http.Hijacker see is then no *net.TCPConn but a
// type that embeds one, or embeds a *net.UnixConn. A connection that has gone to the
// new process is closed to this one. It is new to that one when its next request begins;
// until then the IdleTimeout of the server counts.
func HandOverIdle() option {
	return func(a *app) { a.handOverIdle = true }
}

// ShareTicketKeys makes TLS sessions outlive this process: the new one gets the keys
// of the session tickets, so that clients resume. The keys are random, change every
// day, are kept for about a week, and go from process to process over a socket between
// the two, never through the environment or a file. Each server has its own.
//
// It replaces keys that were set with tls.Config.SetSessionTicketKeys. A TLSConfig
// that has WrapSession, UnwrapSession or SessionTicketsDisabled is left alone, and so is
// what GetConfigForClient returns. It does nothing for a server without a TLSConfig.
func ShareTicketKeys() option {
	return func(a *app) { a.shareTicketKeys = true }
}
