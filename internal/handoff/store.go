package handoff

import (
	"fmt"
	"strconv"
	"strings"
	"syscall"
)

// Sockets that the service manager keeps for us, as FDSTORE=1 of sd_notify(3)
// describes. It gives them back like any other, with the name that they were kept
// under: "grace", the network, "+" and the place in what Inherit returns if they
// belong to that, "=" and which one it is of those that were asked for in the same words
// if it is not the first, and the name that they would have in a handover. The order in
// which they come back is not the one in which they were given.
//
//	grace.tcp.127.0.0.1%3A8080
//	grace.tcp+0.%3A8080
//	grace.udp=1.%3A0

const storePrefix = "grace."

// maxStoreName is the limit of FDNAME.
const maxStoreName = 255

func storeName(network, name string, listed bool, order, nth int) string {
	s := storePrefix + network
	if listed {
		s += "+" + strconv.Itoa(order)
	}
	if nth != 0 {
		s += "=" + strconv.Itoa(nth)
	}
	if s += "."; len(s)+len(name) <= maxStoreName {
		s += name // or else it is found by its address
	}
	return s
}

// fromStore makes in what it was when it was kept, if its name is one of ours.
func (in *inherited) fromStore() {
	rest, ok := strings.CutPrefix(in.name, storePrefix)
	if !ok {
		return
	}
	network, name, ok := strings.Cut(rest, ".")
	if !ok {
		return
	}
	in.stored = in.name
	network, nth, _ := strings.Cut(network, "=")
	in.nth, _ = strconv.Atoi(nth)
	network, order, listed := strings.Cut(network, "+")
	in.name, in.network, in.foreign = name, networkName(network), false
	if n, err := strconv.Atoi(order); listed && err == nil {
		in.listed, in.order = true, n
	}
}

// words counts the sockets that were asked for in the same words.
type words map[string]int

// count returns how many there were before s.
func (w words) count(s *socket) (nth int) {
	key := s.network + " " + s.name
	nth = w[key]
	w[key]++
	return nth
}

// A Kept socket is one that the service manager shall keep.
type Kept struct {
	Name string
	conn syscall.Conn
}

// Send calls send with the descriptor of the socket.
func (k Kept) Send(send func(fd int) error) error {
	fd, err := dup(k.conn)
	if err != nil {
		return fmt.Errorf("keep socket %s: %w", k.Name, err)
	}
	defer closeFD(fd)
	return send(fd)
}

// Store lists what the service manager shall keep, and the names of what it shall
// not keep any more since nobody has asked for it. What it has made itself it
// keeps anyway. Sockets with a path are left out: the path goes when this process
// stops, and stays when it crashes, and would be in the way of the next one or
// missing.
func (p *Process) Store() (keep []Kept, drop []string) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.prune()
	order := 0
	same := make(words)
	for _, s := range p.active {
		if s.kind == kindFile || s.foreign || hasPath(s.addr()) {
			continue
		}
		keep = append(keep, Kept{storeName(s.network, s.name, s.listed, order, same.count(s)), s.conn})
		if s.listed {
			order++
		}
	}
	same = make(words)
	for _, in := range p.inherited {
		nth := same.count(&in.socket)
		if in.active == nil && in.taken && !in.foreign && in.kind != kindFile {
			name := in.stored
			if name == "" {
				name = storeName(in.network, in.name, false, 0, nth)
			}
			drop = append(drop, name)
		}
	}
	return keep, drop
}
