package handoff

import (
	"bufio"
	"fmt"
	"net"
	"strings"
)

// version is the version of the protocol that hello announces. A later one only
// adds to it.
const version = 1

// Words that go over the control socket.
const (
	Hello   = "hello"
	Failed  = "failed"
	Ready   = "ready"
	Hasten  = "hasten"
	Leaving = "leaving"
	Main    = "main"
)

// What a child says when it leaves.
const (
	LeavingStop     = "stop"
	LeavingHandover = "handover"
)

// maxLine bounds a message: positions of as many sockets as a process can have.
const maxLine = 1 << 20

// Message is one line from the other side: a word and the rest.
type Message struct{ Word, Args string }

// control is one end of the control socket.
type control struct{ conn *net.UnixConn }

// newControl makes a control of the descriptor fd, which it takes over.
func newControl(fd int) (*control, error) {
	conn, err := controlConn(fd)
	if err != nil {
		return nil, fmt.Errorf("open control socket: %w", err)
	}
	return &control{conn}, nil
}

// send writes a message. It fails when the other side has gone.
func (c *control) send(word string, args ...any) error {
	_, err := fmt.Fprintln(c.conn, append([]any{word}, args...)...) // one write
	return err
}

// receive calls f for each message, until end of file or until f returns false.
// What is no message of this protocol is given as a word that nobody knows.
func (c *control) receive(f func(Message) bool) {
	lines := bufio.NewScanner(c.conn)
	lines.Buffer(nil, maxLine)
	for lines.Scan() {
		word, args, _ := strings.Cut(lines.Text(), " ")
		if !f(Message{word, args}) {
			return
		}
	}
}

func (c *control) close() { _ = c.conn.Close() }
