//go:build unix

package testbin

import (
	"context"
	"fmt"
	"io"
	"log"
	"log/slog"
	"net"
	"net/http"
	"os"
	"sync"
	"time"

	"github.com/facebookgo/grace/gracehttp"
	"github.com/facebookgo/grace/internal/testbin/play"
	"github.com/facebookgo/grace/internal/testbin/script"
)

// ServeHTTP serves handler with one call of gracehttp.
func ServeHTTP(cfg play.Config, handler http.Handler) error {
	serve, err := httpServers(cfg, handler)
	if err != nil {
		return err
	}
	return play.Done(serve(0, len(cfg.Listens)))
}

// httpServers returns a function that serves some of the addresses.
func httpServers(cfg play.Config, handler http.Handler) (func(from, to int) error, error) {
	gracehttp.SetLogger(log.New(logWriter{}, "", 0))
	var mu sync.Mutex
	addrs := make([]string, len(cfg.Listens))
	known := 0
	var servers []*http.Server
	for i, l := range cfg.Listens {
		switch l.Network {
		case "unix":
			l.Addr = "unix:" + l.Addr
		case "named":
			l.Addr = "fd:" + l.Addr
		}
		s := &http.Server{
			Addr:      l.Addr,
			Handler:   handler,
			ErrorLog:  log.New(logWriter{}, "net/http: ", 0),
			ConnState: idle.follow,
			BaseContext: func(l net.Listener) context.Context {
				mu.Lock()
				defer mu.Unlock()
				addrs[i] = l.Addr().String()
				if known++; known == len(addrs) {
					play.Emit(play.Event{Event: play.Serving, Addrs: addrs})
				}
				return context.Background()
			},
		}
		if l.TLS {
			var err error
			if s.TLSConfig, err = tlsConfig(); err != nil {
				return nil, err
			}
		}
		if l.HTTP2 {
			s.Protocols = new(http.Protocols)
			s.Protocols.SetHTTP1(true)
			s.Protocols.SetHTTP2(l.TLS)
			s.Protocols.SetUnencryptedHTTP2(!l.TLS)
		}
		s.RegisterOnShutdown(func() { play.Emit(play.Event{Event: play.Log, Text: "the shutdown hook runs"}) })
		servers = append(servers, s)
	}
	options := httpOptions(cfg)
	return func(from, to int) error {
		return gracehttp.ServeWithOptions(servers[from:to], options...)
	}, nil
}

func httpOptions(cfg play.Config) []gracehttp.Option {
	options := []gracehttp.Option{
		gracehttp.Standby(cfg.Standby),
		gracehttp.StartTimeout(cfg.StartTimeout),
		gracehttp.StopDelay(cfg.StopDelay),
		gracehttp.PIDFile(cfg.PIDFile),
		gracehttp.ControlSocket(cfg.ControlSocket),
		gracehttp.PreStartProcess(func() error { return preStart(cfg) }),
	}
	if cfg.StopTimeout != 0 {
		options = append(options, gracehttp.StopTimeout(cfg.StopTimeout))
	}
	if cfg.KillTimeout != 0 {
		options = append(options, gracehttp.KillTimeout(cfg.KillTimeout))
	}
	if cfg.IdleGrace != 0 {
		options = append(options, gracehttp.IdleGrace(cfg.IdleGrace))
	}
	if cfg.WaitHijacked {
		options = append(options, gracehttp.WaitHijacked())
	}
	if cfg.HandOverIdle {
		options = append(options, gracehttp.HandOverIdle())
	}
	if cfg.ShareTicketKeys {
		options = append(options, gracehttp.ShareTicketKeys())
	}
	if cfg.KeepPID {
		options = append(options, gracehttp.KeepPID())
	}
	if cfg.FDStore {
		options = append(options, gracehttp.FDStore())
	}
	if cfg.ReplaceStale {
		options = append(options, gracehttp.ReplaceStale())
	}
	if cfg.KeepAlive != 0 {
		options = append(options, gracehttp.ListenConfig(net.ListenConfig{KeepAlive: cfg.KeepAlive}))
	}
	if cfg.Records {
		options = append(options, gracehttp.Logger(slog.New(slog.NewJSONHandler(recordWriter{}, nil))))
	}
	return options
}

// idle are the connections that wait for another request.
var idle idleConns

type idleConns struct {
	mu  sync.Mutex
	all map[net.Conn]bool
}

// follow is called when the server and the library know the state.
func (i *idleConns) follow(c net.Conn, state http.ConnState) {
	i.mu.Lock()
	defer i.mu.Unlock()
	if state != http.StateIdle {
		delete(i.all, c)
		return
	}
	if i.all == nil {
		i.all = make(map[net.Conn]bool)
	}
	i.all[c] = true
}

func (i *idleConns) count() int {
	i.mu.Lock()
	defer i.mu.Unlock()
	return len(i.all)
}

// handler answers what all servers do, and what only one with this library can:
//
//	/ready   whether the service is ready
//	/idle    how many connections wait for another request
//	/echo    the request, in the same bytes whichever process answers; /refuse
//	         leaves its body
//	/events  "pid N", a line every now and then, and "end" when it is told to drain
//	/bytes   32 MiB, which no socket buffers
//	/poll    "drained" when it is told to drain
//	/tunnel  takes the connection over, as CONNECT does, and echoes; says "bye" and
//	         closes it when it is told to drain and the path is /tunnel/polite
//	/conn    the type of the connection
func handler() http.Handler {
	mux := http.NewServeMux()
	mux.HandleFunc("/", play.Handle)
	mux.HandleFunc("/ready", func(w http.ResponseWriter, _ *http.Request) {
		if !gracehttp.Ready() {
			http.Error(w, "not ready", http.StatusServiceUnavailable)
		}
	})
	mux.HandleFunc("/idle", func(w http.ResponseWriter, _ *http.Request) { fmt.Fprint(w, idle.count()) })
	mux.HandleFunc("/echo", script.Handler)
	mux.HandleFunc("/refuse", script.Handler)
	mux.HandleFunc("/events", func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Content-Type", "text/event-stream")
		tick := time.NewTicker(10 * time.Millisecond)
		defer tick.Stop()
		for line := fmt.Sprintln("pid", os.Getpid()); ; line = "tick\n" {
			_, _ = io.WriteString(w, line)
			_ = http.NewResponseController(w).Flush()
			select {
			case <-tick.C:
			case <-r.Context().Done():
				return
			case <-gracehttp.Draining(r.Context()):
				_, _ = io.WriteString(w, "end\n")
				return
			}
		}
	})
	mux.HandleFunc("/bytes", func(w http.ResponseWriter, _ *http.Request) {
		for range 1024 {
			if _, err := w.Write(make([]byte, 32<<10)); err != nil {
				return
			}
		}
	})
	mux.HandleFunc("/poll", func(w http.ResponseWriter, r *http.Request) {
		play.Emit(play.Event{Event: play.Asked, Text: "poll"})
		select {
		case <-r.Context().Done():
		case <-gracehttp.Draining(r.Context()):
			fmt.Fprint(w, "drained")
		}
	})
	mux.HandleFunc("/tunnel", tunnel)
	mux.HandleFunc("/tunnel/polite", tunnel)
	mux.HandleFunc("/conn", func(w http.ResponseWriter, _ *http.Request) {
		c, _, err := http.NewResponseController(w).Hijack()
		if err != nil {
			play.Fail(err)
		}
		fmt.Fprintf(c, "%T\n", c)
		_ = c.Close()
	})
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.Method == http.MethodConnect { // has no path
			tunnel(w, r)
			return
		}
		mux.ServeHTTP(w, r)
	})
}

func tunnel(w http.ResponseWriter, r *http.Request) {
	c, rw, err := http.NewResponseController(w).Hijack()
	if err != nil {
		play.Fail(err)
	}
	defer c.Close()
	fmt.Fprintf(c, "HTTP/1.1 200 OK\r\n\r\npid %d\n", os.Getpid())
	if r.URL.Path == "/tunnel/polite" {
		ended := make(chan struct{})
		defer close(ended)
		go func() {
			select {
			case <-gracehttp.Draining(r.Context()):
				fmt.Fprintln(c, "bye")
				_ = c.Close()
			case <-ended:
			}
		}()
	}
	_, _ = io.Copy(c, rw)
}
