package handoff

import (
	"fmt"
	"os"
	"strings"
	"time"
)

// What a child says to its parent, and hears from it.

// Ready says to the parent that this process serves. Sockets that nobody has
// asked for are closed. Only the first call does anything, and says so.
func (p *Process) Ready() (first bool, err error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.claim()
	if p.ready {
		return false, nil
	}
	p.ready = true
	if p.tapped != nil {
		p.tapped.release()
		p.tapped = nil
	}
	var unused []int
	for i, in := range p.inherited {
		if !in.taken && in.available() {
			if a := p.pathOf(in); a.Name != "" {
				p.unused = append(p.unused, a)
			}
			_ = in.file.Close()
			unused = append(unused, i)
		}
		in.taken = true
	}
	p.untaken = 0
	p.dropLinks()
	switch {
	case p.control != nil:
		if err := p.control.send(Ready, readyArgs(unused, p.taking())); err == nil {
			if p.hasten {
				_ = p.control.send(Hasten)
			}
			if p.told {
				time.AfterFunc(standbyTimeout, p.mayRead)
			} else {
				p.myTurn()
			}
			go p.watchParent() // ends with the parent
			return true, nil
		}
		p.control.close() // the parent has gone
		p.control = nil
		p.relieve(false)
		go removeAbandoned(p.unusedPaths()) // ends within seconds
		if p.comeback {
			go p.reapInterim() // ends with the process that has gone
		}
	case p.origin.Handover(): // the parent is not told what is unused
		for _, a := range p.unusedPaths() {
			_ = os.Remove(a.Name)
		}
		if err := terminateParent(p.ppid); err != nil {
			return true, fmt.Errorf("failed to close parent: %w", err)
		}
	}
	p.myTurn()
	p.alone()
	return true, nil
}

// readyArgs tells the positions of sockets that this process closed unused, and of
// those whose connections it takes.
func readyArgs(unused, takes []int) string {
	var args []string
	if len(unused) != 0 {
		args = append(args, "unused="+joinPositions(unused))
	}
	if len(takes) != 0 {
		args = append(args, "takes="+joinPositions(takes))
	}
	return strings.Join(args, " ")
}

func parseReady(args string) (unused, takes []int) {
	for arg := range strings.FieldsSeq(args) {
		key, list, _ := strings.Cut(arg, "=")
		switch key {
		case "unused":
			unused = parsePositions(list)
		case "takes":
			takes = parsePositions(list)
		}
	}
	return unused, takes
}

// Fail tells the parent why this process can't serve, if it has not said that it
// does. The first reason is the one that counts.
func (p *Process) Fail(why error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.control != nil && !p.ready && !p.failed {
		p.failed = true
		_ = p.control.send(Failed, strings.Join(strings.Fields(why.Error()), " "))
	}
}

// watchParent waits until the parent ends its standby or is gone.
func (p *Process) watchParent() {
	c := p.control
	c.receive(func(m Message) bool {
		switch m.Word {
		case Standby:
			p.mayRead()
		case Main:
			p.mu.Lock()
			p.myTurn()
			p.alone()
			p.mu.Unlock()
		case Leaving: // so does what has served in the interim, and takes nothing back
			p.mu.Lock()
			p.alone()
			p.mu.Unlock()
		case Take:
			p.takeConns(c, m.Args)
		case Ready:
			p.mu.Lock()
			p.relieve(true)
			p.mu.Unlock()
		}
		return true
	})
	p.mu.Lock()
	p.relieve(false)
	c.close()
	c.closeFDs()
	p.control = nil
	p.myTurn()
	p.alone()
	unused, comeback := p.unusedPaths(), p.comeback
	p.mu.Unlock()
	removeAbandoned(unused)
	if comeback {
		p.reapInterim()
	}
}

// Leave says to a parent on standby that this process is about to go, so that it
// does not take the sockets back: heir serves them now, or nobody if heir is nil.
func (p *Process) Leave(heir *Child) {
	why := []any{LeavingStop}
	if heir != nil {
		why = []any{LeavingHandover, heir.MainPID()}
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.control == nil || !p.ready {
		return
	}
	// The parent may have ended the standby. Who closes the sockets now must know.
	if err := p.control.send(Leaving, why...); err != nil {
		p.alone()
	}
	p.listen()
}

// listen notes that this process is on its own if that has come, though watchParent has
// not got to it. mu is held.
func (p *Process) listen() {
	if p.control == nil || !p.ready || p.sole {
		return
	}
	if words, gone := p.control.come(); gone || len(words) != 0 {
		p.alone()
	}
}
