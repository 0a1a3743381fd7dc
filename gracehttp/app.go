package gracehttp

import (
	"context"
	"crypto/tls"
	"log"
	"log/slog"
	"net"
	"net/http"
	"os"
	"sync"
	"time"

	"github.com/facebookgo/grace"
	"github.com/facebookgo/grace/gracenet"
	"github.com/facebookgo/grace/internal/accept"
	"github.com/facebookgo/grace/internal/handoff"
)

// app is one call of Serve: listen, serve, ready, run, drain, in this order.
type app struct {
	process     grace.Process
	records     *slog.Logger // of the option Logger; may be nil
	stopTimeout time.Duration
	killTimeout time.Duration

	net     gracenet.Net
	servers []*server
	tracker tracker
	fail    context.CancelCauseFunc // ends Run
	stop    chan struct{}           // closed when Drain begins
	running sync.WaitGroup          // the goroutines of Start
}

func newApp(servers []*http.Server) *app {
	a := &app{
		stopTimeout: time.Minute,
		killTimeout: time.Minute,
		stop:        make(chan struct{}),
		tracker:     tracker{none: make(chan struct{}, 1)},
	}
	for _, s := range servers {
		a.servers = append(a.servers, &server{http: s, tracker: &a.tracker})
	}
	return a
}

func (a *app) run() error {
	if len(a.servers) == 0 {
		return nil
	}
	l := logger.Load()
	a.process.Logger = newLogger(l, a.records)
	if err := a.listen(); err != nil {
		handoff.This().Fail(err)
		return err
	}
	a.announce(l)

	ctx, fail := context.WithCancelCause(context.Background())
	defer fail(nil)
	a.fail = fail
	err := a.process.Run(ctx, a)
	a.running.Wait()
	if err == nil && l != nil {
		l.Printf("Exiting pid %d.", os.Getpid())
	}
	return err
}

// Start implements grace.Service.
func (a *app) Start() {
	for _, s := range a.servers {
		s.prepare()
		a.running.Add(1)
		go func() {
			defer a.running.Done()
			if err := s.serve(); !a.stopping() {
				a.fail(err)
			}
		}()
	}
	a.running.Add(1)
	go func() {
		defer a.running.Done()
		a.ready()
	}()
}

func (a *app) stopping() bool {
	select {
	case <-a.stop:
		return true
	default:
		return false
	}
}

// listen opens the listeners of all servers, or none.
func (a *app) listen() error {
	for i, s := range a.servers {
		l, err := a.net.Listen("tcp", s.http.Addr)
		if err != nil {
			for _, s := range a.servers[:i] {
				_ = s.listener.Close()
			}
			return err
		}
		s.listener = accept.New(l, handoff.This().Close)
	}
	return nil
}

// announce logs what is served, in the words of the original.
func (a *app) announce(l *log.Logger) {
	if l == nil {
		return
	}
	listeners := make([]net.Listener, len(a.servers))
	for i, s := range a.servers {
		listeners[i] = s.listener
	}
	switch origin, parent := handoff.This().Origin(); origin {
	case handoff.Fresh:
		l.Printf("Serving %s with pid %d.", addrs(listeners), os.Getpid())
	case handoff.Manager:
		l.Printf("Listening on init activated %s", addrs(listeners))
	default:
		l.Printf("Graceful handoff of %s with new pid %d and old pid %d", addrs(listeners), os.Getpid(), parent)
	}
}

// settle is how long the first Serve of a process waits for others to ask for
// the rest of the inherited sockets, before it says ready and they are closed.
const settle = time.Second

// ready tells the parent that this process serves, once every server does.
func (a *app) ready() {
	for _, s := range a.servers {
		select {
		case <-s.listener.Started():
		case <-a.stop:
			return
		}
	}
	timer := time.NewTimer(settle)
	defer timer.Stop()
	select {
	case <-handoff.This().Claimed():
	case <-timer.C:
	case <-a.stop:
		return
	}
	if err := a.process.CloseParent(); err != nil {
		a.fail(err)
	}
}

// each calls f for all servers at once and waits.
func (a *app) each(f func(*server)) {
	var wg sync.WaitGroup
	for _, s := range a.servers {
		wg.Add(1)
		go func() {
			defer wg.Done()
			f(s)
		}()
	}
	wg.Wait()
}

// Pause implements grace.Service. A server has one accept loop; when that is
// back in Accept, the server knows the last connection that it was given.
func (a *app) Pause(ctx context.Context) {
	a.each(func(s *server) { s.listener.Pause(ctx, 1) })
	a.tracker.closing.Store(true)
}

// Resume implements grace.Service.
func (a *app) Resume() {
	a.tracker.closing.Store(false)
	a.each(func(s *server) { s.listener.Resume() })
}

// idleGrace is how long idle connections stay open at the end, since a request
// may be on its way to them.
const idleGrace = 500 * time.Millisecond

// Drain implements grace.Service.
func (a *app) Drain() error {
	close(a.stop)
	a.tracker.closing.Store(true)
	a.each((*server).closeListener)
	a.tracker.wait(idleGrace)
	if a.shutdown() {
		return nil
	}
	log := a.process.Logger.With("step", "drain", "pid", os.Getpid())
	log.Warn("requests take too long, their connections are closed",
		"connections", a.tracker.open.Load(), "after", a.stopTimeout)
	a.each(func(s *server) { _ = s.http.Close() })
	if !a.tracker.wait(a.killTimeout) {
		log.Warn("handlers do not return", "connections", a.tracker.open.Load(), "after", a.killTimeout)
	}
	return nil
}

// shutdown closes what is idle and waits for the rest. It reports whether all
// connections have ended in time. http.Server.Shutdown starts that, and would
// notice the end up to half a second late.
func (a *app) shutdown() bool {
	ctx, cancel := context.WithTimeout(context.Background(), a.stopTimeout)
	done := make(chan struct{})
	a.tracker.closeUnused()
	go func() {
		defer close(done)
		a.each(func(s *server) { _ = s.http.Shutdown(ctx) })
	}()
	ended := a.tracker.wait(a.stopTimeout)
	cancel()
	<-done
	return ended
}

// server is one http.Server and what it listens on.
type server struct {
	http     *http.Server
	listener *accept.Listener
	tracker  *tracker
	served   chan struct{} // closed when serve has returned
}

// prepare puts our functions before those of the program.
func (s *server) prepare() {
	s.served = make(chan struct{})
	s.http.Handler = s.tracker.handler(s.http.Handler)
	s.http.ConnState = s.tracker.connState(s.http.ConnState)
	if base := s.http.BaseContext; base != nil {
		s.http.BaseContext = func(net.Listener) context.Context { return base(s.listener.Listener) }
	}
}

func (s *server) serve() error {
	defer close(s.served)
	switch {
	case s.http.TLSConfig == nil:
		return s.http.Serve(s.listener)
	case s.http.Protocols != nil:
		return s.http.ServeTLS(s.listener, "", "")
	default:
		// ServeTLS would add h2 to what the configuration names.
		return s.http.Serve(tls.NewListener(s.listener, s.http.TLSConfig))
	}
}

// closeListener ends accepting, and returns when the server knows all that was
// accepted. That a listener can't be closed means that it is closed.
func (s *server) closeListener() {
	_ = s.listener.Finish(handoff.This().LastHolder(s.listener.Listener))
	<-s.served
}
