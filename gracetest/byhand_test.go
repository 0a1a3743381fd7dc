//go:build unix

package gracetest_test

import (
	"context"
	"fmt"
	"net"
	"net/http"
	"os"
	"os/exec"
	"os/signal"
	"strings"
	"sync"
	"syscall"
	"time"

	"github.com/facebookgo/grace/internal/testbin/play"
)

// serveByHand is a server without this library, whose restarts have one of the faults that
// a proof is to find: what its PreStart names.
func serveByHand(cfg play.Config) error {
	const inherits = "BY_HAND"
	fault := cfg.PreStart
	var l net.Listener
	var err error
	generation := 0
	if n := os.Getenv(inherits); n != "" {
		if _, err := fmt.Sscan(n, &generation); err != nil {
			return err
		}
		l, err = net.FileListener(os.NewFile(3, "listener"))
	} else {
		l, err = net.Listen("tcp", cfg.Listens[0].Addr)
	}
	if err != nil {
		return err
	}
	if fault == "descriptor" {
		for range generation {
			if _, err := os.Open(os.Args[0]); err != nil { // and is not closed
				return err
			}
		}
	}
	signals := make(chan os.Signal, 10)
	signal.Notify(signals, syscall.SIGUSR2, syscall.SIGTERM)
	var open sync.WaitGroup // connections
	server := &http.Server{Handler: http.HandlerFunc(play.Handle), ConnState: func(_ net.Conn, state http.ConnState) {
		switch state {
		case http.StateNew:
			open.Add(1)
		case http.StateClosed, http.StateHijacked:
			open.Done()
		}
	}}
	served := make(chan struct{})
	go func() {
		defer close(served)
		_ = server.Serve(l)
	}()
	play.Emit(play.Event{Event: play.Serving, Addrs: []string{l.Addr().String()}})
	if generation > 0 {
		if fault == "no takeover" && generation > 1 {
			time.Sleep(cfg.Standby) // the first restart is to succeed
		}
		if err := syscall.Kill(os.Getppid(), syscall.SIGTERM); err != nil {
			return err
		}
	}
	for sig := range signals {
		if sig == syscall.SIGTERM {
			break
		}
		f, err := l.(*net.TCPListener).File()
		if err != nil {
			return err
		}
		cmd := exec.Command(os.Args[0])
		cmd.Stdout, cmd.Stderr, cmd.ExtraFiles = os.Stdout, os.Stderr, []*os.File{f}
		cmd.Env = append(without(os.Environ(), inherits), fmt.Sprintf("%s=%d", inherits, generation+1))
		err = cmd.Start()
		f.Close()
		if err != nil && fault == "gives up" {
			return fmt.Errorf("restart: %w", err)
		}
		if fault == "process" || fault == "bad process" && err != nil {
			if err := exec.Command("sleep", "1000").Start(); err != nil {
				return err
			}
		}
		go func() {
			if err := cmd.Wait(); err != nil && fault == "no takeover" {
				play.Fail(err)
			}
		}()
	}
	if fault == "request" {
		return server.Close()
	}
	_ = l.Close()
	<-served
	open.Wait() // Shutdown loses what has only just come; no client here keeps its connection
	return server.Shutdown(context.Background())
}

func without(env []string, name string) []string {
	var kept []string
	for _, kv := range env {
		if !strings.HasPrefix(kv, name+"=") {
			kept = append(kept, kv)
		}
	}
	return kept
}
