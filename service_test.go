//go:build unix

package grace_test

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"os"
	"os/signal"
	"path/filepath"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/facebookgo/grace"
	"github.com/facebookgo/grace/internal/testbin"
	"github.com/facebookgo/grace/internal/testbin/play"
)

// Services of the program, on Process.Run.

// asking is a service that asks in each of its methods whether it is ready.
type asking struct {
	greeter
	process grace.Process
	addr    string
}

func (a *asking) say(what string) {
	play.Emit(play.Event{Event: play.Log, Text: fmt.Sprintf("%s, ready: %t", what, grace.Ready())})
}

func (a *asking) Start() {
	a.say("start")
	play.Emit(play.Event{Event: play.Serving, Addrs: []string{a.addr}})
	a.closeParent() // first: greeter does, for another Process
	a.greeter.Start()
}

func (a *asking) closeParent() {
	if err := a.process.CloseParent(); err != nil {
		a.say(err.Error())
	}
}

func (a *asking) Pause(ctx context.Context) {
	a.greeter.Pause(ctx)
	a.closeParent() // again, though another process has taken over
	a.say("pause")
}

func (a *asking) Resume() {
	a.say("resume")
	a.greeter.Resume()
}

func (a *asking) Announce() { a.say("announce") }

func (a *asking) Drain() error {
	a.say("drain")
	return a.greeter.Drain()
}

// serveAsking runs one, until SIGHUP.
func serveAsking(cfg play.Config) error {
	l, err := testbin.ListenNet(cfg, cfg.Listens[0])
	if err != nil {
		return err
	}
	ctx, end := context.WithCancelCause(context.Background())
	hangup := make(chan os.Signal, 1)
	signal.Notify(hangup, syscall.SIGHUP)
	go func() {
		<-hangup
		end(errors.New("seen enough"))
	}()
	p := grace.Process{
		Standby: cfg.Standby,
		KeepPID: cfg.KeepPID,
		PIDFile: cfg.PIDFile,
		Logger:  slog.New(slog.NewTextHandler(logWriter{}, &slog.HandlerOptions{Level: slog.LevelDebug})),
	}
	tcp := l.(*net.TCPListener)
	a := &asking{greeter: greeter{tcp: tcp, listener: grace.NewListener(tcp)}, process: p, addr: tcp.Addr().String()}
	return play.Done(a.process.Run(ctx, a))
}

// logWriter makes an event of each line.
type logWriter struct{}

func (logWriter) Write(b []byte) (int, error) {
	play.Emit(play.Event{Event: play.Log, Text: string(b[:len(b)-1])})
	return len(b), nil
}

// runAsking starts one with a long standby.
func runAsking(t *testing.T, keepPID bool) (s *testbin.Service, pid int) {
	t.Helper()
	cfg := play.Config{Role: "asks", Listens: []play.Listen{{Network: "tcp", Addr: "127.0.0.1:0"}}, Standby: time.Hour, KeepPID: keepPID, PIDFile: "pid"}
	s = testbin.Start(t, cfg)
	pid, _ = s.Newest()
	s.WaitLog(pid, waits)
	return s, pid
}

// A method of a service may ask whether it is ready.
func TestReadyInService(t *testing.T) {
	s, pid := runAsking(t, false)
	s.WaitLog(pid, "start, ready: false")
	child := s.RestartPID(pid)
	s.WaitLog(pid, "pause, ready: true")
	s.WaitLog(child, "start, ready: true") // the service is
	s.WaitLog(pid, "standing by")
	if b, err := os.ReadFile(filepath.Join(s.Dir(), "pid")); string(b) != fmt.Sprintln(child) {
		t.Errorf("PID file %q, %v, want %d, which serves", b, err, child)
	}
	s.Signal(child, syscall.SIGKILL)
	s.WaitLog(pid, "resume, ready: true")
	s.WaitLog(pid, "serves again")
	s.Signal(pid, syscall.SIGTERM)
	s.WaitLog(pid, "announce, ready: false")
	s.WaitLog(pid, "drain, ready: false")
	if e := s.WaitReturned(pid); e.Event != play.Returned || e.Text != "" {
		t.Errorf("%s %s", e.Event, e.Text)
	}
	s.WaitGone()
}

// still is a service that does nothing. It tells when it has started.
type still chan struct{}

func (s still) Start()              { close(s) }
func (still) Pause(context.Context) {}
func (still) Resume()               {}
func (still) Drain() error          { return nil }

// The hook of a Process is called once, however many services run on it.
func TestHookIsCalledOnce(t *testing.T) {
	var calls atomic.Int32
	locked := errors.New("the index is locked")
	p := grace.Process{Logger: slog.New(slog.DiscardHandler), PreStart: func() error {
		if calls.Add(1) > 1 {
			t.Error("it is called again")
		}
		return nil
	}}
	last := grace.Process{Logger: p.Logger, PreStart: func() error { return locked }} // so that nothing is started
	ctx, end := context.WithCancel(context.Background())
	var running sync.WaitGroup
	for _, p := range []*grace.Process{&p, &p, &last} {
		s := make(still)
		running.Add(1)
		go func() {
			defer running.Done()
			_ = p.Run(ctx, s)
		}()
		waitFor(t, "the service to start", s)
	}
	if err := grace.Upgrade(patient(t)); !errors.Is(err, locked) {
		t.Errorf("Upgrade: %v, want that %v", err, locked)
	}
	end()
	running.Wait()
	if n := calls.Load(); n != 1 {
		t.Errorf("the hook was called %d times, want once", n)
	}
}
