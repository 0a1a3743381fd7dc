//go:build unix

package main

import (
	"fmt"
	"net"
	"strings"
	"testing"
	"time"

	"github.com/facebookgo/grace/examples/internal/service"
)

// asker asks with a number, once, and wants the answer to that number.
func asker(t *testing.T, addr string) func() error {
	conn, err := net.Dial("udp", addr)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = conn.Close() })
	number := 0
	b := make([]byte, 1000)
	return func() error {
		number++
		question := fmt.Sprint("question ", number)
		if _, err := conn.Write([]byte(question)); err != nil {
			return err
		}
		if err := conn.SetReadDeadline(time.Now().Add(service.Patience)); err != nil {
			return err
		}
		n, err := conn.Read(b)
		if err != nil {
			return fmt.Errorf("%s: %w", question, err)
		}
		if _, answer, _ := strings.Cut(string(b[:n]), " "); answer != question {
			return fmt.Errorf("%s: answer %q", question, b[:n])
		}
		return nil
	}
}

// No question is lost over 10 restarts.
func TestRestarts(t *testing.T) {
	s := service.Start(t, "-addr", "127.0.0.1:0", "-standby", "50ms")
	_, addr := s.Newest()
	load := func() *service.Load {
		var requests []func() error
		for range 8 {
			requests = append(requests, asker(t, addr))
		}
		return service.NewLoad(t, requests...)
	}
	steady := load()
	steady.WaitMore(20000)
	without := steady.Stop()

	restarted := load()
	for range 10 {
		restarted.WaitMore(1000)
		old, _ := s.Restart()
		s.WaitPID(old, " drained ")
	}
	restarted.WaitMore(1000)
	t.Logf("10 restarts: %s", restarted.Stop().Against(without))
	s.Stop()
}
