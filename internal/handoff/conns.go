package handoff

import (
	"bytes"
	"fmt"
	"net"
	"slices"
	"strconv"
	"strings"
	"sync"
	"syscall"
)

// Connections that have been accepted go to the child over the control socket,
// if it wants those of their listener. This process keeps a connection until the
// child has said that it took it.

// TakeConns makes take get the connections that the parent has accepted on l and
// hands over, as many at once as have come. take must not block, and reports for each
// whether it takes it over. It must be called before Ready.
func (p *Process) TakeConns(l net.Listener, take func([]*Descriptor) (taken []bool)) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if s := p.find(l); s != nil {
		s.take = take
	}
}

// taking lists the positions of the sockets whose connections this process
// takes. mu is held.
func (p *Process) taking() []int {
	var positions []int
	for i, in := range p.inherited {
		if s := in.active; s != nil && s.take != nil && !s.closed {
			positions = append(positions, i)
		}
	}
	return positions
}

// takeConns answers a message Take: "ID POSITIONS", with one descriptor for each
// position.
func (p *Process) takeConns(c *control, args string) {
	id, list, _ := strings.Cut(args, " ")
	positions := parsePositions(list)
	fds := c.fds[:min(len(positions), len(c.fds))]
	c.fds = slices.Clone(c.fds[len(fds):])
	verdicts := bytes.Repeat([]byte{'0'}, len(positions))
	all := make([]Descriptor, len(fds))
	members := make(map[int][]int) // by position
	for i, fd := range fds {
		all[i].fd = fd
		members[positions[i]] = append(members[positions[i]], i)
	}
	if len(fds) == len(positions) { // otherwise which of them are missing is not known
		for position, members := range members {
			p.takeAt(position, members, all, verdicts)
		}
	}
	for i := range all {
		if verdicts[i] != '1' {
			all[i].Close()
		}
	}
	_ = c.send(Took, id, string(verdicts))
}

// takeAt offers members, which are of all, to what takes the connections of the socket at
// position, and marks those that it takes.
func (p *Process) takeAt(position int, members []int, all []Descriptor, verdicts []byte) {
	take := p.taker(position)
	if take == nil {
		return
	}
	offered := make([]*Descriptor, len(members))
	for i, member := range members {
		offered[i] = &all[member]
	}
	for i, taken := range take(offered) {
		if taken {
			verdicts[members[i]] = '1'
		}
	}
}

// taker returns what takes the connections of the socket at position i.
func (p *Process) taker(i int) func([]*Descriptor) []bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	if i < 0 || i >= len(p.inherited) || p.inherited[i].active == nil {
		return nil
	}
	return p.inherited[i].active.take
}

// Takes reports whether the child takes connections that were accepted on l.
func (c *Child) Takes(l net.Listener) bool { return c.position(l) >= 0 }

func (c *Child) position(l net.Listener) int {
	c.parent.mu.Lock()
	defer c.parent.mu.Unlock()
	if !c.holds || c.replaced != 0 {
		return -1
	}
	if !isKey(l) {
		return -1
	}
	i, ok := c.takes[l]
	if !ok {
		return -1
	}
	return i
}

// passer is the parent's side.
type passer struct {
	mu      sync.Mutex
	waiting []*passed
	sending bool
	id      int
	took    chan Message  // answers
	ended   chan struct{} // closed when there will be no more
}

type passed struct {
	conn     syscall.Conn
	position int
	taken    chan bool
	lead     chan struct{} // gets a value when this one sends the next message
}

// Pass hands conns, which were accepted on l, to the child, and reports for each whether
// the child has taken it. The caller then closes that one; otherwise nothing has changed.
// Once one is on its way there is no taking back: Pass waits for the answer, or for the
// end of the child. Calls from many goroutines go together.
func (c *Child) Pass(l net.Listener, conns ...syscall.Conn) (taken []bool) {
	taken = make([]bool, len(conns))
	position := c.position(l)
	if position < 0 || c.control == nil || len(conns) == 0 {
		return taken
	}
	p := &c.passer
	all := make([]*passed, len(conns))
	for i, conn := range conns {
		all[i] = &passed{conn, position, make(chan bool, 1), make(chan struct{}, 1)}
	}
	p.mu.Lock()
	p.waiting = append(p.waiting, all...)
	if !p.sending {
		p.sending = true
		all[0].lead <- struct{}{}
	}
	p.mu.Unlock()
	for i, req := range all { // they are sent in this order
		select {
		case taken[i] = <-req.taken:
		case <-req.lead:
			c.passBatch()
			taken[i] = <-req.taken
		}
	}
	return taken
}

// passBatch passes the first that wait, of which the caller is one, and makes the
// next one do the same.
func (c *Child) passBatch() {
	p := &c.passer
	p.mu.Lock()
	n := min(maxRights, len(p.waiting))
	now := p.waiting[:n]
	p.waiting = p.waiting[n:]
	p.mu.Unlock()
	c.pass(now)
	p.mu.Lock()
	defer p.mu.Unlock()
	if len(p.waiting) == 0 {
		p.sending = false
		p.waiting = nil
		return
	}
	p.waiting[0].lead <- struct{}{}
}

// pass sends one message and waits for the answer.
func (c *Child) pass(now []*passed) {
	conns := make([]syscall.Conn, len(now))
	for i, req := range now {
		conns[i] = req.conn
	}
	p := &c.passer
	p.id++
	id := strconv.Itoa(p.id)
	var err error
	var sent []*passed
	withFDs(conns, func(all []int) {
		var fds []int
		var positions []string
		for i, req := range now {
			if all[i] < 0 {
				req.taken <- false
				continue
			}
			sent, fds, positions = append(sent, req), append(fds, all[i]), append(positions, strconv.Itoa(req.position))
		}
		if len(sent) != 0 {
			err = sendRights(c.control.conn, fmt.Sprintf("%s %s %s\n", Take, id, strings.Join(positions, ",")), fds)
		}
	})
	verdicts := ""
	if len(sent) != 0 && err == nil {
		verdicts = p.await(id)
	}
	for i, req := range sent {
		req.taken <- i < len(verdicts) && verdicts[i] == '1'
	}
}

// withFDs calls f with the descriptors of conns, none of which is closed before f
// returns: its number may be that of another file then. One that is closed already is -1.
func withFDs(conns []syscall.Conn, f func([]int)) {
	fds := make([]int, len(conns))
	var from func(int)
	from = func(i int) {
		if i == len(conns) {
			f(fds)
			return
		}
		fds[i] = -1
		if raw, err := conns[i].SyscallConn(); err == nil {
			_ = raw.Control(func(fd uintptr) {
				fds[i] = int(fd)
				from(i + 1)
			})
		}
		if fds[i] < 0 {
			from(i + 1)
		}
	}
	from(0)
}

// await waits for the answer to the message id.
func (p *passer) await(id string) (verdicts string) {
	for {
		var m Message
		select {
		case m = <-p.took:
		case <-p.ended:
			select {
			case m = <-p.took: // just before
			default:
				return ""
			}
		}
		if got, verdicts, _ := strings.Cut(m.Args, " "); got == id {
			return verdicts
		}
	}
}

// answer gives what the child says to ask. One that nobody waits for makes room
// for the next.
func (p *passer) answer(m Message) {
	for {
		select {
		case p.took <- m:
			return
		default:
		}
		select {
		case <-p.took:
		default:
		}
	}
}

// parsePositions reads a list as it stands in messages. What is no number is -1.
func parsePositions(list string) []int {
	if list == "" {
		return nil
	}
	var positions []int
	for s := range strings.SplitSeq(list, ",") {
		i, err := strconv.Atoi(s)
		if err != nil || i < 0 {
			i = -1
		}
		positions = append(positions, i)
	}
	return positions
}

func joinPositions(positions []int) string {
	s := make([]string, len(positions))
	for i, n := range positions {
		s[i] = strconv.Itoa(n)
	}
	return strings.Join(s, ",")
}
