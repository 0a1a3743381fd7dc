//go:build linux

package main

import (
	"context"
	"errors"
	"fmt"
	"log"
	"net"
	"net/http"
	"os"
	"os/exec"
	"os/signal"
	"strconv"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

// inherits says how many listeners a process was given: those from descriptor 3. After
// them comes a pipe, which takes a byte when the process serves.
const inherits = "BY_HAND_LISTENERS"

const shutdownTimeout = 10 * time.Second

// serveByHand is what a careful user writes: os/exec with ExtraFiles, a pipe on which the
// new process says that it serves, and Shutdown with a time limit.
func serveByHand(c config, servers []*http.Server) error {
	signals := make(chan os.Signal, 1)
	signal.Notify(signals, syscall.SIGUSR2, syscall.SIGTERM)
	listeners, ready, err := listenByHand(servers)
	if err != nil {
		return err
	}
	failed := make(chan error)
	for i, s := range servers {
		go func() {
			if err := serveOn(s, listeners[i]); err != http.ErrServerClosed {
				failed <- err
			}
		}()
	}
	if ready != nil {
		if _, err := ready.Write([]byte{1}); err != nil {
			return fmt.Errorf("say that this process serves: %w", err)
		}
		ready.Close()
	}
	for {
		select {
		case err := <-failed:
			return err
		case sig := <-signals:
			if sig == syscall.SIGUSR2 {
				if err := startSuccessor(listeners); err != nil {
					log.Print(err)
					continue
				}
			}
			return c.shutDown(servers)
		}
	}
}

func listenByHand(servers []*http.Server) (listeners []net.Listener, ready *os.File, err error) {
	count, inherited := os.LookupEnv(inherits)
	if !inherited {
		for _, s := range servers {
			l, err := net.Listen("tcp", s.Addr)
			if err != nil {
				return nil, nil, fmt.Errorf("listen: %w", err)
			}
			listeners = append(listeners, l)
		}
		return listeners, nil, nil
	}
	n, err := strconv.Atoi(count)
	if err != nil || n != len(servers) {
		return nil, nil, fmt.Errorf("%s is %q, want %d", inherits, count, len(servers))
	}
	for i := range n {
		f := os.NewFile(uintptr(3+i), "listener")
		l, err := net.FileListener(f)
		f.Close()
		if err != nil {
			return nil, nil, fmt.Errorf("inherit: %w", err)
		}
		listeners = append(listeners, l)
	}
	return listeners, os.NewFile(uintptr(3+n), "ready"), nil
}

// startSuccessor starts the new process and returns when it serves.
func startSuccessor(listeners []net.Listener) error {
	cmd := exec.Command(os.Args[0], os.Args[1:]...)
	cmd.Stdout, cmd.Stderr = os.Stdout, os.Stderr
	cmd.Env = append(os.Environ(), fmt.Sprintf("%s=%d", inherits, len(listeners)))
	for _, l := range listeners {
		f, err := duplicate(l.(*net.TCPListener))
		if err != nil {
			return fmt.Errorf("pass a listener: %w", err)
		}
		defer f.Close()
		cmd.ExtraFiles = append(cmd.ExtraFiles, f)
	}
	r, w, err := os.Pipe()
	if err != nil {
		return fmt.Errorf("restart: %w", err)
	}
	defer r.Close()
	cmd.ExtraFiles = append(cmd.ExtraFiles, w)
	err = cmd.Start()
	w.Close()
	if err != nil {
		return fmt.Errorf("restart: %w", err)
	}
	if n, _ := r.Read(make([]byte, 1)); n == 0 {
		return fmt.Errorf("restart: the new process has failed: %w", cmd.Wait())
	}
	return nil
}

// duplicate is what File does, but leaves the listener as it is: with a File in ExtraFiles it
// blocks for a moment, and if Accept is called in that moment Shutdown may never return
// (golang/go#29277).
func duplicate(l *net.TCPListener) (*os.File, error) {
	raw, err := l.SyscallConn()
	if err != nil {
		return nil, err
	}
	var fd int
	var failed error
	err = raw.Control(func(of uintptr) { fd, failed = unix.FcntlInt(of, unix.F_DUPFD_CLOEXEC, 0) })
	if err := errors.Join(err, failed); err != nil {
		return nil, err
	}
	return os.NewFile(uintptr(fd), "listener"), nil
}

func (c config) shutDown(servers []*http.Server) error {
	if c.careless {
		for _, s := range servers {
			_ = s.Close()
		}
		return nil
	}
	ctx, cancel := context.WithTimeout(context.Background(), shutdownTimeout)
	defer cancel()
	errs := make(chan error, len(servers))
	for _, s := range servers {
		go func() { errs <- s.Shutdown(ctx) }()
	}
	for range servers {
		if err := <-errs; err != nil {
			return fmt.Errorf("shut down: %w", err)
		}
	}
	return nil
}
