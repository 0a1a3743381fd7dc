package handoff

import (
	"net"
	"slices"
	"testing"

	"golang.org/x/sys/unix"
)

// A child may have no descriptor left for what it is sent. The answer then is no,
// and all is open in the parent.
func TestTakeWithoutDescriptors(t *testing.T) {
	f := newFamily(t, "tcp")
	f.child.TakeConns(f.theirs[0], func(conn net.Conn) bool { t.Error("asked"); return false })
	f.child.ready = true
	var clients, servers []net.Conn
	for range 10 {
		client, server := connect(t, f.ours[0])
		clients, servers = append(clients, client), append(servers, server)
	}
	s := &takeScript{f, nil, nil}
	s.send(t, "take 1 0,0,0,0,0,0,0,0,0,0\n", servers...)
	_ = f.parent.control.conn.CloseWrite()

	var limit unix.Rlimit
	if err := unix.Getrlimit(unix.RLIMIT_NOFILE, &limit); err != nil {
		t.Fatal(err)
	}
	first, err := unix.FcntlInt(uintptr(fdOf(t, f.ours[0])), unix.F_DUPFD_CLOEXEC, 0)
	if err != nil {
		t.Fatal(err)
	}
	closeFD(first)
	tight := limit
	tight.Cur = uint64(first) + 4 // fewer than are on their way
	before := descriptors(t)
	if err := unix.Setrlimit(unix.RLIMIT_NOFILE, &tight); err != nil {
		t.Fatal(err)
	}
	f.child.watchParent()
	if err := unix.Setrlimit(unix.RLIMIT_NOFILE, &limit); err != nil {
		t.Fatal(err)
	}
	noneLeaked(t, before)
	if got, want := received(f.parent.control), []Message{{Took, "1 0000000000"}}; !slices.Equal(got, want) {
		t.Errorf("got %q, want %q", got, want)
	}
	for i := range clients {
		joined(t, clients[i], servers[i])
	}
}
