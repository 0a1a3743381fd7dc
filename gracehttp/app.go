package gracehttp

import (
	"context"
	"log"
	"log/slog"
	"net"
	"net/http"
	"os"
	"strings"
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
	idleGrace   time.Duration
	stopTimeout time.Duration
	killTimeout time.Duration

	waitHijacked    bool
	handOverIdle    bool
	shareTicketKeys bool

	net     gracenet.Net
	servers []*server
	tracker tracker
	fail    context.CancelCauseFunc // ends Run
	stop    chan struct{}           // closed when Drain begins
	abort   chan struct{}           // closed when Drain must end
	running sync.WaitGroup          // the goroutines of Start
}

var (
	_ grace.Announcer = (*app)(nil)
	_ grace.Aborter   = (*app)(nil)
	_ grace.Counter   = (*app)(nil)
)

func newApp(servers []*http.Server) *app {
	abort := make(chan struct{})
	a := &app{
		abort:       abort,
		idleGrace:   500 * time.Millisecond,
		stopTimeout: time.Minute,
		killTimeout: time.Minute,
		stop:        make(chan struct{}),
		tracker:     tracker{none: make(chan struct{}, 1), abort: abort},
	}
	for _, s := range servers {
		a.servers = append(a.servers, &server{app: a, http: s, secure: s.TLSConfig != nil})
	}
	return a
}

func (a *app) run() error {
	if len(a.servers) == 0 {
		return nil
	}
	l := logger.Load()
	a.process.Logger = newLogger(l, a.records)
	a.process.TermTimeout = a.idleGrace + settleTimeout + endTimeout + a.stopTimeout + a.killTimeout
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
		if !s.secure { // nobody can join in the middle of TLS
			handoff.This().TakeConns(s.listener.Listener, s.takeConns)
		}
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
		l, err := a.listenOn(s.http.Addr)
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

// listenOn understands what an address of ours can be.
func (a *app) listenOn(addr string) (net.Listener, error) {
	if name, ok := strings.CutPrefix(addr, "fd:"); ok {
		return a.net.ListenNamed(name)
	}
	if path, ok := strings.CutPrefix(addr, "unix:"); ok {
		return a.net.Listen("unix", path)
	}
	return a.net.Listen("tcp", addr)
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

// claimTimeout is how long Serve waits for others to ask for the rest of the inherited
// sockets, before it says ready and they are closed.
const claimTimeout = time.Second

// ready tells the parent that this process serves, once every server does.
func (a *app) ready() {
	for _, s := range a.servers {
		select {
		case <-s.listener.Started():
		case <-a.stop:
			return
		}
	}
	timer := time.NewTimer(claimTimeout)
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
