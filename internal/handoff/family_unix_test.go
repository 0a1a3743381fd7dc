//go:build unix

package handoff

import (
	"fmt"
	"net"
	"os"
	"slices"
	"syscall"
	"testing"
	"time"
)

// A family is a parent with listeners, and its child, in one process.
type family struct {
	parent *Child   // the child as the parent sees it
	child  *Process // and as it sees itself
	ours   []net.Listener
	theirs []net.Listener
	done   chan struct{} // closed when the child reads no more
}

// newFamily makes a family that is not ready yet. For each network there is a
// listener, at the position that it has in networks.
func newFamily(t *testing.T, networks ...string) *family {
	t.Helper()
	a, b := controls(t)
	b.takes = true
	p := &Process{sole: true}
	f := &family{child: &Process{control: b}, done: make(chan struct{})}
	for i, network := range networks {
		addr := "127.0.0.1:0"
		if network == "unix" {
			addr = socketPath(t)
		}
		l := listen(t, network, addr)
		p.Add(l, network, fmt.Sprint(i))
		fd, err := dup(l.(syscall.Conn))
		if err != nil {
			t.Fatal(err)
		}
		in := &inherited{fd: fd, file: os.NewFile(uintptr(fd), "inherited")}
		in.name, in.network, in.id = fmt.Sprint(i), network, identity(t, fd)
		f.child.inherited = append(f.child.inherited, in)
		theirs, err := f.child.take(in, nil)
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { _ = theirs.Close() })
		f.ours, f.theirs = append(f.ours, l), append(f.theirs, theirs.(net.Listener))
	}
	f.parent = &Child{
		parent:   p,
		sockets:  slices.Clone(p.active),
		control:  a,
		passer:   passer{took: make(chan Message, 1), ended: make(chan struct{})},
		discard:  make(chan struct{}),
		messages: make(chan Message, 10),
		closed:   make(chan struct{}),
	}
	return f
}

// run lets the child become ready, and both sides read.
func (f *family) run(t *testing.T) {
	t.Helper()
	f.child.mu.Lock()
	ready := readyArgs(nil, f.child.taking())
	f.child.ready = true
	f.child.mu.Unlock()
	f.parent.Hold(ready)
	f.read(t)
	go func() {
		defer close(f.done)
		f.child.watchParent()
	}()
	t.Cleanup(func() { f.end(t) })
}

// read lets the parent alone read.
func (f *family) read(t *testing.T) {
	f.parent.reader.Add(1)
	go func() {
		defer f.parent.reader.Done()
		f.parent.read()
	}()
	t.Cleanup(f.parent.closeControl)
}

// end lets the parent go.
func (f *family) end(t *testing.T) {
	t.Helper()
	f.parent.closeControl()
	wait(t, f.done, "the child to see the end of its parent")
}

func wait[T any](t *testing.T, c <-chan T, what string) (v T) {
	t.Helper()
	select {
	case v = <-c:
	case <-time.After(patience):
		t.Fatalf("waited too long for %s", what)
	}
	return v
}

// connect returns both ends of a connection to l.
func connect(t *testing.T, l net.Listener) (client, server net.Conn) {
	t.Helper()
	client, err := net.Dial(l.Addr().Network(), l.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = client.Close() })
	if server, err = l.Accept(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = server.Close() })
	for _, c := range []net.Conn{client, server} {
		_ = c.SetDeadline(time.Now().Add(patience))
	}
	return client, server
}
