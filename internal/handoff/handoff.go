// Package handoff is one handover from a parent process to its child: both ends
// of it, in child.go and parent.go, how it begins, in start.go and claim.go, and what
// they share.
//
// # Descriptors
//
// Sockets pass as sd_listen_fds(3) describes: descriptors 3 and up, their number
// in LISTEN_FDS, their names in LISTEN_FDNAMES. A name is the one that a service
// manager gave, or else the address that was asked for, with every byte that is
// a colon, a percent sign or not printable ASCII written as %XX.
//
// A parent does not know its child's pid before it exists, so it can't set
// LISTEN_PID. It sets a variable of our own instead,
//
//	GRACE_HANDOVER=1 parent=812 control=5 inode=90210 states=1 generation=2 since=1764042570 stderr=6,7,90215,13,90101 standby=1 sockets=tcp+l,unix+f
//
// with its pid, the descriptor of the control socket and that socket's inode (no
// such keys where there is no control socket), how many messages "state" it will
// send, which generation of the service the child is, when the parent was
// started, in seconds since 1970, the pipe for standard error, if there is one, that
// it will send the message "standby", and for each socket the network that was asked
// for and flags: f, foreign, was not made by this family of processes and must never
// be unlinked; l, listed, belongs to grace.Inherit. The child removes the variable
// when this package is initialised and sets LISTEN_PID to its own pid.
//
// LISTEN_FDS has the sockets that listen, since the protocol of facebookgo/grace takes
// anything else there for an error. Datagram sockets and files come after them, as
// extras,
//
//	extras=5+udp++%253A53+90211,6+unixgram++%2Frun%2Flog+90212+2049.1234,7++n+lock+90213
//
// each with its descriptor, the network that was asked for, flags (n: it is a file,
// found by its name alone, whatever it is open on; k: it is the child's end of a link,
// over which it forwards packets, and its name is the position of their socket), its
// name in the form of a URL query, and its inode. A unixgram socket with a path that this family has made has the
// device and the inode of that file, too. An extra whose descriptor is closed or open on
// something else is an error. A process with the original protocol passes on what it
// knows nothing of, marker and descriptors: a child of that takes the extras whose
// inodes are right, and the rest of the marker does not count.
//
// What would make LISTEN_FDNAMES or the marker longer than 100 KiB goes in a table: a
// file without a name (a memfd), whose descriptor and inode are in the marker,
//
//	table=9 tableinode=1031
//
// in place of sockets, extras, fds and LISTEN_FDNAMES. It has a line for each: the
// names as LISTEN_FDNAMES would have them, and the values of sockets, extras and fds,
// empty where there is none. It is read from its beginning whatever its offset is, and
// closed.
//
// # Control socket
//
// One end of a stream socketpair, outside LISTEN_FDS. Either side sends lines:
//
//	child:   hello 1 PID           at its start; 1 is the version of the protocol
//	         failed WHY            it can't serve, and is about to exit
//	         ready [unused=I,J] [takes=K,L]
//	                               it serves; the positions of sockets that it closed unused,
//	                               and of those whose connections it takes
//	         hasten                it was asked to restart, and waits for the end of the standby
//	         leaving stop          it was told to stop and drains
//	         leaving handover PID  its own child, PID, has taken over
//	         took ID 101           which of the connections it has taken
//	parent:  state I BASE64        what it knows about the socket at position I; before ready
//	         standby               it has stopped accepting and reading, as standby=1 had promised
//	         main                  the standby is over, the child is on its own
//	         take ID I,J,K         connections that were accepted on these sockets, as
//	                               SCM_RIGHTS in the same order, all in one message
//
// End of file says that the other process has gone.
//
// "main" and "leaving stop" may cross. So that one of the two takes itself for the last
// that has the sockets, each side looks what has come after it has said its word: a
// child that finds "main" is the last, and so is a parent that finds "leaving stop".
// Where both do, the one that ends later removes the paths of unix sockets.
//
// # Standard error
//
// A parent that somebody has asked for the last words of its child makes a pipe,
// on Linux, if its standard error is a pipe, a FIFO, a stream socket or the null
// device, and passes both ends outside LISTEN_FDS: stderr= has the descriptor to
// write to, the one to read from, which is non-blocking, the pipe's inode, and the
// device and inode of the standard error of the parent. The parent moves what is
// written there to its own standard error.
//
// A child whose standard error is that one puts the end to write in its place, and
// closes its descriptor. It puts back what was there before it says ready, and when
// the control socket shows that the parent has gone, unless descriptor 2 is another
// one by then. From that moment on it moves, like the parent, what is left in the
// pipe and what is still written to it: processes that it has started before may
// have it. It closes its end to read after the last of those.
//
// A child that does not know the key leaves its standard error alone. It has two
// descriptors then that nobody writes to or reads from. One with the original
// protocol passes them on; a child of that one, with this package, closes them.
//
// # Keeping the pid
//
// A process whose pid must not change starts a child that serves in the interim
// (interim=1), drains, and executes the program anew. What is then in its place
// (comeback=1; again=1 if it was asked to restart once more meanwhile) finds the
// listeners where fds says, in the order of LISTEN_FDNAMES, since it can't have them
// from 3 up,
//
//	fds=12,8,9
//
// the extras where they say themselves, and its end of the control socket, over which
// it speaks like a child: parent is the pid of the interim process, and at "ready" that
// drains and exits, after "leaving stop". What the interim process had no use for was
// closed before. LISTEN_PID is the pid of the interim process, so that no other reader
// takes what is at 3.
//
// A parent that speaks only the protocol of facebookgo/grace sets LISTEN_FDS and
// leaves LISTEN_PID unset or stale. It is told "ready" by SIGTERM.
package handoff

import (
	"net"
	"os"
	"path/filepath"
	"sync"
	"time"
)

// Process is the place of this process in the chain of handovers: what it
// inherited and from whom, what it serves and passes on. There is one for the
// whole process, since its descriptors and its environment are one.
type Process struct {
	dir  string // the directory and
	ppid int    // the parent at the start: both may change later
	born time.Time

	mu        sync.Mutex
	gen       int    // which generation a child is; 0 for another process
	since     int64  // when the parent was started; 0 if that is not known
	claimed   string // LISTEN_FDS when claim last looked
	origin    Origin
	err       error                   // what is wrong with what was passed
	inherited []*inherited            // in the order they were passed
	byName    map[string][]*inherited // by the keys of what was asked for, and of names
	byAddr    map[string][]*inherited // by the keys of addresses, once that is needed
	untaken   int                     // of inherited
	waiting   []chan struct{}         // given out by Claimed

	active []*socket       // what is passed on
	byConn map[any]*socket // those of active whose conn can be a key
	pruned int             // len(active) when closed sockets were last removed
	paths  []*socket       // whose paths End may have to remove
	unused []net.UnixAddr  // of sockets that nobody has asked for

	control *control      // to the parent; nil if there is none
	tapped  *tapped       // until Ready; nil if the parent does not listen
	states  int           // messages State that are still to come
	ready   bool          // Ready was called
	failed  bool          // Fail was called
	hasten  bool          // Hasten was called
	sole    bool          // no parent can take the sockets back
	told    bool          // the parent says when it stands by
	turn    chan struct{} // closed when the parent reads no datagrams any more; nil if nobody waits
	turned  bool          // turn is closed, or would be
	isSole  chan struct{} // closed when sole becomes true; nil if nobody waits
	heir    *Child        // the child that took over last; nil if it has died

	interim  bool          // this process serves until its parent has executed the program anew
	relieved chan struct{} // closed when it has, or has gone; nil if nobody waits
	over     bool          // relieved is closed, or would be
	next     int           // pid of the process that serves then; 0 if it has gone
	comeback bool          // this process has executed the program anew
	again    bool          // and was asked to restart meanwhile
}

// Origin tells who started this process.
type Origin int

const (
	Fresh   Origin = iota // nobody passed sockets
	Manager               // a service manager passed sockets
	Parent                // a parent with this package started a handover
	Legacy                // a parent that speaks the protocol of facebookgo/grace did
)

// Handover reports whether a parent has started this process to take over.
func (o Origin) Handover() bool { return o == Parent || o == Legacy }

var this = start()

// This returns the state of this process.
func This() *Process { return this }

func start() *Process {
	dir, err := os.Getwd()
	if err != nil {
		dir = "" // the child then starts where we are
	}
	p := &Process{dir: dir, ppid: os.Getppid(), born: time.Now(), sole: true}
	p.claim()
	return p
}

// Origin tells who started this process, and the pid of the parent if that was a
// handover. The parent may have gone since.
func (p *Process) Origin() (origin Origin, parent int) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.claim()
	return p.origin, p.ppid
}

// Generation is 1 for a process that took over from no other, and one more than
// that of its parent for a child. A parent that does not tell is taken for the
// first.
func (p *Process) Generation() int {
	p.mu.Lock()
	defer p.mu.Unlock()
	return max(p.gen, 1)
}

// Born is when this process was started.
func (p *Process) Born() time.Time { return p.born }

// Parent returns the pid of the parent that handed over to this process, as long as
// that has not gone, and when it was started: the zero time if that is not known.
func (p *Process) Parent() (pid int, born time.Time, ok bool) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.since != 0 {
		born = time.Unix(p.since, 0)
	}
	return p.ppid, born, p.control != nil || p.origin == Legacy && os.Getppid() == p.ppid
}

// Sole reports whether this process is on its own: no parent stands by that
// would take the sockets back if it died.
func (p *Process) Sole() bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.sole
}

// IsReady reports whether Ready was called.
func (p *Process) IsReady() bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.ready
}

// Guarded reports whether there is a parent that watches over this process, and
// takes the sockets back if it dies.
func (p *Process) Guarded() bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.control != nil && !p.sole
}

// Alone returns a channel that is closed when this process is on its own.
func (p *Process) Alone() <-chan struct{} {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.isSole == nil {
		p.isSole = make(chan struct{})
		if p.sole {
			close(p.isSole)
		}
	}
	return p.isSole
}

// Hasten asks a parent on standby to make an end of it. It returns what Alone
// does.
func (p *Process) Hasten() <-chan struct{} {
	p.mu.Lock()
	p.hasten = true
	if p.control != nil && p.ready {
		_ = p.control.send(Hasten)
	}
	p.mu.Unlock()
	return p.Alone()
}

// Absolute is path from the directory in which this process was started, as every
// generation means it. The program may have left that since. It stays relative if the
// directory is not known.
func (p *Process) Absolute(path string) string {
	if filepath.IsAbs(path) {
		return path
	}
	return filepath.Join(p.dir, path)
}

// alone notes that no parent can take the sockets back any more. mu is held.
func (p *Process) alone() {
	if !p.sole && p.isSole != nil {
		close(p.isSole)
	}
	p.sole = true
	for _, s := range p.active {
		if !s.made {
			p.setUnlink(s)
		}
	}
}

// LastHolder reports whether no other process of the family holds l, so that
// connections that wait for it are reset when it is closed.
func (p *Process) LastHolder(l any) bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.listen()
	if s := p.find(l); s != nil {
		return p.last(s)
	}
	return p.heir == nil
}

// last reports whether neither a child nor the parent has s. mu is held.
func (p *Process) last(s *socket) bool {
	return s.holders == 0 && (s.made || p.sole)
}
