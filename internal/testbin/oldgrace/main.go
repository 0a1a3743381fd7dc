//go:build unix

// Command oldgrace is a server that speaks the protocol of facebookgo/grace and
// nothing else, written from the description of that protocol. It is built
// without this library, so that nothing in it knows more.
package main

import (
	"context"
	"fmt"
	"net"
	"net/http"
	"os"
	"os/exec"
	"os/signal"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"time"

	"github.com/facebookgo/grace/internal/testbin/play"
)

func main() {
	cfg, err := play.ReadConfig()
	if err == nil {
		err = serve(cfg)
	}
	if err != nil {
		play.Fail(err)
	}
}

// serve takes its listeners by number from descriptor 3 on if it is a child,
// serves, and sends SIGTERM to its parent. As a parent it passes LISTEN_FDS,
// leaves LISTEN_PID as it found it, goes on serving until it gets SIGTERM, and
// drains.
func serve(cfg play.Config) error {
	var listeners []net.Listener
	var addrs []string
	count := os.Getenv("LISTEN_FDS")
	inheriting := count != "" && count != "0"
	if inheriting {
		n, err := strconv.Atoi(count)
		if err != nil {
			return err
		}
		for fd := 3; fd < 3+n; fd++ {
			f := os.NewFile(uintptr(fd), "listener")
			l, err := net.FileListener(f)
			if err != nil {
				return fmt.Errorf("descriptor %d: %w", fd, err)
			}
			f.Close()
			listeners = append(listeners, l)
		}
	} else {
		for _, l := range cfg.Listens {
			l, err := net.Listen(l.Network, l.Addr)
			if err != nil {
				return err
			}
			listeners = append(listeners, l)
		}
	}
	var stopping atomic.Bool
	var accepting sync.WaitGroup
	var fresh freshConns
	server := &http.Server{Handler: fresh.handler(play.Handle), ConnState: fresh.state}
	for _, l := range listeners {
		addrs = append(addrs, l.Addr().String())
		accepting.Add(1)
		go func() {
			defer accepting.Done()
			if err := server.Serve(l); !stopping.Load() {
				play.Fail(err)
			}
		}()
	}
	signals := make(chan os.Signal, 10)
	signal.Notify(signals, syscall.SIGTERM, syscall.SIGUSR2)
	play.Emit(play.Event{Event: play.Serving, Addrs: addrs})
	if ppid := os.Getppid(); inheriting && ppid != 1 {
		if err := syscall.Kill(ppid, syscall.SIGTERM); err != nil {
			return err
		}
	}
	for sig := range signals {
		if sig == syscall.SIGUSR2 {
			if err := startProcess(listeners); err != nil {
				return err
			}
			continue
		}
		// Closing first and shutting down later is how the original lost
		// nothing on fresh connections.
		stopping.Store(true)
		closed := make(chan struct{})
		go func() {
			defer close(closed)
			for _, l := range listeners {
				l.Close()
			}
			accepting.Wait()
		}()
		server.SetKeepAlivesEnabled(false)
		wakeAccept(listeners, closed)
		time.Sleep(100 * time.Millisecond)
		// Shutdown would cut the first request of a connection.
		for end := time.Now().Add(5 * time.Second); fresh.any() && time.Now().Before(end); {
			time.Sleep(5 * time.Millisecond)
		}
		ctx, cancel := context.WithTimeout(context.Background(), 10*time.Second)
		defer cancel()
		return play.Done(server.Shutdown(ctx))
	}
	return nil
}

// freshConns knows the connections on which no handler has begun, by their clients.
type freshConns struct{ clients sync.Map }

func (f *freshConns) state(c net.Conn, state http.ConnState) {
	switch state {
	case http.StateNew:
		f.clients.Store(c.RemoteAddr().String(), nil)
	case http.StateClosed:
		f.clients.Delete(c.RemoteAddr().String())
	}
}

func (f *freshConns) handler(next http.HandlerFunc) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		f.clients.Delete(r.RemoteAddr)
		next(w, r)
	})
}

func (f *freshConns) any() (found bool) {
	f.clients.Range(func(any, any) bool {
		found = true
		return false
	})
	return found
}

// wakeAccept waits until the listeners are closed. Close hangs where a goroutine
// has come to accept(2) while the listener was blocking, see startProcess. The
// original waits for its next client then, and tests may have none: so it is
// its own, until the goroutine has got the connection, and not the new process.
func wakeAccept(listeners []net.Listener, closed <-chan struct{}) {
	for {
		select {
		case <-closed:
			return
		case <-time.After(100 * time.Millisecond):
		}
		for _, l := range listeners {
			// Refused if no process has the listener any more.
			if c, err := net.DialTimeout(l.Addr().Network(), l.Addr().String(), time.Second); err == nil {
				c.Close()
			}
		}
	}
}

// startProcess starts the program with the listeners.
func startProcess(listeners []net.Listener) error {
	argv0, err := exec.LookPath(os.Args[0])
	if err != nil {
		return err
	}
	files := []*os.File{os.Stdin, os.Stdout, os.Stderr}
	for _, l := range listeners {
		f, err := l.(interface{ File() (*os.File, error) }).File()
		if err != nil {
			return err
		}
		defer f.Close()
		files = append(files, f)
	}
	var env []string
	for _, kv := range os.Environ() {
		if !strings.HasPrefix(kv, "LISTEN_FDS=") {
			env = append(env, kv)
		}
	}
	env = append(env, "LISTEN_FDS="+strconv.Itoa(len(listeners)))
	// It makes the listeners blocking for a moment, as it did in the original.
	_, err = os.StartProcess(argv0, os.Args, &os.ProcAttr{Env: env, Files: files})
	return err
}
