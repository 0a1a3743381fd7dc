//go:build unix

package handoff

import (
	"net"
	"os"
	"syscall"
	"testing"
)

// The parent ends its standby while the child is told to stop: neither may take the
// other one for the last that has the sockets.

// crossing is a family with a unix socket. The reader of the child gets no further
// than to a connection that it should take, until the test ends. more is text that has
// come with that.
func crossing(t *testing.T, more string) *family {
	t.Helper()
	f := newFamily(t, "unix")
	busy, release := make(chan struct{}), make(chan struct{})
	f.child.TakeConns(f.theirs[0], each(func(net.Conn) bool {
		close(busy)
		<-release
		return false
	}))
	f.run(t)
	t.Cleanup(func() { close(release) })
	client, _ := connect(t, f.ours[0])
	fd, err := dup(client.(syscall.Conn))
	if err != nil {
		t.Fatal(err)
	}
	defer closeFD(fd)
	if err := sendRights(f.parent.control.conn, Take+" 1 0\n"+more, []int{fd}); err != nil {
		t.Fatal(err)
	}
	wait(t, busy, "the child to be busy")
	return f
}

func (f *family) path() string { return f.ours[0].Addr().String() }

// closeChild closes the socket as the child does that drains, and closeParent as the parent
// does. Each of them ends then.
func (f *family) closeChild() {
	_ = f.child.Close(f.theirs[0])
	f.child.End()
}

func (f *family) closeParent() {
	_ = f.parent.parent.Close(f.ours[0])
	f.parent.parent.End()
}

func (f *family) expect(t *testing.T, when string, childLast, parentLast, path bool) {
	t.Helper()
	if got := f.child.LastHolder(f.theirs[0]); got != childLast {
		t.Errorf("%s the child takes itself for the last: %t, want %t", when, got, childLast)
	}
	if got := f.parent.parent.LastHolder(f.ours[0]); got != parentLast {
		t.Errorf("%s the parent takes itself for the last: %t, want %t", when, got, parentLast)
	}
	f.expectPath(t, when, path)
}

func (f *family) expectPath(t *testing.T, when string, path bool) {
	t.Helper()
	if _, err := os.Lstat(f.path()); (err == nil) != path {
		t.Errorf("%s the path: %v, want it there: %t", when, err, path)
	}
}

// What has come counts, though the child has not got to it.
func TestMainNotHandled(t *testing.T) {
	for _, text := range []string{"main\n", "standby\nmain\n", "leaving stop\n"} {
		t.Run(text, func(t *testing.T) {
			f := crossing(t, text)
			f.child.Leave(nil)
			f.expect(t, "after Leave", true, false, true)
			f.closeChild()
			f.expectPath(t, "after Close", false)
		})
	}
}

func TestMainNotReceived(t *testing.T) {
	f := crossing(t, "")
	f.expect(t, "on standby", false, false, true)
	f.parent.TellMain()
	f.child.Leave(nil)
	f.expect(t, "after Leave", true, false, true)
	f.closeChild()
	f.expectPath(t, "after Close", false)
}

func TestParentGoneNotReceived(t *testing.T) {
	f := crossing(t, "")
	f.child.Leave(nil)
	f.expect(t, "after Leave", false, false, true)
	f.parent.closeControl()
	f.expect(t, "after the end of the parent", true, false, true)
	f.closeChild()
	f.expectPath(t, "after Close", false)
}

// "main" and "leaving stop" cross. The one that ends later removes the path.
func TestMainCrossesLeaving(t *testing.T) {
	t.Run("the child ends before", func(t *testing.T) {
		f := crossing(t, "")
		f.child.Leave(nil)
		f.expect(t, "after Leave", false, false, true)
		f.closeChild()
		f.expectPath(t, "after the end of the child", true)
		f.parent.TellMain()
		if !f.parent.parent.LastHolder(f.ours[0]) {
			t.Error("the parent takes the child for a holder of the socket, which was told to stop before")
		}
		f.closeParent()
		f.expectPath(t, "after both ends", false)
	})
	t.Run("the child ends between", func(t *testing.T) {
		f := crossing(t, "")
		f.child.Leave(nil)
		f.parent.TellMain()
		f.expect(t, "after both messages", true, true, true)
		f.closeChild()
		f.expectPath(t, "after the end of the child", false)
		// By now somebody else may be there.
		l := listen(t, "unix", f.path())
		f.closeParent()
		f.expectPath(t, "after the end of the parent", true)
		_ = l.Close()
	})
	t.Run("the parent ends before", func(t *testing.T) {
		f := crossing(t, "")
		f.child.Leave(nil)
		f.parent.TellMain()
		f.closeParent()
		f.expectPath(t, "after the end of the parent", true)
		f.closeChild()
		f.expectPath(t, "after both ends", false)
	})
	t.Run("the child hands over", func(t *testing.T) { // and does not stop
		f := crossing(t, "")
		f.child.Leave(&Child{pid: 7, parent: f.child})
		f.parent.TellMain()
		if f.parent.Stops() || f.parent.parent.LastHolder(f.ours[0]) {
			t.Error("a child that has handed over is taken for one that stops")
		}
		f.closeParent()
		f.expectPath(t, "after the end of the parent", true)
	})
}

// Messages come in pieces, and those of other kinds between them.
func TestHeard(t *testing.T) {
	const text = "standby\nmain\ntake 1 0,0,0,0,0,0,0,0,0,0,0,0,0,0,0,0,0,0,0,0,0,0,0,0,0,0,0,0,0,0,0,0,0,0,0,0,0,0,0,0,0,0,0\nmainly\nleaving handover 7\nleaving st"
	var h heard
	for i := range text {
		if _, ok := h.words[Main]; ok != (i > len("standby\nmain")) {
			t.Errorf("after %q it has heard %q", text[:i], h.words)
		}
		copied := h.clone()
		copied.add([]byte(text[i:]))
		if copied.words[Leaving] != "handover 7" || len(copied.words) != 2 {
			t.Errorf("in two pieces after %d bytes it has heard %q", i, copied.words)
		}
		h.add([]byte{text[i]})
	}
	if h.words[Leaving] != "handover 7" || len(h.words) != 2 {
		t.Errorf("in single bytes it has heard %q", h.words)
	}
}
