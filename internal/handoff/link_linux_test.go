package handoff

import (
	"os"
	"testing"

	"golang.org/x/sys/unix"
)

// Ready closes a link that nobody has asked for, and nothing else: the number of one
// that was asked for may be another file's by then.
func TestDropLinks(t *testing.T) {
	f := newFamily(t, "tcp", "tcp")
	var ours, theirs [2]int
	for i := range ours {
		var err error
		if ours[i], theirs[i], err = packetPair(); err != nil {
			t.Fatal(err)
		}
		defer closeFD(ours[i])
		f.child.inherited[i].active.link = theirs[i]
	}
	link := f.child.Link(f.theirs[0])
	if link == nil {
		t.Fatal("there is no link")
	}
	defer link.Close()
	null, err := os.Open(os.DevNull)
	if err != nil {
		t.Fatal(err)
	}
	defer null.Close()
	if fd := int(null.Fd()); fd != theirs[0] {
		if err := unix.Dup3(fd, theirs[0], unix.O_CLOEXEC); err != nil {
			t.Fatal(err)
		}
		defer closeFD(theirs[0])
	}
	f.child.mu.Lock()
	f.child.dropLinks()
	f.child.mu.Unlock()
	if _, err := unix.FcntlInt(uintptr(theirs[0]), unix.F_GETFD, 0); err != nil {
		t.Errorf("another file is closed: %v", err)
	}
	if f.child.Link(f.theirs[0]) != nil || f.child.Link(f.theirs[1]) != nil {
		t.Error("there is a link that was asked for, or dropped, before")
	}
	if n, err := unix.Read(ours[1], make([]byte, 1)); n != 0 || err != nil {
		t.Errorf("the link that nobody asked for is open: %d, %v", n, err)
	}
	if _, err := link.Write([]byte("x")); err != nil {
		t.Errorf("the link that was asked for: %v", err)
	}
}
