package handoff

import (
	"os"
	"slices"
	"sync"
	"sync/atomic"
	"syscall"
	"time"
)

// What a parent knows of its child.

// Child is a process that this one has started to take over.
type Child struct {
	pid     int
	process *os.Process
	sibling *sibling // nil if it is our child indeed
	parent  *Process
	sockets []*socket // in the order they were passed
	tap     *tap      // nil if nobody listens to its standard error

	// What it is told and says.
	control  *control // nil if none was offered
	passer   passer
	ignored  sync.Once
	discard  chan struct{} // closed when nobody asks for messages any more
	messages chan Message
	shut     sync.Once
	closed   chan struct{} // closed when control is
	reader   sync.WaitGroup
	leaving  atomic.Bool // it has said that it goes
	spoke    atomic.Bool // it has said anything

	// What this process thinks of it; guarded by parent.mu.
	held     []*socket   // those of sockets that it serves, while holds
	holds    bool        // Hold was called, and Release was not
	replaced int         // pid of the child's own child, for good
	died     bool        // before or after Hold
	takes    map[any]int // positions of listeners whose connections it takes
	ready    bool        // Hold was called

	// Its end.
	disowned atomic.Bool
	exited   chan struct{}
	state    *os.ProcessState // this and waitErr are set when exited is closed
	waitErr  error
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

// LastWords is how long what a child has sent may take to arrive after its end, if a
// process that it started holds the socket, or the machine is busy.
const LastWords = time.Second

// AfterLastWords returns a channel that is closed when that is over. It is counted in
// steps: a process that does not get on for longer than all of them has the others, to
// hear what has come meanwhile.
func AfterLastWords() <-chan struct{} {
	over := make(chan struct{})
	left := 10
	var step func()
	step = func() {
		if left--; left < 0 {
			close(over)
			return
		}
		time.AfterFunc(LastWords/10, step)
	}
	step()
	return over
}

// crashed reports whether the child, which has exited, has not said that it would.
func (c *Child) crashed() bool {
	if c.control == nil {
		return false
	}
	select {
	case <-c.passer.ended:
	case <-AfterLastWords():
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
	c.held = slices.DeleteFunc(c.held, func(s *socket) bool { return s == nil })
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
//
// A child that was told to stop before it could know that may close the sockets as the
// last that has them, or as one of two. Then this process takes itself for the last,
// too.
func (c *Child) TellMain() {
	c.Ignore()
	if c.control == nil {
		return
	}
	_ = c.control.send(Main)
	if !c.Stops() {
		return // it knows, if it asks after it has said that it stops
	}
	c.parent.mu.Lock()
	if c.holds {
		for _, s := range c.held {
			c.parent.cross(s)
		}
	}
	c.parent.mu.Unlock()
	c.Release()
}

// Stops reports whether the child has said that it was told to stop, though Messages
// may not have given it yet.
func (c *Child) Stops() bool {
	if c.control == nil {
		return false
	}
	words, _ := c.control.come()
	return words[Leaving] == LeavingStop
}

// Ignore lets messages of the child be dropped from now on.
func (c *Child) Ignore() { c.ignored.Do(func() { close(c.discard) }) }

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

// closeControl ends the talk with the child. Pass may be under way, and finds nobody then.
func (c *Child) closeControl() {
	if c.control == nil {
		return
	}
	c.shut.Do(func() {
		close(c.closed)
		c.control.close()
		c.reader.Wait()
	})
}
