package handoff

import (
	"net"
	"runtime"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// A child may have no descriptor left for what it is sent. The answer then is no,
// and all is open in the parent.
func TestTakeWithoutDescriptors(t *testing.T) {
	f := newFamily(t, "tcp")
	f.child.TakeConns(f.theirs[0], each(func(net.Conn) bool { t.Error("asked"); return false }))
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

// A parent that has no descriptor left hands over what it has.
func TestPassWithoutDescriptors(t *testing.T) {
	f, l := script(t)
	const n = 3
	results := make(chan bool, n)
	var clients, servers []net.Conn
	for range n {
		client, server := connect(t, l)
		clients, servers = append(clients, client), append(servers, server)
	}
	restore := noMoreDescriptors(t)
	defer restore()
	for _, server := range servers {
		go func() { results <- f.parent.Pass(l, server.(syscall.Conn))[0] }()
	}
	for answered := 0; answered < n; {
		_ = f.child.control.conn.SetReadDeadline(time.Now().Add(patience))
		awaitReadable(f.child.control.conn) // to read it takes descriptors
		restore()
		id, positions, _ := strings.Cut(f.asked(t).Args, " ")
		verdicts := strings.Repeat("1", len(parsePositions(positions)))
		restore = noMoreDescriptors(t)
		_ = f.child.control.send(Took, id, verdicts)
		answered += len(verdicts)
	}
	for range n {
		if !wait(t, results, "an answer") {
			t.Error("said not to be taken")
		}
	}
	restore()
	if got := len(f.child.control.fds); got != n {
		t.Fatalf("%d descriptors have come, want %d", got, n)
	}
	f.child.control.closeFDs()
	for i := range n {
		joined(t, clients[i], servers[i])
	}
}

// noMoreDescriptors makes this process unable to open anything, until restore is called.
func noMoreDescriptors(t *testing.T) (restore func()) {
	t.Helper()
	var limit unix.Rlimit
	if err := unix.Getrlimit(unix.RLIMIT_NOFILE, &limit); err != nil {
		t.Fatal(err)
	}
	none := limit
	none.Cur = 1 // with 0 nothing can be polled
	if err := unix.Setrlimit(unix.RLIMIT_NOFILE, &none); err != nil {
		t.Fatal(err)
	}
	return func() {
		if err := unix.Setrlimit(unix.RLIMIT_NOFILE, &limit); err != nil {
			t.Fatal(err)
		}
	}
}

// What is to be sent is not closed before that, when another file might get its number.
func TestDescriptorsAreHeld(t *testing.T) {
	l := listen(t, "tcp", "127.0.0.1:0")
	var conns []syscall.Conn
	var servers []net.Conn
	var want []fileID
	for range 3 {
		_, server := connect(t, l)
		servers, conns = append(servers, server), append(conns, server.(syscall.Conn))
		want = append(want, identity(t, fdOf(t, server)))
	}
	_ = servers[1].Close()
	closed := make(chan error, 2)
	withFDs(conns, func(fds []int) {
		for _, i := range []int{0, 2} {
			go func() { closed <- servers[i].Close() }()
			for servers[i].SetDeadline(time.Time{}) == nil { // Close has not begun
				runtime.Gosched()
			}
			if got := identity(t, fds[i]); got != want[i] {
				t.Errorf("connection %d: the descriptor is open on %v, want %v", i, got, want[i])
			}
		}
		if fds[1] != -1 {
			t.Errorf("a closed connection has the descriptor %d", fds[1])
		}
	})
	for range 2 {
		if err := wait(t, closed, "Close"); err != nil {
			t.Error(err)
		}
	}
}
