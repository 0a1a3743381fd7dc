package handoff

import (
	"fmt"
	"net"
	"os"
	"slices"
	"strconv"
	"syscall"

	"github.com/coreos/go-systemd/v22/activation"
)

// What this process was passed, and by whom.

// inherited is a socket, or another file, that was passed to this process.
type inherited struct {
	socket
	fd    int
	id    fileID
	file  *os.File // on fd; kept, since its finalizer would close a number that others may use
	addr  net.Addr // nil if it is no socket that package net serves, or not asked for yet
	taken bool

	active *socket // what became of it when it was taken
	state  string  // what the parent knew about it
	stored string  // name under which the service manager has kept it for us
	order  int     // its place in what TakeAll returns, if the manager has kept it
	nth    int     // its place among those that were asked for in the same words
}

// claim takes over what the environment announces. It does so when the package
// is initialised, before the program can open descriptors of its own, and looks
// again when the program has changed LISTEN_FDS since, unless that was settled. mu is
// held, or nobody else is there yet.
func (p *Process) claim() {
	fds := os.Getenv(envFDs)
	_, marked := os.LookupEnv(envHandover)
	if fds == p.claimed && !marked || len(p.inherited) != 0 || p.origin == Parent {
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
	if p.origin.Handover() {
		p.gen, p.since = max(m.gen, 2), m.since
		p.sole = false
	}
	if p.origin == Legacy { // which passes on the names that it was passed
		clear(names)
	}
	for i, file := range files {
		in := &inherited{fd: at(i), file: file}
		in.name = names[i]
		// A parent with the original protocol made the socket itself, unless a
		// stale LISTEN_PID or marker says that it was given one.
		in.foreign = p.origin != Legacy || pid != "" || slices.ContainsFunc(m.sockets, func(s meta) bool { return s.foreign })
		if marked && len(m.sockets) == n {
			s := m.sockets[i]
			in.network, in.foreign, in.listed = s.network, s.foreign, s.listed
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
		in.name, in.network, in.foreign, in.pathID = extra.name, extra.network, extra.foreign, extra.path
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
