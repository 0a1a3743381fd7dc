package handoff

import (
	"fmt"
	"os"
	"slices"
)

// A process that keeps its pid: it drains while its child serves, and then
// executes the program anew.

// A Stay is what a process keeps until it executes the program anew.
type Stay struct {
	child   *Child
	sockets []*socket
	fds     []int
}

// Stay keeps the sockets that the child serves, so that they can be closed here
// and are there for the program that is executed.
func (c *Child) Stay() (*Stay, error) {
	c.parent.mu.Lock()
	s := &Stay{child: c, sockets: slices.Clone(c.held)}
	c.parent.mu.Unlock()
	for _, socket := range s.sockets {
		fd, err := dup(socket.conn)
		if err != nil {
			s.Close()
			return nil, fmt.Errorf("keep socket %s: %w", socket.name, err)
		}
		s.fds = append(s.fds, fd)
	}
	return s, nil
}

// Close ends it.
func (s *Stay) Close() {
	for _, fd := range s.fds {
		closeFD(fd)
	}
	s.fds = nil
}

// Exec executes the program anew, in the directory where this process was started.
// It returns only if it fails, when nothing has changed but the directory. again
// asks the program for one more restart.
func (s *Stay) Exec(again bool) error {
	p := s.child.parent
	argv0, err := p.lookPath(os.Args[0])
	if err != nil {
		return fmt.Errorf("execute the program anew: %w", err)
	}
	if p.dir != "" {
		if err := os.Chdir(p.dir); err != nil {
			return fmt.Errorf("execute the program anew: %w", err)
		}
	}
	control, err := dup(s.child.control.conn)
	if err != nil {
		return fmt.Errorf("execute the program anew: %w", err)
	}
	defer closeFD(control)
	id, err := identify(control)
	if err != nil {
		return fmt.Errorf("execute the program anew: %w", err)
	}
	m := marker{parent: s.child.pid, control: control, inode: id.ino, gen: p.Generation() + 1, comeback: true, again: again}
	var names []string
	for i, socket := range s.sockets {
		if err := m.add(socket, s.fds[i], s.fds[i], &names); err != nil {
			return fmt.Errorf("execute the program anew: %w", err)
		}
	}
	m.fds = s.fds[:len(names)]
	fds := append([]int{control}, s.fds...)
	if m.needsTable(names) {
		if m.table, m.tableInode, err = writeTable(m.tableText(names)); err != nil {
			return fmt.Errorf("execute the program anew: %w", err)
		}
		defer closeFD(m.table)
		fds = append(fds, m.table)
	}
	err = execute(argv0, os.Args, childEnv(os.Environ(), names, m), fds)
	return fmt.Errorf("execute the program anew: %w", startError(argv0, "", err))
}

// Interim reports whether this process serves only until its parent has executed
// the program anew.
func (p *Process) Interim() bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.interim
}

// Comeback reports whether this process has executed the program anew, and whether
// it was asked to restart once more meanwhile.
func (p *Process) Comeback() (comeback, again bool) {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.comeback, p.again
}

// Relieved is closed when this process has served in the interim. Next then tells
// which process serves, 0 if there is none.
func (p *Process) Relieved() <-chan struct{} {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.relieved == nil {
		p.relieved = make(chan struct{})
		if p.over {
			close(p.relieved)
		}
	}
	return p.relieved
}

// Next is the pid of the process that serves when Relieved is closed.
func (p *Process) Next() int {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.next
}

// relieve ends the interim: the parent serves again, or has gone. mu is held.
func (p *Process) relieve(serves bool) {
	if !p.interim || p.over {
		return
	}
	if p.over = true; serves {
		p.next = p.ppid
	}
	if p.relieved != nil {
		close(p.relieved)
	}
}

// reapInterim waits for the process that has served in the interim: it is our
// child, though not one that this program has started.
func (p *Process) reapInterim() {
	if process, err := os.FindProcess(p.ppid); err == nil {
		_, _ = process.Wait()
	}
}
