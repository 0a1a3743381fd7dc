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
	"sync"
	"sync/atomic"
	"syscall"
	"time"
)

// Child is a process that this one has started to take over.
type Child struct {
	pid      int
	process  *os.Process
	sibling  *sibling // nil if it is our child indeed
	parent   *Process
	sockets  []*Socket // in the order they were passed
	held     []*Socket // those of them that it serves, while holds
	holds    bool
	replaced int         // pid of the child's own child, for good
	died     bool        // before or after Hold
	takes    map[any]int // positions of listeners whose connections it takes
	passer   passer
	control  *control // nil if none was offered
	told     sync.Once
	discard  chan struct{} // closed when nobody asks for messages any more
	messages chan Message
	closed   chan struct{}
	reader   sync.WaitGroup
	talks    bool        // over control, from the start on
	tap      *tap        // nil if nobody listens to its standard error
	ready    bool        // Hold was called
	leaving  atomic.Bool // it has said that it goes
	spoke    atomic.Bool // it has said anything
	disowned atomic.Bool
	exited   chan struct{}
	state    *os.ProcessState
	waitErr  error
}

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
	argv0, err := lookPath(os.Args[0], p.dir)
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
	var opened []int
	defer func() {
		for _, fd := range opened {
			closeFD(fd)
		}
	}()
	files := []int{stdFD(os.Stdin), stdFD(os.Stdout), stdFD(os.Stderr)}
	m := marker{parent: os.Getpid(), gen: c.parent.Generation() + 1, interim: o.Interim, since: max(c.parent.born.Unix(), 0)}
	var names []string
	var passed []*Socket
	var states []string
	c.listenersFirst()
	for i, s := range c.sockets {
		fd, err := dup(s.conn)
		if errors.Is(err, net.ErrClosed) || errors.Is(err, os.ErrClosed) {
			continue // a moment ago
		}
		if err != nil {
			return fmt.Errorf("start new process: pass socket %d of %d (%s): %w", i+1, len(c.sockets), s.Name, tooMany(err, len(c.sockets)-i))
		}
		if err := m.add(s, fd, len(files), &names); err != nil {
			closeFD(fd)
			return fmt.Errorf("start new process: pass socket %d of %d (%s): %w", i+1, len(c.sockets), s.Name, err)
		}
		opened, files, passed = append(opened, fd), append(files, fd), append(passed, s)
	}
	c.sockets = passed
	links, err := c.links()
	defer func() {
		for _, l := range links {
			if l.ours >= 0 { // the child was not started
				closeFD(l.ours)
			}
		}
	}()
	for _, l := range links {
		id, _ := identify(l.theirs)
		m.extras = append(m.extras, meta{link: true, fd: len(files), inode: id.ino, name: strconv.Itoa(l.position)})
		opened, files = append(opened, l.theirs), append(files, l.theirs)
	}
	if err != nil {
		return fmt.Errorf("start new process: %w", tooMany(err, 0))
	}
	if o.Control {
		ours, theirs, err := socketpair()
		if err != nil {
			return fmt.Errorf("start new process: make control socket: %w", tooMany(err, 0))
		}
		opened = append(opened, theirs)
		id, err := identify(theirs)
		if err != nil {
			closeFD(ours)
			return fmt.Errorf("start new process: make control socket: %w", err)
		}
		states = c.states()
		m.control, m.inode, m.states, m.standby = len(files), id.ino, len(states), true
		files = append(files, theirs)
		if c.control, err = newControl(ours); err != nil {
			return fmt.Errorf("start new process: %w", err)
		}
	}
	if o.Control && o.Stderr {
		if c.tap = newTap(files[2]); c.tap != nil {
			m.tap = c.tap.mark(len(files))
			files = append(files, c.tap.ends()...)
		}
	}
	if m.needsTable(names) {
		fd, inode, err := writeTable(m.tableText(names))
		if err != nil {
			return fmt.Errorf("start new process: %w", tooMany(err, 0))
		}
		opened = append(opened, fd)
		m.table, m.tableInode = len(files), inode
		files = append(files, fd)
	}
	// One that serves in the interim, or that says nothing, must be ours to reap.
	asSibling := o.Control && !o.Interim && underManager()
	pid, sibling, err := forkExec(argv0, os.Args, c.parent.dir, childEnv(os.Environ(), names, m), files, asSibling)
	if err != nil {
		return fmt.Errorf("start new process: %w", startError(argv0, c.parent.dir, err))
	}
	c.pid, c.sibling = pid, sibling
	// The child is not yet waited for, so that the pid is its own.
	if c.process, err = os.FindProcess(pid); err != nil {
		return fmt.Errorf("start new process: %w", err)
	}
	for i := range links {
		links[i].begin()
	}
	if c.tap != nil {
		c.tap.start()
	}
	if c.control != nil {
		c.talks = true
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
	return nil
}

// listenersFirst puts what LISTEN_FDS announces before the rest: a child with the
// original protocol takes it for an error if something there does not listen.
func (c *Child) listenersFirst() {
	slices.SortStableFunc(c.sockets, func(a, b *Socket) int { return cmp.Compare(a.kind, b.kind) })
}

// add notes in m, or in names, that s, of which fd is a descriptor, is passed as
// descriptor as.
func (m *marker) add(s *Socket, fd, as int, names *[]string) error {
	t := meta{network: s.Network, foreign: s.Foreign, listed: s.listed, file: s.kind == kindFile}
	if s.kind == kindListener {
		*names = append(*names, s.Name)
		m.sockets = append(m.sockets, t)
		return nil
	}
	id, err := identify(fd)
	if err != nil {
		return err
	}
	t.fd, t.name, t.inode, t.path = as, s.Name, id.ino, s.pathID
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
func lookPath(argv0, dir string) (string, error) {
	if dir != "" && filepath.Base(argv0) != argv0 && !filepath.IsAbs(argv0) {
		argv0 = filepath.Join(dir, argv0)
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

// read passes on what the child says.
func (c *Child) read() {
	defer close(c.messages)
	defer close(c.passer.ended)
	c.control.receive(func(m Message) bool {
		c.spoke.Store(true)
		switch m.Word {
		case Took:
			c.passer.answer(m)
			return true
		case Leaving:
			c.leaving.Store(true)
		}
		select {
		case c.messages <- m:
			return true
		case <-c.discard:
			return true
		case <-c.closed:
			return false
		}
	})
}

// wait reaps the child. It waits for no other process, so that it does not take
// the exit status of a command that the program runs.
func (c *Child) wait() {
	if c.sibling != nil { // its parent reaps it
		c.sibling.wait()
		c.parent.Mend()
		c.end(c.crashed())
		return
	}
	awaitExit(c.pid)
	if c.disowned.Load() && c.crashed() {
		c.end(true)
		return
	}
	c.state, c.waitErr = c.process.Wait()
	c.parent.Mend()
	// One that ends well may have handed over to a child of its own.
	c.end(c.waitErr == nil && !c.state.Success())
}

func (c *Child) end(died bool) {
	if died {
		c.parent.mu.Lock()
		c.died = true
		c.parent.mu.Unlock()
		c.Release()
	}
	close(c.exited)
}

// lastWords is how long what a child has sent may take to arrive after its end, if
// a process that it started holds the socket.
const lastWords = time.Second

// crashed reports whether the child, which has exited, has not said that it would.
func (c *Child) crashed() bool {
	if !c.talks {
		return false
	}
	select {
	case <-c.passer.ended:
	case <-time.After(lastWords):
	}
	return !c.leaving.Load()
}

// Disown leaves the child to the service manager: if it crashes it is not reaped,
// so that the manager learns of it when this process leaves, and of how it ended.
func (c *Child) Disown() { c.disowned.Store(true) }

// Crashed reports whether the child was left to the service manager, and has
// exited without having said that it would.
func (c *Child) Crashed() bool { return c.Gone() && c.disowned.Load() && c.died && c.state == nil }

// PID is the pid of the process that was started.
func (c *Child) PID() int { return c.pid }

// Messages gives what the child says on the control socket, and is closed when
// the child has closed its end. It is nil if the child got no control socket.
func (c *Child) Messages() <-chan Message {
	if c.control == nil {
		return nil
	}
	return c.messages
}

// Exited is closed when the child has exited and is reaped. Status then tells
// how it ended.
func (c *Child) Exited() <-chan struct{} { return c.exited }

// Gone reports whether the child has exited and is reaped.
func (c *Child) Gone() bool {
	select {
	case <-c.exited:
		return true
	default:
		return false
	}
}

// Status tells how the child ended.
func (c *Child) Status() string {
	if c.sibling != nil {
		return c.sibling.String()
	}
	if c.state == nil && c.waitErr == nil {
		return "not reaped"
	}
	if c.waitErr != nil {
		return c.waitErr.Error()
	}
	return c.state.String()
}

// Struck reports whether sig has killed the child before it could say anything, as far
// as that is known: how a sibling has ended may not be.
func (c *Child) Struck(sig syscall.Signal) bool {
	switch {
	case !c.Gone() || c.spoke.Load():
		return false
	case c.sibling != nil:
		return c.sibling.struck(sig)
	case c.state == nil:
		return false
	}
	status, ok := c.state.Sys().(syscall.WaitStatus)
	return ok && status.Signaled() && status.Signal() == sig
}

// Hold notes that the child serves the sockets it was passed, but for those that
// it says are unused: this process is no longer the last that holds them. ready
// is what the child said.
func (c *Child) Hold(ready string) {
	c.parent.mu.Lock()
	defer c.parent.mu.Unlock()
	c.ready = true
	if c.holds || c.died {
		return
	}
	c.holds = true
	c.parent.heir = c
	c.held = slices.Clone(c.sockets)
	unused, takes := parseReady(ready)
	c.takes = make(map[any]int)
	for _, i := range takes {
		if i >= 0 && i < len(c.sockets) && isKey(c.sockets[i].conn) {
			c.takes[c.sockets[i].conn] = i
		}
	}
	for _, i := range unused {
		if i >= 0 && i < len(c.held) {
			c.held[i] = nil
		}
	}
	c.held = slices.DeleteFunc(c.held, func(s *Socket) bool { return s == nil })
	for _, s := range c.held {
		s.holders++
	}
	c.parent.setUnlink(c.held...)
}

// Heir returns the child that took the sockets over last, or nil.
func (p *Process) Heir() *Child {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.heir
}

// Replaced notes that a child of the child, the process pid, serves the sockets
// now, so that the end of this one changes nothing.
func (c *Child) Replaced(pid int) {
	c.parent.mu.Lock()
	defer c.parent.mu.Unlock()
	c.replaced = pid
}

// MainPID is the pid of the process that serves the sockets: the child, or the
// one that it says has replaced it.
func (c *Child) MainPID() int {
	c.parent.mu.Lock()
	defer c.parent.mu.Unlock()
	if c.replaced != 0 {
		return c.replaced
	}
	return c.pid
}

// Release takes Hold back.
func (c *Child) Release() {
	c.parent.mu.Lock()
	defer c.parent.mu.Unlock()
	if !c.holds || c.replaced != 0 {
		return
	}
	c.holds = false
	if c.parent.heir == c {
		c.parent.heir = nil
	}
	for _, s := range c.held {
		s.holders--
	}
	c.parent.setUnlink(c.held...)
}

// TellStandby says to the child that this process reads no datagrams any more.
func (c *Child) TellStandby() {
	if c.control != nil {
		_ = c.control.send(Standby)
	}
}

// TellMain says to the child that the standby is over. Messages are not expected
// any more.
func (c *Child) TellMain() {
	c.Ignore()
	if c.control != nil {
		_ = c.control.send(Main)
	}
}

// Ignore lets messages of the child be dropped from now on.
func (c *Child) Ignore() { c.told.Do(func() { close(c.discard) }) }

// Signal sends sig to the child. It can't reach another process: the child is
// not reaped before it is known to have exited.
func (c *Child) Signal(sig syscall.Signal) error {
	if c.sibling != nil {
		return c.sibling.signal(sig)
	}
	return c.process.Signal(sig)
}

// reapTimeout is how long Kill waits. A process that sleeps in the kernel, or
// that a debugger holds, does not go at once.
const reapTimeout = 5 * time.Second

// Kill ends the child if it still runs, and closes all that belonged to it. It
// reports whether the child is reaped. One that takes too long will be in its
// own time.
func (c *Child) Kill() (gone bool) {
	_ = c.Signal(syscall.SIGKILL)
	timer := time.NewTimer(reapTimeout)
	defer timer.Stop()
	select {
	case <-c.exited:
		gone = true
	case <-timer.C:
	}
	c.closeControl()
	if gone && c.sibling != nil {
		c.sibling.close()
	}
	return gone
}

func (c *Child) closeControl() {
	if c.control != nil {
		close(c.closed)
		c.control.close()
		c.reader.Wait()
		c.control = nil
	}
}
