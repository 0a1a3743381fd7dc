package handoff

import (
	"fmt"
	"io"
	"net"
	"os"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"time"

	"github.com/coreos/go-systemd/v22/activation"
)

// inherited is a socket, or another file, that was passed to this process.
type inherited struct {
	Socket
	fd    int
	id    fileID
	file  *os.File // on fd; kept, since its finalizer would close a number that others may use
	addr  net.Addr // nil if it is no socket that package net serves, or not asked for yet
	taken bool

	socket *Socket // what became of it when it was taken
	state  string  // what the parent knew about it
	stored string  // name under which the service manager has kept it for us
	order  int     // its place in what TakeAll returns, if the manager has kept it
	nth    int     // its place among those that were asked for in the same words
}

// claim takes over what the environment announces. It does so when the package
// is initialised, before the program can open descriptors of its own, and looks
// again when the program has changed LISTEN_FDS since. mu is held, or nobody
// else is there yet.
func (p *Process) claim() {
	fds := os.Getenv(envFDs)
	_, marked := os.LookupEnv(envHandover)
	if fds == p.claimed && !marked || len(p.inherited) != 0 {
		return
	}
	p.claimed, p.origin, p.err, p.byName, p.byAddr = fds, Fresh, nil, nil, nil
	m, marked := p.claimMarker()
	n, err := parseCount(fds, fdLimit())
	if fds == "" {
		return
	}
	if err != nil {
		p.err = err
		return
	}
	pid := os.Getenv(envPID)
	ours := pid == strconv.Itoa(os.Getpid())
	at := func(i int) int { return firstFD + i }
	if m.comeback && len(m.fds) == n {
		at = func(i int) int { return m.fds[i] }
	}
	names := splitNames(os.Getenv(envNames), n)
	if m.table != 0 {
		names = splitNames(m.names, n)
	}
	// Whoever names what it passes to us knows that it is no listening socket.
	mayBeFile := func(i int) bool { return ours && !marked && names[i] != "" && names[i] != unnamed }
	// What our own parent passes along with a control socket does listen; asking the
	// kernel again is what takes time where there are thousands.
	proven := marked && m.control != 0 && len(m.sockets) == n
	sockets, passed, err := checkPassed(n, at, proven, mayBeFile)
	switch {
	case passed == 0 && !marked && (n == 0 || !ours):
		return // nothing, or meant for another process
	case err != nil:
		p.err = err
		return
	}
	files := make([]*os.File, n)
	if m.comeback {
		// Who else reads these variables must not take what is at firstFD.
		_ = os.Setenv(envPID, strconv.Itoa(m.parent))
		p.interim, p.comeback, p.again = false, true, m.again
		for i := range files {
			setCloseOnExec(at(i))
			files[i] = os.NewFile(uintptr(at(i)), "inherited")
		}
	} else {
		_ = os.Setenv(envPID, strconv.Itoa(os.Getpid()))
		copy(files, activation.Files(false))
	}
	switch {
	case marked:
		p.origin = Parent
	case !ours && isGrace(p.ppid):
		p.origin = Legacy
	default:
		p.origin = Manager
	}
	if p.origin == Parent || p.origin == Legacy {
		p.gen, p.since = max(m.gen, 2), m.since
		p.sole = false
	}
	if p.origin == Legacy { // which passes on the names that it was passed
		clear(names)
	}
	for i, file := range files {
		in := &inherited{fd: at(i), file: file}
		in.Name = names[i]
		// A parent with the original protocol made the socket itself, unless a
		// stale LISTEN_PID or marker says that it was given one.
		in.Foreign = p.origin != Legacy || pid != "" || slices.ContainsFunc(m.sockets, func(s meta) bool { return s.foreign })
		if marked && len(m.sockets) == n {
			s := m.sockets[i]
			in.Network, in.Foreign, in.listed = s.network, s.foreign, s.listed
		}
		if p.origin == Manager {
			in.fromStore()
		}
		p.own(in, sockets[i])
	}
	var links []meta
	for _, extra := range m.extras {
		if id, err := identify(extra.fd); err != nil || id.ino != extra.inode || !passedTo(extra.fd) {
			if marked && !extra.link { // or else what was between our parent and us has closed it
				p.err = inheritError(extra.fd, syscall.EBADF)
			}
			continue
		}
		if extra.link {
			links = append(links, extra)
			continue
		}
		in := &inherited{fd: extra.fd, file: os.NewFile(uintptr(extra.fd), extra.name)}
		in.Name, in.Network, in.Foreign, in.pathID = extra.name, extra.network, extra.foreign, extra.path
		socket := notSocket
		if !extra.file {
			socket, _ = checkSocket(extra.fd)
		}
		setCloseOnExec(extra.fd)
		p.own(in, socket)
	}
	if p.origin == Manager { // which gives back what it has kept in any order
		slices.SortStableFunc(p.inherited, func(a, b *inherited) int { return a.nth - b.nth })
	}
	p.untaken = len(p.inherited)
	if marked {
		p.claimLinks(links)
	} else {
		closeLinks(links) // our parent does not know of them
	}
}

// unnamed is the name that sd_listen_fds_with_names(3) has for what has none.
const unnamed = "unknown"

// own makes in one of what this process has inherited. It is close-on-exec already.
// mu is held, or nobody else is there yet.
func (p *Process) own(in *inherited, socket sockType) {
	switch {
	case socket == notSocket:
		in.kind = kindFile // in the mode that it has: others may use it
	case socket.isDatagram():
		in.kind = kindDatagram
	}
	// A parent with this package has it non-blocking, and it is made so again when it
	// is taken.
	if p.origin != Parent && in.kind != kindFile {
		if err := nonblock(in.fd); err != nil {
			p.err = inheritError(in.fd, err)
		}
	}
	in.id, _ = identify(in.fd)
	p.inherited = append(p.inherited, in)
}

// claimMarker removes the marker of a handover from the environment and says
// hello if it comes with a control socket.
func (p *Process) claimMarker() (marker, bool) {
	value, ok := os.LookupEnv(envHandover)
	if !ok {
		return marker{}, false
	}
	_ = os.Unsetenv(envHandover)
	m, err := parseMarker(value)
	if err != nil {
		return marker{}, false
	}
	// A marker that was meant for another process names a descriptor that here
	// is closed, or something else.
	if m.control != 0 {
		id, err := identify(m.control)
		if err != nil || id.ino != m.inode || !passedTo(m.control) {
			return marker{}, false
		}
	}
	if m.table != 0 {
		text, err := readTable(m.table, m.tableInode)
		if err == nil {
			err = m.readTable(text)
		}
		if err != nil {
			m.sockets, m.extras = nil, nil // those that listen are found by their addresses
		}
	}
	// A child with the original protocol knows neither variable nor descriptors,
	// and has passed all of it on to us. It is the one that waits for our signal,
	// and has no use for the extras. A wrapper script between our parent and us is no
	// such process.
	if m.parent != p.ppid && isGrace(p.ppid) {
		if m.control != 0 {
			closeFD(m.control)
			m.tap.close()
		}
		return marker{sockets: m.sockets, extras: m.extras}, false
	}
	if m.control != 0 {
		if p.control, err = newControl(m.control); err == nil {
			p.control.takes = true
			p.tapped = newTapped(m.tap, p.control)
			_ = p.control.send(Hello, version, os.Getpid())
			p.states = m.states
		} else {
			m.tap.close()
		}
	}
	p.ppid = m.parent
	p.interim = m.interim && p.control != nil
	p.told = m.standby && p.control != nil
	return m, true
}

// checkPassed tells how many of n announced descriptors were passed to this
// process, which sockets they are, and what is wrong with the first that is not as it
// should be.
func checkPassed(n int, at func(int) int, proven bool, mayBeFile func(int) bool) (sockets []sockType, passed int, err error) {
	sockets = make([]sockType, n)
	for i := range n {
		fd := at(i)
		var fdErr error = syscall.EBADF
		if passedTo(fd) {
			passed++
			if proven {
				sockets[i] = streamSocket
				continue
			}
			if sockets[i], fdErr = checkSocket(fd); fdErr != nil && mayBeFile(i) {
				fdErr = nil
			}
		}
		if fdErr != nil && err == nil {
			err = inheritError(fd, fdErr)
		}
	}
	return sockets, passed, err
}

func inheritError(fd int, err error) error {
	return fmt.Errorf("error inheriting socket fd %d: %w", fd, err)
}

// Err returns what is wrong with what was passed to this process.
func (p *Process) Err() error {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.claim()
	return p.err
}

// Take returns the inherited listener for what is asked, or nil if there is
// none. It is given away once, and from then on it is passed on.
func (p *Process) Take(network, asked string, addr net.Addr) (net.Listener, error) {
	c, err := p.takeFor(kindListener, askedKeys(network, asked, addr), renamed(network, asked))
	l, _ := c.(net.Listener)
	return l, err
}

// renamed makes a socket one that was asked for in these words, if it has no name of a
// service manager.
func renamed(network, asked string) func(*Socket) {
	return func(s *Socket) {
		if !s.Foreign {
			s.Name, s.Network = escapeName(asked), network
		}
	}
}

// TakePacket is Take for a datagram socket.
func (p *Process) TakePacket(network, asked string, addr net.Addr) (net.PacketConn, error) {
	c, err := p.takeFor(kindDatagram, askedKeys(network, asked, addr), renamed(network, asked))
	l, _ := c.(net.PacketConn)
	return l, err
}

// TakeNamed returns the next inherited listener that has this name, or nil.
func (p *Process) TakeNamed(name string) (net.Listener, error) {
	c, err := p.takeFor(kindListener, nameKeys(name), nil)
	l, _ := c.(net.Listener)
	return l, err
}

// TakePacketNamed is TakeNamed for a datagram socket.
func (p *Process) TakePacketNamed(name string) (net.PacketConn, error) {
	c, err := p.takeFor(kindDatagram, nameKeys(name), nil)
	l, _ := c.(net.PacketConn)
	return l, err
}

// TakeFile returns the next inherited file that has this name, or nil.
func (p *Process) TakeFile(name string) (*os.File, error) {
	c, err := p.takeFor(kindFile, nameKeys(name), nil)
	f, _ := c.(*os.File)
	return f, err
}

// nameKeys are the keys for a name, as it is or as an address is made one.
func nameKeys(name string) []string {
	return []string{namedKey(name), namedKey(escapeName(name))}
}

// takeFor takes the first that is found under the keys, or returns nil.
func (p *Process) takeFor(k kind, keys []string, rename func(*Socket)) (any, error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.claim()
	if p.byName == nil {
		p.byName = make(map[string][]*inherited, len(p.inherited))
		for _, in := range p.inherited {
			for _, key := range in.names() {
				p.byName[key] = append(p.byName[key], in)
			}
		}
	}
	for _, key := range keys {
		index := p.byName
		if strings.HasPrefix(key, boundPrefix) {
			index = p.indexAddresses()
		}
		found := index[key]
		for i, in := range found {
			if in.kind == k && in.available() {
				if i == 0 {
					index[key] = found[1:] // or a group of sockets costs the square of it
				}
				return p.take(in, rename)
			}
		}
	}
	return nil, nil
}

// indexAddresses finds out the addresses of what is left: nothing was found by what
// was asked for. mu is held.
func (p *Process) indexAddresses() map[string][]*inherited {
	if p.byAddr == nil {
		p.byAddr = make(map[string][]*inherited)
		for _, in := range p.inherited {
			if in.kind == kindFile || in.taken {
				continue
			}
			if typ, err := checkSocket(in.fd); err == nil {
				in.addr = socketAddr(in.fd, typ)
			}
			key := in.address()
			p.byAddr[key] = append(p.byAddr[key], in)
		}
	}
	return p.byAddr
}

// maxNames is how many names an error lists.
const maxNames = 20

// Names lists the names of what is still to be asked for, each once, and says what they
// are if that is not a listener. Where there are many it lists the first.
func (p *Process) Names() []string {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.claim()
	var names []string
	for _, in := range p.inherited {
		name := in.Name + in.kind.note()
		if in.Name == "" || !in.available() || slices.Contains(names, name) {
			continue
		}
		if len(names) == maxNames {
			return append(names, "...")
		}
		names = append(names, name)
	}
	return names
}

// TakeAll returns the inherited listeners that were passed by Process.Wait or
// Process.Restart, in that order; all that there are, if the parent told nothing
// about them.
func (p *Process) TakeAll() ([]net.Listener, error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.claim()
	var all, listed []*inherited
	for _, in := range p.inherited {
		if in.kind == kindListener && in.available() {
			all = append(all, in)
			if in.listed {
				listed = append(listed, in)
			}
		}
	}
	if len(listed) != 0 {
		slices.SortStableFunc(listed, func(a, b *inherited) int { return a.order - b.order })
		all = listed
	}
	var ls []net.Listener
	for _, in := range all {
		c, err := p.take(in, nil)
		if err != nil {
			for _, l := range ls {
				_ = l.Close()
			}
			return nil, err
		}
		ls = append(ls, c.(net.Listener))
	}
	return ls, nil
}

// available reports whether in is still to be had: not taken through us, nor by
// other code of this process that reads LISTEN_FDS.
func (in *inherited) available() bool {
	if in.taken {
		return false
	}
	id, err := identify(in.fd)
	return err == nil && id == in.id
}

// taken is what every inherited file is opened as.
type taken interface {
	syscall.Conn
	io.Closer
}

// take opens in: a net.Listener, a net.PacketConn or an *os.File. mu is held.
func (p *Process) take(in *inherited, rename func(*Socket)) (c taken, err error) {
	in.taken = true
	p.untaken--
	switch in.kind { // each duplicates the descriptor
	case kindListener:
		var l net.Listener
		if l, err = net.FileListener(in.file); err == nil {
			c = l.(taken)
		}
	case kindDatagram:
		var l net.PacketConn
		if l, err = net.FilePacketConn(in.file); err == nil {
			c = l.(taken)
		}
	default:
		var fd int
		if fd, err = dup(in.file); err == nil {
			c = os.NewFile(uintptr(fd), in.Name)
		}
	}
	_ = in.file.Close()
	if err != nil {
		return nil, inheritError(in.fd, err)
	}
	s := in.Socket
	if rename != nil {
		rename(&s)
	}
	s.conn, s.passed = c, in.state
	in.socket = &s
	p.add(&s)
	p.wakeClaimed()
	return c, nil
}

// Claimed is closed when every inherited socket has been asked for.
func (p *Process) Claimed() <-chan struct{} {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.claim()
	c := make(chan struct{})
	p.waiting = append(p.waiting, c)
	p.wakeClaimed()
	return c
}

// wakeClaimed closes the channels of Claimed if nothing is left. mu is held.
func (p *Process) wakeClaimed() {
	if p.untaken > 0 {
		return
	}
	for _, c := range p.waiting {
		close(c)
	}
	p.waiting = nil
}

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
		p.removeUnused()
		if p.comeback {
			go p.reapInterim() // ends with the process that has gone
		}
	case p.origin == Parent || p.origin == Legacy: // which is not told what is unused
		for _, a := range p.unused {
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

// pathOf is the address of a unix socket with a path that this family of processes
// has made, or the zero value. mu is held.
func (p *Process) pathOf(in *inherited) (none net.UnixAddr) {
	if in.kind == kindFile || in.Foreign {
		return none
	}
	typ, err := checkSocket(in.fd)
	if err != nil {
		return none
	}
	addr, ok := socketAddr(in.fd, typ).(*net.UnixAddr)
	if !ok || !hasPath(addr) {
		return none
	}
	addr.Name = p.absolute(addr.Name)
	if id, ok := socketAt(addr.Name); !ok || in.kind == kindDatagram && id != in.pathID {
		return none // by now something else is there
	}
	return *addr
}

// removeUnused removes the paths of sockets that nobody here has asked for, when the
// parent has gone. It has removed them itself, unless it was killed or did not learn
// of it. mu is held.
func (p *Process) removeUnused() {
	for _, a := range p.unused {
		if abandoned(a) {
			_ = os.Remove(a.Name)
		}
	}
	p.unused = nil
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
			p.relieve(true)
		}
		return true
	})
	p.relieve(false)
	p.mu.Lock()
	c.close()
	c.closeFDs()
	p.control = nil
	p.myTurn()
	p.alone()
	p.removeUnused()
	comeback := p.comeback
	p.mu.Unlock()
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
	// That the standby is over may not have been read yet. Who closes the
	// sockets now must know.
	if err := p.control.send(Leaving, why...); err != nil || readable(p.control.conn) {
		p.alone()
	}
}
