//go:build unix

package testbin

import (
	"errors"
	"fmt"
	"log/slog"
	"net"
	"os"
	"os/signal"
	"runtime"
	"slices"
	"syscall"

	"github.com/facebookgo/grace"
	"github.com/facebookgo/grace/gracenet"
	"github.com/facebookgo/grace/internal/testbin/play"
)

// roles are the servers.
var roles = map[string]func(play.Config) error{
	"http":         func(cfg play.Config) error { return ServeHTTP(cfg, handler()) },
	"twice":        serveTwice,
	"net":          serveNet,
	"grace":        serveGrace,
	"startprocess": serveStartProcess,
	"env":          reportEnv,
	"mixed":        serveMixed,
	"late":         serveLate,
	"asking":       serveAsking,
	"packets":      servePackets,
	"sessions":     serveSessions,
	"kinds":        ServeKinds,
	"talk":         serveTalk,
	"says":         serveSays,
}

// serveMixed serves the networks that are not "tcp" with a raw server, in the
// same process.
func serveMixed(cfg play.Config) error {
	return serveBoth(cfg, func(serve, wait func() error) error {
		waited := make(chan error)
		go func() { waited <- wait() }()
		err := serve()
		return errors.Join(<-waited, err)
	})
}

// serveLate is serveMixed, and comes to Wait when the other server has ended.
func serveLate(cfg play.Config) error {
	return serveBoth(cfg, func(serve, wait func() error) error { return errors.Join(serve(), wait()) })
}

// serveBoth leaves it to run when the servers take part in restarts.
func serveBoth(cfg play.Config, run func(serve, wait func() error) error) error {
	raw := cfg
	isHTTP := func(l play.Listen) bool { return l.Network == "tcp" }
	raw.Listens = slices.DeleteFunc(slices.Clone(cfg.Listens), isHTTP)
	cfg.Listens = slices.DeleteFunc(cfg.Listens, func(l play.Listen) bool { return !isHTTP(l) })
	process := rawProcess(raw)
	if i := slices.IndexFunc(raw.Listens, func(l play.Listen) bool { return l.Network == "udp" }); i >= 0 {
		c, err := plainNet.ListenPacket("udp", raw.Listens[i].Addr)
		if err != nil {
			return err
		}
		process.PacketConns = []*grace.PacketConn{grace.NewPacketConn(c)}
		go answerPackets(process.PacketConns[0], false)
		raw.Listens = slices.Delete(raw.Listens, i, i+1)
	}
	listeners, err := listenRaw(raw)
	if err != nil {
		return err
	}
	for _, l := range listeners {
		go serveLines(l, play.Answer)
	}
	serve, err := httpServers(cfg, handler())
	if err != nil {
		return err
	}
	return play.Done(run(
		func() error { return serve(0, len(cfg.Listens)) },
		func() error { return process.Wait(listeners) }))
}

// serveTwice serves with two calls of gracehttp in one process, the second one
// with the last address.
func serveTwice(cfg play.Config) error {
	serve, err := httpServers(cfg, handler())
	if err != nil {
		return err
	}
	last := len(cfg.Listens) - 1
	first := make(chan error)
	go func() { first <- serve(0, last) }()
	err = serve(last, last+1)
	return play.Done(errors.Join(<-first, err))
}

func preStart(cfg play.Config) error {
	for k, v := range cfg.SetEnv {
		if err := os.Setenv(k, v); err != nil {
			return err
		}
	}
	switch cfg.PreStart {
	case "":
		return nil
	case "panic":
		panic("on purpose")
	case "exit":
		runtime.Goexit()
	case "hang":
		play.Emit(play.Event{Event: play.Log, Text: "the hook runs"})
		return hang(cfg)
	}
	return errors.New(cfg.PreStart)
}

// serveLines runs an accept loop until the listener is closed.
func serveLines(l net.Listener, answer func(string) string) {
	acceptAll(l, func(c net.Conn) { play.ServeConnWith(c, answer) })
}

func acceptAll(l net.Listener, serve func(net.Conn)) {
	for {
		c, err := l.Accept()
		if err != nil {
			if !errors.Is(err, grace.ErrAlreadyClosed) {
				play.Emit(play.Event{Event: play.Failed, Text: err.Error()})
			}
			return
		}
		go serve(c)
	}
}

// serveNet is a raw server on gracenet.Net and grace.Wait.
func serveNet(cfg play.Config) error {
	listeners, err := listenRaw(cfg)
	if err != nil {
		return err
	}
	return serveListeners(cfg, listeners, func(_ int, question string) string { return play.Answer(question) })
}

// ServeLines is a raw server on grace.Wait, with answers of its own: to a question
// that came to the listener at position i. It reports more addresses after those of the
// listeners.
func ServeLines(cfg play.Config, listeners []net.Listener, answer func(i int, question string) string, more ...string) error {
	var all []grace.Listener
	for _, l := range listeners {
		all = append(all, grace.NewListener(l.(grace.Listener)))
	}
	return serveListeners(cfg, all, answer, more...)
}

func listenRaw(cfg play.Config) ([]grace.Listener, error) {
	var listeners []grace.Listener
	for _, l := range cfg.Listens {
		l, err := ListenNet(cfg, l)
		if err != nil {
			return nil, err
		}
		listeners = append(listeners, grace.NewListener(l.(grace.Listener)))
	}
	return listeners, nil
}

var (
	plainNet  gracenet.Net
	sharedNet = gracenet.Net{ListenConfig: net.ListenConfig{Control: func(_, _ string, c syscall.RawConn) error {
		var err error
		controlErr := c.Control(func(fd uintptr) { err = reusePort(int(fd)) })
		return errors.Join(controlErr, err)
	}}}
)

// ListenNet listens as cfg and l say.
func ListenNet(cfg play.Config, l play.Listen) (net.Listener, error) {
	n := &plainNet
	if l.Shared {
		n = &sharedNet
	}
	n.ReplaceStale = cfg.ReplaceStale
	if l.Network == "named" {
		return n.ListenNamed(l.Addr)
	}
	return n.Listen(l.Network, l.Addr)
}

// serveGrace is a raw server on the root package alone.
func serveGrace(cfg play.Config) error {
	listeners, err := grace.Inherit()
	if errors.Is(err, grace.ErrNotInheriting) {
		err = nil
		for _, l := range cfg.Listens {
			l, err := net.Listen(l.Network, l.Addr)
			if err != nil {
				return err
			}
			listeners = append(listeners, grace.NewListener(l.(grace.Listener)))
		}
	}
	if err != nil {
		return err
	}
	return serveListeners(cfg, listeners, func(_ int, question string) string { return play.Answer(question) })
}

func serveListeners(cfg play.Config, listeners []grace.Listener, answer func(int, string) string, more ...string) error {
	var addrs []string
	for i, l := range listeners {
		if len(listeners) <= 100 {
			addrs = append(addrs, l.Addr().String())
		}
		go serveLines(l, func(question string) string { return answer(i, question) })
	}
	return wait(cfg, listeners, append(addrs, more...))
}

// wait says that this process serves, and waits for the end.
func wait(cfg play.Config, listeners []grace.Listener, addrs []string) error {
	p := rawProcess(cfg)
	play.Emit(play.Event{Event: play.Serving, Addrs: addrs})
	if err := p.CloseParent(); err != nil {
		return err
	}
	// The program may ask for a restart itself.
	hangups := make(chan os.Signal, 1)
	signal.Notify(hangups, syscall.SIGHUP)
	go func() {
		for range hangups {
			if err := p.Restart(listeners); err != nil {
				play.Emit(play.Event{Event: play.Log, Text: "Restart: " + err.Error()})
			}
		}
	}()
	return play.Done(p.Wait(listeners))
}

// rawProcess says how a raw server is restarted.
func rawProcess(cfg play.Config) *grace.Process {
	p := &grace.Process{
		TermTimeout:   cfg.TermTimeout,
		IdleGrace:     cfg.IdleGrace,
		StartTimeout:  cfg.StartTimeout,
		Standby:       cfg.Standby,
		StopDelay:     cfg.StopDelay,
		PIDFile:       cfg.PIDFile,
		ControlSocket: cfg.ControlSocket,
		FDStore:       cfg.FDStore,
		KeepPID:       cfg.KeepPID,
		PreStart:      func() error { return preStart(cfg) },
		Logger:        slog.New(slog.NewTextHandler(logWriter{}, &slog.HandlerOptions{Level: slog.LevelDebug})),
	}
	if p.Standby == 0 {
		p.Standby = -1
	}
	return p
}

// reportEnv says what a program sees that does not ask for a socket.
func reportEnv(cfg play.Config) error {
	var n gracenet.Net
	play.Emit(play.Event{Event: play.Log, Text: fmt.Sprintf("LISTEN_FDS=%s LISTEN_PID=%s GRACE_HANDOVER=%q",
		os.Getenv("LISTEN_FDS"), os.Getenv("LISTEN_PID"), os.Getenv("GRACE_HANDOVER"))})
	for _, l := range cfg.Listens {
		_, err := n.Listen(l.Network, l.Addr)
		play.Emit(play.Event{Event: play.Log, Text: "listen: " + text(err)})
	}
	_, err := grace.Inherit()
	play.Emit(play.Event{Event: play.Log, Text: "inherit: " + text(err)})
	play.Emit(play.Event{Event: play.Log, Text: "fds: " + play.Descriptors()})
	return nil
}

func text(err error) string {
	if err == nil {
		return "no error"
	}
	return err.Error()
}

// serveStartProcess is a raw server that restarts itself through
// Net.StartProcess, as programs written for the original do.
func serveStartProcess(cfg play.Config) error {
	inherited := os.Getenv("LISTEN_FDS") != ""
	var n gracenet.Net
	var listeners []net.Listener
	var addrs []string
	for _, l := range cfg.Listens {
		l, err := n.Listen(l.Network, l.Addr)
		if err != nil {
			return err
		}
		listeners = append(listeners, l)
		addrs = append(addrs, l.Addr().String())
		go func() {
			for {
				c, err := l.Accept()
				if errors.Is(err, net.ErrClosed) {
					return
				}
				if err != nil {
					play.Fail(err)
				}
				go play.ServeConn(c)
			}
		}()
	}
	signals := make(chan os.Signal, 10)
	signal.Notify(signals, syscall.SIGTERM, syscall.SIGUSR2)
	play.Emit(play.Event{Event: play.Serving, Addrs: addrs})
	if inherited && os.Getppid() != 1 {
		if err := syscall.Kill(os.Getppid(), syscall.SIGTERM); err != nil {
			return err
		}
	}
	for sig := range signals {
		if sig == syscall.SIGTERM {
			break
		}
		pid, err := n.StartProcess()
		if err != nil {
			play.Emit(play.Event{Event: play.Log, Text: "StartProcess: " + err.Error()})
			continue
		}
		play.Emit(play.Event{Event: play.Log, Text: fmt.Sprintf("StartProcess: pid %d", pid)})
	}
	for _, l := range listeners {
		l.Close()
	}
	return play.Done(nil)
}
