package handoff

import (
	"bytes"
	"fmt"
	"maps"
	"net"
	"slices"
	"strings"
	"sync"
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
	Standby = "standby"
	Main    = "main"
	State   = "state"
	Take    = "take"
	Took    = "took"
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
type control struct {
	conn  *net.UnixConn
	takes bool   // descriptors may come with a message
	fds   []int  // those that came, in this order
	buf   []byte // what came after the last line

	mu    sync.Mutex // held while something is received
	heard heard
}

// newControl makes a control of the descriptor fd, which it takes over.
func newControl(fd int) (*control, error) {
	conn, err := controlConn(fd)
	if err != nil {
		return nil, fmt.Errorf("open control socket: %w", err)
	}
	return &control{conn: conn}, nil
}

// send writes a message. It fails when the other side has gone.
func (c *control) send(word string, args ...any) error {
	_, err := fmt.Fprintln(c.conn, append([]any{word}, args...)...) // one write
	return err
}

// receive calls f for each message, until end of file or until f returns false.
// What is no message of this protocol is given as a word that nobody knows.
func (c *control) receive(f func(Message) bool) {
	for {
		for {
			m, ok := c.message()
			if !ok {
				break
			}
			if !f(m) {
				return
			}
		}
		if len(c.buf) > maxLine {
			return
		}
		if !c.fill() {
			break
		}
	}
	if len(c.buf) != 0 { // a line without its end
		c.buf = append(c.buf, '\n')
		if m, ok := c.message(); ok {
			f(m)
		}
	}
}

// message takes the first line that has come.
func (c *control) message() (m Message, ok bool) {
	line, rest, ok := bytes.Cut(c.buf, []byte{'\n'})
	if !ok {
		return Message{}, false
	}
	c.buf = rest
	m.Word, m.Args, _ = strings.Cut(strings.TrimSuffix(string(line), "\r"), " ")
	return m, true
}

// fill waits for more. It returns false at the end of file.
func (c *control) fill() bool {
	awaitReadable(c.conn) // without mu
	c.mu.Lock()
	defer c.mu.Unlock()
	var p [4096]byte
	n, fds, err := receive(c.conn, p[:], c.takes)
	c.fds = append(c.fds, fds...)
	c.buf = append(c.buf, p[:n]...)
	c.heard.add(p[:n])
	return err == nil && n > 0
}

// come returns which messages Main and Leaving have come, with their arguments: also
// those that receive has not given yet, or not even read. gone is set if the other side
// has gone.
//
// If each side first says its own word and then asks, one of them at least learns what
// the other one has said.
func (c *control) come() (words map[string]string, gone bool) {
	c.mu.Lock()
	defer c.mu.Unlock()
	h := c.heard.clone()
	b, gone := peek(c.conn)
	h.add(b)
	return h.words, gone
}

// heard is what has come of the messages that tell who is the last.
type heard struct {
	words map[string]string // with their arguments
	line  []byte            // the beginning of a line whose end has not come
}

func (h *heard) clone() heard { return heard{maps.Clone(h.words), slices.Clone(h.line)} }

// add notes what has come.
func (h *heard) add(b []byte) {
	const most = 64 // these are short
	for len(b) != 0 {
		text, rest, ended := bytes.Cut(b, []byte{'\n'})
		h.line = append(h.line, text[:min(len(text), most-len(h.line))]...)
		if !ended {
			return
		}
		word, args, _ := strings.Cut(string(h.line), " ")
		if word == Main || word == Leaving {
			if h.words == nil {
				h.words = make(map[string]string)
			}
			h.words[word] = args
		}
		h.line, b = h.line[:0], rest
	}
}

func (c *control) close() {
	_ = c.conn.Close()
}

// closeFDs closes the descriptors that nobody has taken.
func (c *control) closeFDs() {
	for _, fd := range c.fds {
		closeFD(fd)
	}
	c.fds = nil
}
