package handoff

import (
	"encoding/base64"
	"net"
	"strings"
	"time"
)

// What a process knows about a socket and its child must know too. It goes over
// the control socket alone, since it may be secret.

// SetState makes state be asked at each start of a child for what to pass along
// with l: some kilobytes at most. An empty string passes nothing.
func (p *Process) SetState(l net.Listener, state func() string) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if s := p.find(l); s != nil {
		s.state = state
	}
}

// stateTimeout is how long a parent that has announced a state may take to send
// it.
const stateTimeout = 5 * time.Second

// State returns what the parent has passed along with l, or "". It must be called
// before Ready.
func (p *Process) State(l net.Listener) string {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.awaitStates()
	if s := p.find(l); s != nil {
		return s.passed
	}
	return ""
}

// awaitStates reads the messages State. mu is held.
func (p *Process) awaitStates() {
	if p.control == nil || p.ready || p.states == 0 {
		return
	}
	_ = p.control.conn.SetReadDeadline(time.Now().Add(stateTimeout))
	for p.states > 0 {
		m, ok := p.control.message()
		if !ok {
			if !p.control.fill() {
				p.states = 0
			}
			continue
		}
		p.states--
		position, text, _ := strings.Cut(m.Args, " ")
		state, err := base64.StdEncoding.DecodeString(text)
		if i := parsePositions(position); m.Word == State && err == nil && len(i) == 1 && i[0] >= 0 && i[0] < len(p.inherited) {
			in := p.inherited[i[0]]
			if in.state = string(state); in.active != nil {
				in.active.passed = in.state
			}
		}
	}
	_ = p.control.conn.SetReadDeadline(time.Time{})
}

// states asks for the states of the sockets that are passed to a child. The
// messages are sent when it runs.
func (c *Child) states() (messages []string) {
	c.parent.mu.Lock()
	asked := make([]func() string, len(c.sockets))
	for i, s := range c.sockets {
		asked[i] = s.state
	}
	c.parent.mu.Unlock()
	for i, state := range asked {
		if state == nil {
			continue
		}
		if state := state(); state != "" {
			messages = append(messages, joinPositions([]int{i})+" "+base64.StdEncoding.EncodeToString([]byte(state)))
		}
	}
	return messages
}
