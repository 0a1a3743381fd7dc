//go:build unix

package main

import (
	"bufio"
	"fmt"
	"net"
	"os/exec"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/facebookgo/grace/gracetest"
)

// client keeps a connection until the server says goodbye. It sends no line twice.
type client struct {
	addr    string
	told    *atomic.Int64 // how often a server has said goodbye
	conn    net.Conn
	r       *bufio.Reader
	opened  time.Time
	nth     int // of the lines on this connection
	number  int // of all lines
	goodbye bool
}

func (c *client) String() string { return "a client that sends lines to " + c.addr }

func (c *client) Close() error {
	if c.conn == nil {
		return nil
	}
	err := c.conn.Close()
	c.conn = nil
	return err
}

func (c *client) Do() (gracetest.Exchange, error) {
	again := c.goodbye
	if c.conn == nil {
		c.opened, c.nth, c.goodbye = time.Now(), 0, false
		conn, err := net.DialTimeout("tcp", c.addr, gracetest.Patience)
		if err != nil {
			return gracetest.Exchange{Opened: c.opened, Nth: 1}, err
		}
		c.conn, c.r = conn, bufio.NewReader(conn)
	}
	c.nth++
	c.number++
	pid, err := c.ask(fmt.Sprint("line ", c.number))
	if err != nil || c.goodbye {
		_ = c.Close()
	}
	return gracetest.Exchange{Answer: pid, Opened: c.opened, Nth: c.nth, Reconnected: again && c.nth == 1}, err
}

// ask returns the pid that comes before the answer.
func (c *client) ask(line string) (pid string, err error) {
	if err := c.conn.SetDeadline(time.Now().Add(gracetest.Patience)); err != nil {
		return "", err
	}
	if _, err := fmt.Fprintln(c.conn, line); err != nil {
		return "", err
	}
	for {
		answer, err := c.r.ReadString('\n')
		if err != nil {
			return "", fmt.Errorf("%s: %w", line, err)
		}
		if answer == "bye\n" {
			c.goodbye = true
			c.told.Add(1)
			continue
		}
		pid, echo, _ := strings.Cut(answer, " ")
		if echo != line+"\n" {
			return "", fmt.Errorf("%s: answer %q", line, answer)
		}
		return pid, nil
	}
}

// Every line is answered, and clients are told of the restarts.
func TestRestarts(t *testing.T) {
	addr := gracetest.FreeAddr(t)
	s := gracetest.Start(t, exec.Command(gracetest.Build(t, "."), "-addr", addr, "-standby", "200ms"))
	var told atomic.Int64
	clients := make([]gracetest.Client, 8)
	for i := range clients {
		clients[i] = &client{addr: addr, told: &told}
	}
	s.WaitAnswer(clients[0])
	const restarts = 5
	t.Log(s.Prove(gracetest.Plan{Clients: clients, Restarts: restarts, Standby: 200 * time.Millisecond}))
	t.Logf("clients were told %d times", told.Load())
	if told.Load() < restarts { // a process waits for its clients to hang up
		t.Errorf("clients were told %d times, want %d at least", told.Load(), restarts)
	}
	s.Stop()
}
