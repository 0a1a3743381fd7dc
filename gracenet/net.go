// Package gracenet has Listen functions that return an inherited socket where
// there is one, and open a new one otherwise.
//
// A process inherits sockets from the process that it replaces, or from a
// service manager as sd_listen_fds(3) describes. What a [Net] listens on is
// passed to the next process in turn, by [Net.StartProcess] or, better, by the
// restart that grace.Wait and gracehttp.Serve run:
//
//	var n gracenet.Net
//	l, err := n.Listen("tcp", "127.0.0.1:8080")
//	if err != nil {
//		log.Fatal(err)
//	}
//	listeners := []grace.Listener{grace.NewListener(l.(grace.Listener))}
//	go serve(listeners[0])
//	if err := grace.CloseParent(); err != nil {
//		log.Print(err)
//	}
//	if err := grace.Wait(listeners); err != nil {
//		log.Fatal(err)
//	}
package gracenet

import (
	"context"
	"net"
	"sync"

	"github.com/facebookgo/grace/internal/handoff"
)

// Net listens. The zero value works. All Nets of a process share what it
// inherited and what it passes on. Its methods may be called concurrently; its
// fields must not change then.
//
// A socket or file that the program has closed is not passed on. The path of a
// unix socket is removed when the last process of the service closes it, not by
// one that has handed over; one that a service manager made is never removed.
type Net struct {
	// ListenConfig is how sockets are made that were not inherited: with which
	// options of the socket (Control), and whether with MPTCP. An inherited socket stays
	// as it was made. The zero value is how net.Listen and net.ListenPacket do it.
	//
	// Keep-alive probes belong to a listener of package net, not to the socket: what
	// an inherited one accepts has those that are the default. gracehttp sets those
	// of ListenConfig in every process; other programs call SetKeepAliveConfig.
	ListenConfig net.ListenConfig

	// ReplaceStale makes a Listen function remove the path of a unix socket on
	// which nobody listens any more, because a process has crashed, and make it
	// anew. Without it that is an error, as it is for package net. A path on which
	// a process listens is never removed, nor one that is no socket. Processes
	// with this library that do the same at the same time don't remove each
	// other's paths. It is for Unix systems that have flock(2), so not for Solaris.
	ReplaceStale bool

	mu     sync.Mutex
	warned bool // the error in what was inherited was returned
}

// inheritError returns what is wrong with what this process was passed, once.
// After that new sockets are opened.
func (n *Net) inheritError() error {
	n.mu.Lock()
	defer n.mu.Unlock()
	err := handoff.This().Err()
	if err == nil || n.warned {
		return nil
	}
	n.warned = true
	return err
}

// Listen announces on the local network address, as net.Listen does, or returns
// the inherited listener for it. The network must be "tcp", "tcp4", "tcp6",
// "unix" or "unixpacket"; for others the error is a net.UnknownNetworkError.
//
// An inherited listener is found by the network and address that were asked for
// in the process before, so that ":0" gives the same port again; where several
// were asked for in the same words, in the same order. Otherwise it is found by
// the address that it is bound to, where "0.0.0.0:p", "[::]:p" and ":p" are the
// same. Each is returned once: asking again gives "address already in use", as for
// any other address that is taken.
//
// Where several sockets share an address, as SO_REUSEPORT allows (ListenConfig has
// to set it), each call returns the next one of those that were inherited, and then
// new ones.
//
// The first call on a Net returns an error if the environment announces
// descriptors that are not there or are no sockets; the next call opens a new
// socket.
func (n *Net) Listen(network, addr string) (net.Listener, error) {
	switch network {
	case "tcp", "tcp4", "tcp6":
		a, err := net.ResolveTCPAddr(network, addr)
		if err != nil {
			return nil, err
		}
		if addr == "" {
			addr = a.String()
		}
		return asListener(n.listenTCP(network, addr, a))
	case "unix", "unixpacket":
		a, err := net.ResolveUnixAddr(network, addr)
		if err != nil {
			return nil, err
		}
		return asListener(n.ListenUnix(network, a))
	}
	return nil, net.UnknownNetworkError(network)
}

// ListenTCP is Listen for "tcp", "tcp4" and "tcp6". A nil addr, or port 0, means
// any free port.
func (n *Net) ListenTCP(network string, addr *net.TCPAddr) (*net.TCPListener, error) {
	switch network {
	case "tcp", "tcp4", "tcp6":
	default:
		return nil, net.UnknownNetworkError(network)
	}
	if addr == nil {
		addr = &net.TCPAddr{}
	}
	return n.listenTCP(network, addr.String(), addr)
}

func (n *Net) listenTCP(network, asked string, addr *net.TCPAddr) (*net.TCPListener, error) {
	return listen(n, network, asked, addr, func() (*net.TCPListener, error) {
		return as[*net.TCPListener](n.ListenConfig.Listen(context.Background(), network, addr.String()))
	})
}

// as is for functions whose result is known better than their type says.
func as[T any](v any, err error) (T, error) {
	t, _ := v.(T)
	return t, err
}

// ListenUnix is Listen for "unix" and "unixpacket".
func (n *Net) ListenUnix(network string, addr *net.UnixAddr) (*net.UnixListener, error) {
	switch network {
	case "unix", "unixpacket":
	default:
		return nil, net.UnknownNetworkError(network)
	}
	if addr == nil {
		return net.ListenUnix(network, nil) // its error
	}
	return listen(n, network, addr.Name, addr, func() (*net.UnixListener, error) {
		return onPath(n, network, addr.Name, func() (*net.UnixListener, error) {
			return as[*net.UnixListener](n.ListenConfig.Listen(context.Background(), network, addr.Name))
		})
	})
}

// ListenNamed returns the inherited listener that has this name: one that a service
// manager gave to it, such as FileDescriptorName= of systemd.socket(5), or the address
// that the process before has asked for. A name may be that of several; each call
// returns the next one, and they come in the order in which they were passed. If there
// is none left the error wraps fs.ErrNotExist: no socket is made.
func (n *Net) ListenNamed(name string) (net.Listener, error) {
	return named(n, "listener", name, handoff.This().TakeNamed)
}

// listen returns the inherited listener for what was asked, or a fresh one.
func listen[L net.Listener](n *Net, network, asked string, addr net.Addr, fresh func() (L, error)) (L, error) {
	return inheritOr(n, network, asked, func() (any, error) { return handoff.This().Take(network, asked, addr) }, fresh)
}

// inheritOr returns what was inherited for what was asked, or what is made afresh.
func inheritOr[C any](n *Net, network, asked string, take func() (any, error), fresh func() (C, error)) (C, error) {
	var none C
	if err := n.inheritError(); err != nil {
		return none, err
	}
	inherited, err := take()
	if err != nil {
		return none, err
	}
	if c, ok := inherited.(C); ok {
		return c, nil
	}
	c, err := fresh()
	if err != nil {
		return none, err
	}
	handoff.This().Add(c, network, asked)
	return c, nil
}

// asListener keeps a nil pointer from becoming a listener that is not nil.
func asListener[L net.Listener](l L, err error) (net.Listener, error) {
	if err != nil {
		return nil, err
	}
	return l, nil
}

// StartProcess starts the program anew and returns its pid at once. The new
// process inherits everything that this process listens on through this module
// and has not closed; it runs os.Args, looked up anew, with the environment as
// it is, in the directory where this process was started.
//
// The new process sends SIGTERM to this one when it is ready. It lives on if
// this one exits right away. If this one goes on, the new one is reaped when it
// exits. Where sockets can't be passed on, the error wraps
// errors.ErrUnsupported.
//
// grace.Wait and gracehttp.Serve restart on SIGUSR2 without a call of
// StartProcess, and serve on when that fails.
func (n *Net) StartProcess() (int, error) {
	return handoff.This().StartAlone()
}
