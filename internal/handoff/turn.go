package handoff

import "time"

// Two processes must not read one datagram socket at the same time: each would get
// packets that are for the other. The child waits until the parent has stopped.

// standbyTimeout is how long a parent that is told "ready" may take to stand by. It is
// longer than it waits for those that accept. Tests change it.
var standbyTimeout = 5 * time.Second

// Turn returns a channel that is closed when no process before this one reads the
// datagram socket l: at once if there is none that has it.
func (p *Process) Turn(l any) <-chan struct{} {
	p.mu.Lock()
	defer p.mu.Unlock()
	s := p.find(l)
	if p.turned || s == nil || s.made || !p.origin.Handover() {
		turn := make(chan struct{})
		close(turn)
		return turn
	}
	if p.turn == nil {
		p.turn = make(chan struct{})
	}
	return p.turn
}

// myTurn notes that the parent does not read any more. mu is held.
func (p *Process) myTurn() {
	if !p.turned && p.turn != nil {
		close(p.turn)
	}
	p.turned = true
}

func (p *Process) mayRead() {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.myTurn()
}
