package handoff

import (
	"errors"
	"net"
	"os"
	"sync"
	"time"

	"golang.org/x/sys/unix"
)

// endless is no deadline.
var endless time.Time

// A pump moves what is in a pipe to standard error. Two processes may pump one
// pipe at the same time, and either may be killed at any time: splice moves bytes
// from one pipe to the other in one step, in their order, so that each arrives
// once. Where it is refused they are read and written, at most a page at a time
// and only when there is room for that; what is under way then is lost with who is
// killed, and can come after what the child writes when it is ready.
type pump struct {
	from   *os.File // the end to read of the pipe, which is non-blocking
	fd     int      // its descriptor
	to     int      // a duplicate of standard error, in whatever mode that is
	splice bool     // as long as it is not refused
}

func newPump(fd, to int) pump {
	// On a socket that is full, splice would sleep and keep who writes to the pipe
	// from being killed.
	_, err := unix.GetsockoptInt(to, unix.SOL_SOCKET, unix.SO_TYPE)
	return pump{from: os.NewFile(uintptr(fd), "stderr of child"), fd: fd, to: to, splice: err != nil}
}

func (p *pump) close() {
	_ = p.from.Close()
	closeFD(p.to)
}

// wait waits until something is in the pipe, or nobody can write to it any more.
func (p *pump) wait() error {
	raw, err := p.from.SyscallConn()
	if err != nil {
		return err
	}
	return raw.Read(func(uintptr) bool { return pollFD(p.fd, unix.POLLIN, time.Now()) })
}

// errNothing: nothing was moved, and it is not the end of the pipe.
var errNothing = errors.New("nothing to move")

// move moves up to n bytes. It does not wait for them, but until they can be
// written, or the deadline is over. It returns 0 at the end of the pipe.
func (p *pump) move(n int, deadline time.Time) (moved int, err error) {
	for p.splice {
		n, err := unix.Splice(p.fd, nil, p.to, nil, n, unix.SPLICE_F_NONBLOCK)
		switch {
		case err == nil:
			return int(n), nil
		case err == unix.EAGAIN:
			if !pollFD(p.fd, unix.POLLIN, time.Now()) || !pollFD(p.to, unix.POLLOUT, deadline) {
				return 0, errNothing
			}
		case err != unix.EINTR: // it is open for appending, or not there any more
			p.splice = false
		}
	}
	if !pollFD(p.to, unix.POLLOUT, deadline) {
		return 0, errNothing
	}
	var page [4096]byte
	moved, err = retry(func() (int, error) { return unix.Read(p.fd, page[:min(n, len(page))]) })
	if err != nil {
		return 0, errNothing
	}
	for b := page[:moved]; len(b) != 0; {
		n, err := retry(func() (int, error) { return unix.Write(p.to, b) })
		switch {
		case err == nil:
			b = b[n:]
		case err == unix.EAGAIN:
			pollFD(p.to, unix.POLLOUT, endless)
		default:
			return moved, nil // nobody reads it; the child must not be held up
		}
	}
	return moved, nil
}

// drain moves all there is until the deadline. It returns false at the end of the
// pipe.
func (p *pump) drain(deadline time.Time) bool {
	for deadline.IsZero() || time.Now().Before(deadline) {
		n, err := p.move(1<<20, deadline)
		if err != nil {
			return true
		}
		if n == 0 {
			return false
		}
	}
	return true
}

func retry(f func() (int, error)) (n int, err error) {
	for {
		if n, err = f(); err != unix.EINTR {
			return n, err
		}
	}
}

// pollFD waits until fd is ready for events, or broken. It returns false when the
// deadline is over first; one in the past does not wait.
func pollFD(fd int, events int16, deadline time.Time) bool {
	for {
		timeout := -1
		if !deadline.IsZero() {
			timeout = max(0, int(time.Until(deadline).Milliseconds()))
		}
		n, err := unix.Poll([]unix.PollFd{{Fd: int32(fd), Events: events}}, timeout)
		if err != unix.EINTR {
			return n > 0
		}
	}
}

// A tap is the parent's side.
type tap struct {
	pump
	w     int    // the child's end; -1 when it is closed here
	peek  [2]int // a pipe for copies
	ids   tapMark
	dry   chan struct{} // gets one when the pipe was found empty, after last has asked
	ended chan struct{} // closed when nobody can write to it any more

	mu   sync.Mutex
	tail []byte
	cut  bool
}

// newTap makes a tap for the descriptor of standard error, or returns nil if it
// can't, or must not: a terminal is asked for its size, a journal for the pid of
// who writes, a socket for datagrams keeps them apart, and a file is there to be
// read.
func newTap(stderr int) *tap {
	t := &tap{w: -1, peek: [2]int{-1, -1}, dry: make(chan struct{}, 1), ended: make(chan struct{})}
	of, err := identify(stderr)
	if err != nil || !tappable(stderr) {
		return nil
	}
	var ends [2]int
	if unix.Pipe2(ends[:], unix.O_CLOEXEC) != nil {
		return nil
	}
	t.w = ends[1]
	id, err := identify(t.w)
	t.ids = tapMark{inode: id.ino, dev: of.dev, ino: of.ino}
	err = errors.Join(err, unix.SetNonblock(ends[0], true), unix.Pipe2(t.peek[:], unix.O_CLOEXEC|unix.O_NONBLOCK))
	to, dupErr := unix.FcntlInt(uintptr(stderr), unix.F_DUPFD_CLOEXEC, firstFD)
	t.pump = newPump(ends[0], to)
	if err != nil || dupErr != nil {
		t.close()
		return nil
	}
	return t
}

// tappable reports whether fd is a pipe, a FIFO, a stream socket or the null device.
func tappable(fd int) bool {
	var st unix.Stat_t
	if unix.Fstat(fd, &st) != nil {
		return false
	}
	switch st.Mode & unix.S_IFMT {
	case unix.S_IFIFO:
		return true
	case unix.S_IFSOCK:
		typ, err := unix.GetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_TYPE)
		return err == nil && typ == unix.SOCK_STREAM
	case unix.S_IFCHR:
		return uint64(st.Rdev) == unix.Mkdev(1, 3)
	}
	return false
}

// ends are the ends of the pipe, which the child shall have. mark says so if they
// are passed as fd and the next one.
func (t *tap) ends() []int { return []int{t.w, t.fd} }

func (t *tap) mark(fd int) tapMark {
	m := t.ids
	m.w, m.r = fd, fd+1
	return m
}

func (t *tap) closeW() {
	if t.w >= 0 {
		closeFD(t.w)
	}
	t.w = -1
}

func (t *tap) close() {
	t.closeW()
	t.pump.close()
	for _, fd := range t.peek {
		closeFD(fd)
	}
}

// start begins to listen. The child has its end.
func (t *tap) start() {
	t.closeW()
	go t.run() // ends with the last process that has the pipe
}

func (t *tap) run() {
	defer close(t.ended)
	defer t.close()
	for {
		err := t.wait()
		if err != nil && !errors.Is(err, os.ErrDeadlineExceeded) || !t.listen() {
			return
		}
		if err != nil { // last has asked
			_ = t.from.SetReadDeadline(endless)
			select {
			case t.dry <- struct{}{}:
			default:
			}
		}
	}
}

// listen copies what is in the pipe, and moves it on. It returns false at the end.
func (t *tap) listen() bool {
	for {
		n, err := retry(func() (int, error) {
			n, err := unix.Tee(t.fd, t.peek[1], 1<<20, unix.SPLICE_F_NONBLOCK)
			return int(n), err
		})
		if err != nil || n == 0 {
			return err != nil
		}
		t.keep(n)
		for n > 0 {
			moved, err := t.move(n, endless)
			if err != nil || moved == 0 {
				break // the child, which is ready, has been quicker
			}
			n -= moved
		}
	}
}

// keep keeps the last of n bytes that were copied.
func (t *tap) keep(n int) {
	b := make([]byte, n)
	n, err := retry(func() (int, error) { return unix.Read(t.peek[0], b) })
	if err != nil {
		return
	}
	t.mu.Lock()
	defer t.mu.Unlock()
	t.tail = append(t.tail, b[:n]...)
	if more := len(t.tail) - StderrTail; more > 0 {
		t.tail, t.cut = append([]byte(nil), t.tail[more:]...), true
	}
}

// last returns what was last written. All that is in the pipe now is waited for,
// but not its end, since a process that the child has started may live on.
func (t *tap) last(wait time.Duration) (b []byte, cut bool) {
	timer := time.NewTimer(wait) // who reads standard error may be slow
	defer timer.Stop()
	_ = t.from.SetReadDeadline(time.Unix(1, 0))
	select {
	case <-t.dry:
	case <-t.ended:
	case <-timer.C:
	}
	t.mu.Lock()
	defer t.mu.Unlock()
	return append([]byte(nil), t.tail...), t.cut
}

// tapped is the child's side: the standard error of this process is the pipe.
type tapped struct {
	pump
	pipe, stderr fileID
	parent       *net.UnixConn // a duplicate of the control socket
	restored     chan struct{} // closed when standard error is what it was
}

// stderrFD is what a program that panics writes to, whatever os.Stderr is.
const stderrFD = 2

// newTapped puts the pipe of m in the place of standard error, unless that is not
// the one that the parent has, since a wrapper script has put something in its
// place. Both descriptors of m are taken over, if they are what m says.
func newTapped(m tapMark, c *control) *tapped {
	if !m.here() {
		return nil
	}
	defer closeFD(m.w)
	unix.CloseOnExec(m.w)
	unix.CloseOnExec(m.r)
	t := &tapped{stderr: fileID{m.dev, m.ino}, restored: make(chan struct{})}
	to, err := unix.FcntlInt(stderrFD, unix.F_DUPFD_CLOEXEC, firstFD)
	if err != nil {
		closeFD(m.r)
		return nil
	}
	t.pump = newPump(m.r, to)
	t.pipe, _ = identify(m.w)
	id, err := identify(to)
	if err == nil && id == t.stderr {
		t.parent, err = again(c.conn)
	}
	if t.parent == nil || err != nil || unix.Dup3(m.w, stderrFD, 0) != nil {
		t.close()
		return nil
	}
	go t.run() // ends when nobody can write to the pipe any more
	return t
}

// again is c once more, so that what waits for its end does not keep others from
// reading.
func again(c *net.UnixConn) (*net.UnixConn, error) {
	fd, err := dup(c)
	if err != nil {
		return nil, err
	}
	return controlConn(fd)
}

// here reports whether the descriptors of m are the pipe, and were passed to this
// process.
func (m tapMark) here() bool {
	is := func(fd, mode int) bool {
		id, err := identify(fd)
		flags, flagsErr := unix.FcntlInt(uintptr(fd), unix.F_GETFL, 0)
		return err == nil && flagsErr == nil && id.ino == m.inode && flags&unix.O_ACCMODE == mode && passedTo(fd)
	}
	return m.w != 0 && is(m.w, unix.O_WRONLY) && is(m.r, unix.O_RDONLY)
}

// close closes the descriptors of m. They are of no use here.
func (m tapMark) close() {
	if m.here() {
		closeFD(m.w)
		closeFD(m.r)
	}
}

func (t *tapped) close() {
	t.pump.close()
	if t.parent != nil {
		_ = t.parent.Close()
	}
}

// release gives this process its standard error back. It returns when that is so.
func (t *tapped) release() {
	_ = t.parent.SetReadDeadline(time.Unix(1, 0))
	<-t.restored
}

// run waits until this process is ready, or the parent has gone. From then on it
// moves on what is in the pipe, for what has it: processes that this one has
// started. It keeps the end to read, so that the pipe breaks for nobody.
func (t *tapped) run() {
	t.await()
	// What was written first shall be read first, unless that takes too long: the
	// pipe is empty when it is left, and what another goroutine has written in this
	// very moment has room.
	deadline := time.Now().Add(LastWords)
	for t.drain(deadline) && pollFD(t.to, unix.POLLOUT, deadline) && pollFD(t.fd, unix.POLLIN, time.Now()) && time.Now().Before(deadline) {
	}
	ours := t.restore()
	if ours {
		t.drain(deadline)
	}
	close(t.restored)
	_ = t.parent.Close()
	if !ours {
		return
	}
	for t.wait() == nil && t.drain(endless) {
	}
	t.pump.close()
}

// await returns when the other end of the control socket is closed, or release was
// called.
func (t *tapped) await() {
	raw, err := t.parent.SyscallConn()
	if err != nil {
		return
	}
	// An error is the deadline of release.
	_ = raw.Read(func(fd uintptr) bool { return pollFD(int(fd), 0, time.Now()) })
}

// restore undoes newTapped, but not what the program has done since. It returns
// false if the program has closed descriptors that are not its own.
func (t *tapped) restore() bool {
	if id, err := identify(t.to); err != nil || id != t.stderr {
		return false
	}
	if id, err := identify(stderrFD); err == nil && id == t.pipe {
		_ = unix.Dup3(t.to, stderrFD, 0)
	}
	return true
}
