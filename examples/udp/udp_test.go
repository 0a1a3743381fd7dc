//go:build unix

package main

import (
	"fmt"
	"net"
	"strings"
	"testing"
	"time"

	"github.com/facebookgo/grace/examples/internal/service"
	"github.com/facebookgo/grace/gracetest"
)

// asker asks with a number, once, and wants the answer to that number.
func asker(t *testing.T, addr string) gracetest.Client {
	conn, err := net.Dial("udp", addr)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = conn.Close() })
	number := 0
	b := make([]byte, 1000)
	return gracetest.Func("a client over UDP", func() (pid string, err error) {
		number++
		question := fmt.Sprint("question ", number)
		if _, err := conn.Write([]byte(question)); err != nil {
			return "", err
		}
		if err := conn.SetReadDeadline(time.Now().Add(gracetest.Patience)); err != nil {
			return "", err
		}
		n, err := conn.Read(b)
		if err != nil {
			return "", fmt.Errorf("%s: %w", question, err)
		}
		pid, answer, _ := strings.Cut(string(b[:n]), " ")
		if answer != question {
			return "", fmt.Errorf("%s: answer %q", question, b[:n])
		}
		return pid, nil
	})
}

// What a process has read it answers, although the drain begins meanwhile.
func TestAnswersUnderWay(t *testing.T) {
	s := service.Start(t, "-addr", "127.0.0.1:0", "-standby", "-1ns", "-delay", "200ms")
	var clients []gracetest.Client
	for range 8 {
		clients = append(clients, asker(t, s.Addr()))
	}
	load := gracetest.NewLoad(t, clients...)
	for range 3 {
		load.WaitMore(len(clients))
		_, new := s.Restart()
		load.WaitPID(new)
	}
	load.Stop()
	s.Stop()
}

// No question is lost over 10 restarts.
func TestRestarts(t *testing.T) {
	s := service.Start(t, "-addr", "127.0.0.1:0", "-standby", "50ms")
	load := func() *gracetest.Load {
		var clients []gracetest.Client
		for range 8 {
			clients = append(clients, asker(t, s.Addr()))
		}
		return gracetest.NewLoad(t, clients...)
	}
	steady := load()
	for range 20 {
		steady.WaitMore(1000)
	}
	without := steady.Stop()

	restarted := load()
	for range 10 {
		restarted.WaitMore(1000)
		_, new := s.Restart()
		restarted.WaitPID(new)
	}
	t.Logf("10 restarts: %s", service.Against(restarted.Stop(), without))
	s.Stop()
}
