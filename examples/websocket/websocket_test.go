//go:build unix

package main

import (
	"context"
	"fmt"
	"os/exec"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/coder/websocket"

	"github.com/facebookgo/grace/gracetest"
)

// client keeps a WebSocket until the server closes it. A message that the close frame
// comes instead of an answer to it sends again.
type client struct {
	addr   string
	told   *atomic.Int64 // how often a server has closed with StatusServiceRestart
	conn   *websocket.Conn
	opened time.Time
	nth    int // of the messages on this connection
	number int // of all messages
}

func (c *client) String() string { return "a WebSocket to " + c.addr }

func (c *client) Close() error {
	if c.conn == nil {
		return nil
	}
	err := c.conn.CloseNow()
	c.conn = nil
	return err
}

func (c *client) Do() (gracetest.Exchange, error) {
	ctx, cancel := context.WithTimeout(context.Background(), gracetest.Patience)
	defer cancel()
	c.number++
	question := fmt.Sprint("message ", c.number)
	for again := false; ; again = true {
		pid, err := c.ask(ctx, question)
		x := gracetest.Exchange{Answer: pid, Opened: c.opened, Nth: c.nth, Reconnected: again}
		if err == nil {
			return x, nil
		}
		_ = c.Close()
		if websocket.CloseStatus(err) != websocket.StatusServiceRestart {
			return x, err
		}
		c.told.Add(1)
	}
}

// ask returns the pid that comes before the answer.
func (c *client) ask(ctx context.Context, question string) (pid string, err error) {
	if c.conn == nil {
		c.opened, c.nth = time.Now(), 0
		conn, _, err := websocket.Dial(ctx, "ws://"+c.addr, nil)
		if err != nil {
			return "", err
		}
		c.conn = conn
	}
	c.nth++
	// What fails here tells less than what can be read: a close frame may have come.
	sendErr := c.conn.Write(ctx, websocket.MessageText, []byte(question))
	_, answer, err := c.conn.Read(ctx)
	if err != nil {
		return "", fmt.Errorf("%s: %w (sent: %v)", question, err, sendErr)
	}
	pid, echo, _ := strings.Cut(string(answer), " ")
	if echo != question {
		return "", fmt.Errorf("%s: answer %q", question, answer)
	}
	return pid, nil
}

// Every message is answered, and clients are told of the restarts.
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
	if told.Load() < restarts { // a process waits for its WebSockets
		t.Errorf("clients were told %d times, want %d at least", told.Load(), restarts)
	}
	s.Stop()
}
