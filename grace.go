// Package grace restarts and upgrades a server without its clients noticing.
//
// # Signals
//
// SIGUSR2 starts the program anew. The new process, the child, inherits the
// listening sockets; when it serves, it says so, and this process, the parent,
// stops accepting, finishes what is in flight and exits. SIGTERM finishes what
// is in flight and exits without a successor; a second one kills the process, as
// Go does by default. Only under systemd (INVOCATION_ID is set) it does not:
// systemd sends two of its own accord, and has SIGKILL for the end.
//
// A child that is missing, does not start, exits, or is not ready in time is
// logged, killed and reaped, and the parent goes on serving as if nothing had
// been asked. When the child is ready the parent stands by for a few seconds: it
// accepts nothing, still answers on the connections it has, and takes the
// listeners back if the child dies. No connection is refused meanwhile; they
// wait in the kernel.
//
// There is one handover at a time. SIGUSR2 while the child starts is ignored.
// During the standby it is the child's: the child restarts when the standby is
// over, so that one of the two has always proved itself. A standby that is longer
// than DefaultStandby is shortened to that.
//
// # Three ways in
//
// Package gracehttp serves http.Servers. Package gracenet has Listen functions
// that inherit sockets. This package has what they are built on: a [Listener]
// that drains, as [Drainer] and [Conn] describe, [Process.Inherit],
// [Process.CloseParent] and [Process.Wait] for servers of any protocol, and
// [Process.Run] for servers that need to know more than that about a restart:
//
//	listeners, err := grace.Inherit()
//	if errors.Is(err, grace.ErrNotInheriting) {
//		listeners, err = listen() // each made by grace.NewListener
//	}
//	if err != nil {
//		log.Fatal(err)
//	}
//	go serve(listeners)
//	if err := grace.CloseParent(); err != nil {
//		log.Print(err)
//	}
//	if err := grace.Wait(listeners); err != nil {
//		log.Fatal(err)
//	}
//
// # Service managers
//
// Sockets that a service manager passes are inherited as sd_listen_fds(3)
// describes. Where NOTIFY_SOCKET is set, readiness, the pid of a successor and
// the final stop are reported as sd_notify(3) describes.
//
// # Upgrades to wait for
//
// A signal has no answer. [Upgrade] waits until the new process serves, or returns
// why it does not. With [Process.ControlSocket] the same can be asked for from
// outside, by the command gracectl or package gracectl, and so can the status and a
// stop. While one restart is under way, others are refused with an error.
//
// # Records
//
// Each step of a handover is a record in [Process.Logger]. The attribute "step"
// names it, "pid" is the process that writes the record, "child" or "parent" the
// other one, "after" how long the step has taken, "error" why something failed.
//
//	start      a child was started (child)
//	hello      the child takes part in the handover (child, after)
//	ready      the child serves (child, after); in the child: it has said so (parent)
//	standby    this process stands by (child, for)
//	take-back  the child died, this process serves again (child, after, error)
//	fail       the restart failed, this process serves on (child, after, error)
//	stop       this process was told to stop, and goes on accepting for a while (for)
//	drain      this process accepts nothing any more (successor); from package
//	           gracehttp: what is left or done (connections, for, after)
//	exit       what was in flight is finished (after)
//	signal     a signal to stop has come (signal); or what becomes of a signal that
//	           changes nothing at once
//
// Records at level Error are failures that an operator should look at, such as a
// restart that failed, or a child that died.
//
// # Limits
//
// Only Unix systems can pass sockets to a new process. Elsewhere servers serve
// and stop; [Process.Restart] returns an error that wraps errors.ErrUnsupported.
//
// When it is initialised, this package takes over the descriptors that LISTEN_FDS
// announces, sets LISTEN_PID to the pid of this process, leaves LISTEN_FDS in the
// environment, and tells a parent with this package that it is there. If somebody
// waits for the upgrade, standard error goes through the parent until CloseParent,
// on Linux, where it is a pipe, a FIFO, a stream socket or /dev/null. It does nothing
// else before it is asked to.
package grace

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"math"
	"net"
	"time"

	"github.com/facebookgo/grace/internal/handoff"
)

const (
	// DefaultStartTimeout is how long a child may take to become ready.
	DefaultStartTimeout = time.Minute
	// DefaultStandby is how long the parent can take over from a ready child.
	DefaultStandby = 5 * time.Second
	// DefaultIdleGrace is how long idle connections stay open when draining has
	// begun.
	DefaultIdleGrace = 500 * time.Millisecond
)

// Process configures how this process is restarted. The zero value works. Where
// several take part in one process, the longest times count.
type Process struct {
	// TermTimeout is how long Wait lets the connections of its listeners go on
	// when it drains; zero means until the last one is closed. Those that are left
	// then are closed, and their handlers have one more second to come back. Run
	// leaves it to its service. A service manager that is waiting for the end is
	// asked for as much time, unless it is zero.
	TermTimeout time.Duration

	// IdleGrace is how long connections that are idle, as [Conn] describes, stay
	// open when Wait drains: a request may be on its way to them. It begins with the
	// drain, or when the connection becomes idle if that is later. Zero means
	// DefaultIdleGrace, a negative time none. Run leaves it to its service.
	IdleGrace time.Duration

	// StartTimeout is how long a child may take from its start to being ready.
	// One that takes longer is killed, and this process serves on. Zero means
	// DefaultStartTimeout.
	StartTimeout time.Duration

	// Standby is how long this process stands by after its child is ready, to
	// take the listeners back if the child dies. Zero means DefaultStandby,
	// a negative time none.
	Standby time.Duration

	// StopDelay is how long this process goes on accepting after it was told to
	// stop, if no other process follows. Ready is false from the beginning of it,
	// so that load balancers turn away before connections are refused. Zero, the
	// default, means not at all.
	StopDelay time.Duration

	// PreStart is called before each restart, on a goroutine of its own. If it returns
	// an error or panics no child is started. There is no time limit to it: signals that
	// restart are ignored until it returns.
	PreStart func() error

	// PIDFile is a file that holds the pid of the process that serves, in
	// decimal and with a newline; empty for none. CloseParent writes it, and so
	// does a parent whose restart has failed, or that takes the listeners back. It is
	// replaced in one step, and removed by the last process when it stops. A path that
	// is not absolute begins in the directory in which this process was started.
	PIDFile string

	// FDStore makes the service manager keep the listeners of this process, as
	// FDSTORE=1 of sd_notify(3) describes, so that none of their clients is refused
	// while the service is restarted or has crashed. The unit needs
	// FileDescriptorStoreMax. Sockets that the manager has made itself it keeps
	// anyway; those with a path in the file system are not kept.
	FDStore bool

	// ControlSocket is the path of a unix socket on which the command gracectl,
	// and package gracectl, ask for upgrades and wait for the outcome, for the
	// status, and for a stop; empty for none. Only root and the user of this process
	// are answered. CloseParent makes it, and so does a parent that takes the
	// listeners back; it takes the place of the one of the process before in one
	// step, and is removed by the last process when it stops. CloseParent returns an
	// error if there is a file that is no socket, or a process that does not belong
	// to the service listens there. A path that is not absolute begins in the
	// directory in which this process was started.
	ControlSocket string

	// KeepPID makes every generation have the same pid, for supervisors that can't
	// follow a changing one: the child serves while this process drains, then this
	// process executes the program anew, takes the listeners over from the child,
	// and the child drains and exits. Wait and Run do not return in a process that is
	// executed anew. It is on for a process whose pid is 1.
	KeepPID bool

	// PacketConns are datagram sockets that Wait pauses on standby and drains, beside
	// its listeners.
	PacketConns []*PacketConn

	// Logger gets a record for each step of a handover, see "Records" above. If
	// it is nil, what is at level Warn and above goes to slog.Default: signals
	// that are ignored and restarts that fail.
	Logger *slog.Logger
}

// Ready reports whether this service is up and stays up: CloseParent was called,
// here or in the parent, and no signal has told this process to stop without a
// successor. So it is true in a child that accepts but is not ready yet, and stays
// true in a process that another one has replaced: the service goes on. Health
// checks of load balancers ask for it.
func Ready() bool {
	h := handoff.This()
	_, _, parent := h.Parent()
	return (parent || h.IsReady()) && !shared.stop.Load()
}

// Run starts s and lets signals restart and stop it, until they have stopped it:
// SIGUSR2 restarts, SIGTERM and SIGINT stop. It returns what s.Drain returns.
// When ctx ends first, it drains s and returns the cause.
//
// Any number of services may run in one process. They are restarted together
// and stopped together. One that comes to Run when the others have drained begins
// anew, and waits for a signal of its own.
//
// Run does not say to a parent that s is ready: CloseParent does.
func (p *Process) Run(ctx context.Context, s Service) error {
	return shared.serve(ctx, &member{process: p, service: s, interrupt: true, made: math.MaxInt64})
}

// Wait lets signals restart and stop the service that listens on listeners. It
// blocks until a signal ends this process's part in it: SIGTERM, or SIGUSR2 when
// the new process has taken over. Then it closes all listeners, as
// [NewListener] describes, and returns the errors of that. When the connections
// take longer than TermTimeout it closes them, and returns an error.
//
// A listener of another type that implements [Drainer] is shut down in the same
// way; any other one is just closed.
//
// A restart that fails does not end Wait. SIGINT is left to the program.
//
// If other services of this process have drained since a listener was made, Wait
// closes the listeners at once, in the same way.
func (p *Process) Wait(listeners []Listener) error {
	handoff.This().List(sockets(listeners))
	w := newWaiting(p, listeners)
	return shared.serve(context.Background(), &member{process: p, service: w, made: w.made()})
}

// CloseParent says that this process is ready to serve: the parent, if there is
// one that waits for this, stops accepting, drains and exits. It does not wait
// for that. Inherited sockets and files that nobody has asked for are closed. Only the
// first call in a process says anything.
//
// It writes the PID file and makes the control socket first. If that fails it returns
// the error, and the parent is told that this process can't serve.
//
// A parent that uses this package is told over the control socket. One that
// speaks only the protocol of facebookgo/grace gets SIGTERM. A service manager,
// a shell or any other parent is sent no signal, nor is a parent that has gone.
func (p *Process) CloseParent() error {
	shared.catchRestart() // from now on a signal that comes before Wait is kept
	h := handoff.This()
	if err := p.writePIDFile(); err != nil {
		h.Fail(err)
		return err
	}
	if err := p.openControl(); err != nil {
		p.removePIDFile()
		err = fmt.Errorf("grace: %w", err)
		h.Fail(err)
		return err
	}
	first, err := h.Ready()
	if err != nil {
		return err
	}
	if origin, parent := h.Origin(); first && origin.Handover() {
		p.log(stepReady).Info("the old process is told that this one is ready", "parent", parent)
	}
	shared.manager.ready(h)
	if p.FDStore {
		shared.manager.store(h)
	}
	return nil
}

var errRestartListeners = errors.New("grace: restart must be given listeners")

// Restart starts the new process and returns at once. The new process inherits
// listeners, in this order, and whatever else this process listens on through
// this module. It sends SIGTERM when it is ready, which Wait takes as the
// request to drain.
//
// Programs rarely need it: SIGUSR2 makes Wait restart the service, watches over
// the new process and takes the listeners back if that fails.
func (p *Process) Restart(listeners []Listener) error {
	if len(listeners) == 0 {
		return errRestartListeners
	}
	h := handoff.This()
	h.List(sockets(listeners))
	_, err := h.StartAlone()
	return err
}

func sockets(listeners []Listener) []net.Listener {
	ls := make([]net.Listener, len(listeners))
	for i, l := range listeners {
		ls[i] = socket(l)
	}
	return ls
}

var defaultProcess Process

// Wait calls [Process.Wait] on a default Process.
func Wait(listeners []Listener) error { return defaultProcess.Wait(listeners) }

// Inherit calls [Process.Inherit] on a default Process.
func Inherit() ([]Listener, error) { return defaultProcess.Inherit() }

// CloseParent calls [Process.CloseParent] on a default Process.
func CloseParent() error { return defaultProcess.CloseParent() }

// Restart calls [Process.Restart] on a default Process.
func Restart(listeners []Listener) error { return defaultProcess.Restart(listeners) }
