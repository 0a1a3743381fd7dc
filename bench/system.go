//go:build linux

package main

import (
	"cmp"
	"fmt"
	"os"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"time"

	"github.com/facebookgo/grace/gracetest"
	"golang.org/x/sys/unix"
)

// system is a kind of server that is measured.
type system struct {
	name  string
	ours  bool // this library: what it loses is an error
	keeps bool // it has no restarts
	slow  bool // it answers /slow
	isGo  bool // it is the program in server/
	start func(t *scope, c conditions) *server
}

// conditions is under which the servers run that are written here.
type conditions struct {
	standby   time.Duration // of grace
	listeners int           // 0 means 1
	cert, key string        // files; empty without TLS
	cpus      []int         // where it may run; all if empty
}

// server is a system at work.
type server struct {
	*gracetest.Service
	t       *scope
	system  *system
	addr    string
	scheme  string         // http if it is empty
	started time.Time      // just before the first process was; of those that are written here
	master  bool           // the first process stays, and replaces those that it has
	retire  syscall.Signal // ends the old process when the new one answers; 0: it ends by itself
}

func (s *server) url(path string) string { return cmp.Or(s.scheme, "http") + "://" + s.addr + path }

// fresh asks for a pid, with a connection of its own each time.
func (s *server) fresh() gracetest.Client {
	return gracetest.Raw(gracetest.Request{URL: s.url("/pid"), Fresh: true})
}

// waitUp waits until the server answers, and returns the pid of the process that does.
func (s *server) waitUp() int {
	s.t.Helper()
	answer := s.WaitAnswer(s.fresh())
	pid, err := strconv.Atoi(answer)
	if err != nil {
		s.t.Fatalf("%s answers /pid with %.50q, which is no pid", s.system.name, answer)
	}
	s.waitHeeds()
	return pid
}

// waitHeeds waits until the server heeds the signal that restarts it. The master of HAProxy
// ignores it for a while when its workers answer already.
func (s *server) waitHeeds() {
	s.t.Helper()
	gracetest.Poll(s.t, s.system.name+" to heed "+s.RestartSignal.String(), func() bool {
		status, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", s.PID()))
		return err == nil && inMask(string(status), "SigCgt", s.RestartSignal) && !inMask(string(status), "SigBlk", s.RestartSignal)
	})
}

// inMask reports whether a signal is in a mask of /proc/PID/status, see proc_pid_status(5).
func inMask(status, mask string, sig syscall.Signal) bool {
	_, rest, _ := strings.Cut(status, "\n"+mask+":\t")
	bits, _, _ := strings.Cut(rest, "\n")
	set, err := strconv.ParseUint(bits, 16, 64)
	return err == nil && set&(1<<(sig-1)) != 0
}

// passage is one restart.
type passage struct {
	asked    time.Time // the signal was sent
	answered time.Time // a new process has answered on a fresh connection
	exited   time.Time // the last old process has exited
	old, new int       // which answered before and after
	lost     []error   // what became of requests on fresh connections meanwhile
}

// waitSays waits until one more process than have said so before says that it serves: those
// that are written here do. The processors are theirs until then.
func (s *server) waitSays(before int) {
	s.t.Helper()
	s.WaitLine(before, "a process of "+s.system.name+" to say that it serves", func(l gracetest.Line) bool { return l.Text == "serves" })
}

// restart restarts the server, asking it again and again on fresh connections, with a
// pause between two of them: from the beginning, or if it is left alone once a new process
// says that it serves.
func (s *server) restart(pause time.Duration, alone bool) passage {
	t := s.t
	t.Helper()
	client := s.fresh()
	var p passage
	before := s.Processes()
	old := s.PID()
	p.old = s.waitUp() // also in case the restart before has only just ended
	leaves := []int{p.old}
	for _, pid := range before {
		if pid != p.old && (pid != old || s.retire != 0) {
			leaves = append(leaves, pid)
		}
	}
	var exits []exit
	for _, pid := range leaves {
		exits = append(exits, watchExit(t, pid))
	}

	lines := len(s.Lines())
	p.asked = time.Now()
	s.Signal(old, s.RestartSignal)
	switch {
	case alone && s.system.isGo:
		s.waitSays(lines)
	case alone:
		pause = time.Millisecond // not to keep the processors from the new process
	}
	for {
		x, err := client.Do()
		p.answered = time.Now()
		if err != nil {
			p.lost = append(p.lost, err)
		} else if pid, err := strconv.Atoi(x.Answer); err != nil {
			t.Fatalf("%s answers /pid with %.50q, which is no pid", s.system.name, x.Answer)
		} else if !slices.Contains(before, pid) {
			p.new = pid
			break
		}
		if p.answered.Sub(p.asked) > s.Patience {
			t.Fatalf("no new process of %s answers after %v", s.system.name, s.RestartSignal)
		}
		t.Helper()
		nap(pause)
	}
	// One that hides its environment is found only as long as its parent is there.
	if !s.system.isGo && !s.master {
		s.Processes()
	}
	follower := p.new
	if s.master {
		follower = old
	}
	if s.retire != 0 {
		for _, pid := range t.children(old) {
			if !slices.Contains(before, pid) {
				follower = pid
			}
		}
		s.Signal(old, s.retire)
	}
	for _, e := range exits {
		e.wait()
	}
	p.exited = time.Now()
	s.Follow(follower)
	return p
}

// nap sleeps more precisely than time.Sleep.
func nap(d time.Duration) {
	ts := unix.NsecToTimespec(int64(d))
	_ = unix.Nanosleep(&ts, nil) // one that is woken early does no harm
}

// exit is when a process exits.
type exit struct {
	t   *scope
	pid int
	fd  int
}

func watchExit(t *scope, pid int) exit {
	t.Helper()
	fd, err := unix.PidfdOpen(pid, 0)
	if err != nil {
		t.Fatalf("watch process %d: %v", pid, err)
	}
	t.Cleanup(func() { _ = unix.Close(fd) })
	return exit{t, pid, fd}
}

func (e exit) wait() {
	e.t.Helper()
	const look = 100 * time.Millisecond // for somebody who has asked for the end
	for deadline := time.Now().Add(gracetest.Patience); ; {
		n, err := unix.Poll([]unix.PollFd{{Fd: int32(e.fd), Events: unix.POLLIN}}, int(look.Milliseconds()))
		if n > 0 {
			// It is a child of this process, now or soon: whoever has started it has gone, or
			// is about to. The harness waits for the first one, too; one of us does.
			_, _ = unix.Wait4(e.pid, nil, unix.WNOHANG, nil)
			return
		}
		if err != nil && err != unix.EINTR {
			e.t.Fatalf("wait for process %d to exit: %v", e.pid, err)
		}
		if time.Now().After(deadline) {
			e.t.Fatalf("waited in vain for process %d to exit", e.pid)
		}
		e.t.Helper()
	}
}

func (s *system) String() string { return s.name }

// askPause is how soon a server is asked again during a restart, where it matters little.
const askPause = 5 * time.Millisecond

// asks returns clients of one kind.
func asks(n int, r gracetest.Request) []gracetest.Client {
	clients := make([]gracetest.Client, n)
	for i := range clients {
		clients[i] = gracetest.Raw(r)
	}
	return clients
}
