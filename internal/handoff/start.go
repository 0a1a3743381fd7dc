package handoff

import (
	"cmp"
	"errors"
	"fmt"
	"io/fs"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"syscall"
)

// How a child is started.

// Options say what a child is started for.
type Options struct {
	Control bool // offer the control socket; a child without one says "ready" by SIGTERM
	Interim bool // the child serves until this process has executed the program anew
	Stderr  bool // listen to its standard error until it is ready, if that can be done
}

// Start starts the program anew: os.Args looked up again, in the directory where
// this process was started, with the environment as it is, the standard
// descriptors, and all sockets that are still open.
//
// Nothing is left open or running when it fails.
func (p *Process) Start(o Options) (*Child, error) {
	if len(os.Args) == 0 {
		return nil, errors.New("start new process: os.Args is empty")
	}
	argv0, err := p.lookPath(os.Args[0])
	if err != nil {
		return nil, fmt.Errorf("start new process: %w", err)
	}
	p.mu.Lock()
	p.prune()
	c := &Child{
		parent:   p,
		sockets:  slices.Clone(p.active),
		passer:   passer{took: make(chan Message, 1), ended: make(chan struct{})},
		discard:  make(chan struct{}),
		messages: make(chan Message),
		closed:   make(chan struct{}),
		exited:   make(chan struct{}),
	}
	p.mu.Unlock()
	if err := c.start(argv0, o); err != nil {
		c.closeControl()
		if c.tap != nil {
			c.tap.close()
		}
		return nil, err
	}
	go c.wait() // ends with the child, or with this process
	return c, nil
}

// StartAlone starts a child without a control socket, which nobody watches: it
// says "ready" by SIGTERM, and lives on if this process exits right away. It is
// reaped.
func (p *Process) StartAlone() (pid int, err error) {
	c, err := p.Start(Options{})
	if err != nil {
		return 0, err
	}
	c.Hold("")
	return c.pid, nil
}

func (c *Child) start(argv0 string, o Options) error {
	p := &parcel{
		marker: marker{parent: os.Getpid(), gen: c.parent.Generation() + 1, interim: o.Interim, since: max(c.parent.born.Unix(), 0)},
		files:  []int{stdFD(os.Stdin), stdFD(os.Stdout), stdFD(os.Stderr)},
	}
	defer p.close()
	if err := c.pack(p, o); err != nil {
		return fmt.Errorf("start new process: %w", err)
	}
	// One that serves in the interim, or that says nothing, must be ours to reap.
	asSibling := o.Control && !o.Interim && underManager()
	pid, sibling, err := forkExec(argv0, os.Args, c.parent.dir, childEnv(os.Environ(), p.names, p.marker), p.files, asSibling)
	if err != nil {
		return fmt.Errorf("start new process: %w", startError(argv0, c.parent.dir, err))
	}
	c.pid, c.sibling = pid, sibling
	// The child is not yet waited for, so that the pid is its own.
	if c.process, err = os.FindProcess(pid); err != nil {
		return fmt.Errorf("start new process: %w", err)
	}
	for i := range p.links {
		p.links[i].begin()
	}
	if c.tap != nil {
		c.tap.start()
	}
	if c.control != nil {
		c.listen(p.states)
	}
	return nil
}

// listen begins to read what the child says, and tells it the states.
func (c *Child) listen(states []string) {
	c.reader.Add(2)
	go func() {
		defer c.reader.Done()
		c.read()
	}()
	go func() { // a child that does not read must not hold us up
		defer c.reader.Done()
		for _, s := range states {
			_ = c.control.send(State, s)
		}
	}()
}

// A parcel is what a child is given, and what its environment says of that.
type parcel struct {
	marker
	names  []string // as they stand in LISTEN_FDNAMES
	files  []int    // its descriptors, 0 and up
	opened []int    // those of them that are closed here when it has them
	links  []link
	states []string // to be sent when it runs
}

// put gives the child fd, which is closed here afterwards, and returns which
// descriptor it will be there.
func (p *parcel) put(fd int) (as int) {
	p.opened, p.files = append(p.opened, fd), append(p.files, fd)
	return len(p.files) - 1
}

func (p *parcel) close() {
	for _, fd := range p.opened {
		closeFD(fd)
	}
	for _, l := range p.links {
		if l.ours >= 0 { // the child was not started
			closeFD(l.ours)
		}
	}
}

// pack fills p. The sockets come first, since that is where they are looked for.
func (c *Child) pack(p *parcel, o Options) error {
	if err := c.packSockets(p); err != nil {
		return err
	}
	if err := c.packLinks(p); err != nil {
		return err
	}
	if o.Control {
		if err := c.packControl(p); err != nil {
			return fmt.Errorf("make control socket: %w", tooMany(err, 0))
		}
	}
	if o.Control && o.Stderr {
		if c.tap = newTap(p.files[2]); c.tap != nil {
			p.tap = c.tap.mark(len(p.files))
			p.files = append(p.files, c.tap.ends()...)
		}
	}
	if p.needsTable(p.names) {
		fd, inode, err := writeTable(p.tableText(p.names))
		if err != nil {
			return tooMany(err, 0)
		}
		p.table, p.tableInode = p.put(fd), inode
	}
	return nil
}

func (c *Child) packSockets(p *parcel) error {
	c.listenersFirst()
	var passed []*socket
	for i, s := range c.sockets {
		fd, err := dup(s.conn)
		if errors.Is(err, net.ErrClosed) || errors.Is(err, os.ErrClosed) {
			continue // a moment ago
		}
		if err == nil {
			err = p.add(s, fd, p.put(fd), &p.names)
		}
		if err != nil {
			return fmt.Errorf("pass socket %d of %d (%s): %w", i+1, len(c.sockets), s.name, tooMany(err, len(c.sockets)-i))
		}
		passed = append(passed, s)
	}
	c.sockets = passed
	return nil
}

func (c *Child) packLinks(p *parcel) (err error) {
	p.links, err = c.links()
	for _, l := range p.links {
		id, _ := identify(l.theirs)
		p.extras = append(p.extras, meta{link: true, fd: p.put(l.theirs), inode: id.ino, name: strconv.Itoa(l.position)})
	}
	return tooMany(err, 0)
}

func (c *Child) packControl(p *parcel) error {
	ours, theirs, err := socketpair()
	if err != nil {
		return err
	}
	p.control = p.put(theirs)
	id, err := identify(theirs)
	if err != nil {
		closeFD(ours)
		return err
	}
	p.states = c.states()
	p.inode, p.marker.states, p.standby = id.ino, len(p.states), true
	c.control, err = newControl(ours)
	return err
}

// listenersFirst puts what LISTEN_FDS announces before the rest: a child with the
// original protocol takes it for an error if something there does not listen.
func (c *Child) listenersFirst() {
	slices.SortStableFunc(c.sockets, func(a, b *socket) int { return cmp.Compare(a.kind, b.kind) })
}

// add notes in m, or in names, that s, of which fd is a descriptor, is passed as
// descriptor as.
func (m *marker) add(s *socket, fd, as int, names *[]string) error {
	t := meta{network: s.network, foreign: s.foreign, listed: s.listed, file: s.kind == kindFile}
	if s.kind == kindListener {
		*names = append(*names, s.name)
		m.sockets = append(m.sockets, t)
		return nil
	}
	id, err := identify(fd)
	if err != nil {
		return err
	}
	t.fd, t.name, t.inode, t.path = as, s.name, id.ino, s.pathID
	m.extras = append(m.extras, t)
	return nil
}

// tooMany says how many descriptors were needed, if err is that there are no more.
// left of them are still to be opened.
func tooMany(err error, left int) error {
	if !errors.Is(err, syscall.EMFILE) {
		return err
	}
	limit := fdLimit()
	return fmt.Errorf("%w: a restart needs %d descriptors at once, and this process may have %d (ulimit -n, LimitNOFILE)", err, limit+uint64(left)+spareFDs, limit)
}

// spareFDs is how many descriptors a start needs beside those of the sockets.
const spareFDs = 6

// stdFD is the descriptor of one of the standard files. A closed one stays
// closed in the child.
func stdFD(f *os.File) int {
	fd := -1
	if f == nil {
		return fd
	}
	if raw, err := f.SyscallConn(); err == nil {
		_ = raw.Control(func(s uintptr) { fd = int(s) })
	}
	return fd
}

// lookPath finds the program as it was found when this process was started: a
// name with a slash from the directory of that time, another one in PATH.
func (p *Process) lookPath(argv0 string) (string, error) {
	if p.dir != "" && filepath.Base(argv0) != argv0 {
		argv0 = p.Absolute(argv0)
	}
	return exec.LookPath(argv0)
}

// startError says what to do where the bare error misleads.
func startError(argv0, dir string, err error) error {
	if dir != "" {
		if dirErr := enter(dir); dirErr != nil {
			return fmt.Errorf("directory where this process was started: %w", dirErr)
		}
	}
	return &fs.PathError{Op: "fork/exec", Path: argv0, Err: err}
}
