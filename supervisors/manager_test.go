//go:build linux

package supervisors_test

import (
	"fmt"
	"maps"
	"net"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/facebookgo/grace/internal/testbin"
	"github.com/facebookgo/grace/internal/testbin/play"
)

// manager plays a systemd that is later than the one of these tests, as far as
// Type=notify-reload goes: it is strict about every message, in order.
type manager struct {
	t        *testing.T
	path     string
	messages chan message
	main     int // believed; 0 before the first message
}

// message is one datagram.
type message struct {
	pid    int // who has sent it, as the kernel says
	fields map[string]string
}

// keys are the fields of m, but for the one that is only for people.
func (m message) keys() string {
	keys := slices.Sorted(maps.Keys(m.fields))
	return strings.Join(slices.DeleteFunc(keys, func(k string) bool { return k == "STATUS" }), " ")
}

func newManager(t *testing.T) *manager {
	t.Helper()
	m := &manager{t: t, path: filepath.Join(t.TempDir(), "notify"), messages: make(chan message, 1000)}
	socket, err := net.ListenUnixgram("unixgram", &net.UnixAddr{Net: "unixgram", Name: m.path})
	if err != nil {
		t.Fatal(err)
	}
	raw, err := socket.SyscallConn()
	if err != nil {
		t.Fatal(err)
	}
	var optErr error
	err = raw.Control(func(fd uintptr) { optErr = unix.SetsockoptInt(int(fd), unix.SOL_SOCKET, unix.SO_PASSCRED, 1) })
	if err != nil || optErr != nil {
		t.Fatal(err, optErr)
	}
	done := make(chan struct{})
	go func() {
		defer close(done)
		b, oob := make([]byte, 8192), make([]byte, 8192)
		for {
			n, oobn, _, _, err := socket.ReadMsgUnix(b, oob)
			if err != nil {
				return
			}
			got := message{fields: make(map[string]string)}
			for line := range strings.SplitSeq(strings.TrimSuffix(string(b[:n]), "\n"), "\n") {
				key, value, _ := strings.Cut(line, "=")
				got.fields[key] = value
			}
			controls, _ := unix.ParseSocketControlMessage(oob[:oobn])
			for _, c := range controls {
				if cred, err := unix.ParseUnixCredentials(&c); err == nil {
					got.pid = int(cred.Pid)
				}
			}
			m.messages <- got
		}
	}()
	t.Cleanup(func() {
		_ = socket.Close()
		<-done
	})
	return m
}

// next returns the next message that is not only for people. Its fields must be
// those, and it must come from the main process.
func (m *manager) next(keys string) message {
	m.t.Helper()
	timeout := time.After(testbin.Patience)
	for {
		select {
		case got := <-m.messages:
			if m.main == 0 {
				m.main = got.pid
			}
			if got.pid != m.main {
				m.t.Errorf("process %d says %v, and %d is the main one", got.pid, got.fields, m.main)
			}
			if got.keys() == "" {
				continue
			}
			if got.keys() != keys {
				m.t.Fatalf("told %v, want the fields %s", got.fields, keys)
			}
			if main := got.fields["MAINPID"]; main != "" {
				m.main, _ = strconv.Atoi(main)
			}
			for _, flag := range []string{"READY", "RELOADING", "STOPPING"} {
				if v, ok := got.fields[flag]; ok && v != "1" {
					m.t.Errorf("told %s=%s", flag, v)
				}
			}
			return got
		case <-timeout:
			m.t.Fatalf("waited in vain for a message with %s", keys)
		}
	}
}

// monotonic is the time that a reload is told in, in microseconds.
func monotonic(t *testing.T) int64 {
	t.Helper()
	var now unix.Timespec
	if err := unix.ClockGettime(unix.CLOCK_MONOTONIC, &now); err != nil {
		t.Fatal(err)
	}
	return now.Nano() / 1000
}

// reload checks the message of the main process that a reload begins, which it
// was asked for at the time since. One without the time, or with that of an
// earlier reload, makes systemd wait for another one.
func (m *manager) reload(since int64) {
	m.t.Helper()
	got := m.next("MONOTONIC_USEC RELOADING").fields["MONOTONIC_USEC"]
	usec, err := strconv.ParseInt(got, 10, 64)
	if now := monotonic(m.t); err != nil || usec < since || usec > now {
		m.t.Errorf("the reload begins at %q, %v, want a time from %d to %d", got, err, since, now)
	}
}

// expectStatus checks what people are told.
func (m *manager) expectStatus(got message, words ...string) {
	m.t.Helper()
	for _, w := range words {
		if !strings.Contains(got.fields["STATUS"], w) {
			m.t.Errorf("status %q, want %q in it", got.fields["STATUS"], w)
		}
	}
}

// Every reload begins with one message and ends with one, whatever comes of it.
// Only the main process speaks.
func TestReloadMessages(t *testing.T) {
	m := newManager(t)
	cfg := play.Config{Role: "http", Listens: []play.Listen{{Addr: "127.0.0.1:0"}}}
	s := testbin.Start(t, cfg, testbin.Env("NOTIFY_SOCKET="+m.path, "INVOCATION_ID=1"))
	main, _ := s.Newest()
	m.expectStatus(m.next("READY"), "generation 1")
	if m.main != main {
		t.Fatalf("process %d says that it is ready, want %d", m.main, main)
	}
	succeed := func(generation int) {
		t.Helper()
		since := monotonic(t)
		old, child := s.Restart()
		m.reload(since)
		m.expectStatus(m.next("MAINPID READY"), fmt.Sprint("generation ", generation))
		if m.main != child {
			t.Fatalf("process %d is named, want %d", m.main, child)
		}
		s.WaitReturned(old)
		main = child
	}
	fail := func(why ...string) {
		t.Helper()
		since := monotonic(t)
		s.Signal(main, reloadSignal)
		m.reload(since)
		m.expectStatus(m.next("READY"), why...)
	}

	succeed(2)
	succeed(3)

	bad := cfg
	bad.Role = "exit"
	s.Deploy(bad)
	fail("generation 3", "exit status 7")
	fail("generation 3", "exit status 7")

	bad = cfg
	bad.PreStart = "no space left"
	s.Deploy(bad)
	succeed(4)
	fail("generation 4", "no space left")

	s.Signal(main, syscall.SIGTERM)
	m.next("STOPPING")
	s.WaitGone()
	m.silence("EXTEND_TIMEOUT_USEC")
}

// The new process dies on standby, or is asked to restart then.
func TestReloadMessagesOnStandby(t *testing.T) {
	m := newManager(t)
	cfg := play.Config{Role: "http", Listens: []play.Listen{{Addr: "127.0.0.1:0"}}, Standby: time.Hour}
	s := testbin.Start(t, cfg, testbin.Env("NOTIFY_SOCKET="+m.path, "INVOCATION_ID=1"))
	first, _ := s.Newest()
	m.next("READY")

	since := monotonic(t)
	child := s.RestartPID(first)
	m.reload(since)
	s.WaitLog(first, fmt.Sprintf("standing by child=%d", child))
	s.Signal(child, syscall.SIGKILL)
	m.expectStatus(m.next("READY"), "generation 1", "signal: killed")

	since = monotonic(t)
	second := s.RestartPID(first)
	m.reload(since)
	s.WaitLog(first, fmt.Sprintf("standing by child=%d", second))
	// This one is passed on, and begins when the standby is over.
	since = monotonic(t)
	s.Signal(first, reloadSignal)
	s.WaitLog(second, "restart waits")
	third := s.Wait("a third process", func(e play.Event) bool {
		return e.Event == play.Serving && e.PID != first && e.PID != child && e.PID != second
	}).PID
	m.next("MAINPID READY")
	if m.main != second {
		t.Fatalf("process %d is named, want %d", m.main, second)
	}
	m.reload(since)
	s.WaitLog(second, fmt.Sprintf("standing by child=%d", third))

	// The stop of the old one is not that of the service.
	s.Signal(second, syscall.SIGTERM)
	m.next("MAINPID READY")
	if m.main != third {
		t.Fatalf("process %d is named, want %d", m.main, third)
	}
	s.WaitReturned(second)
	s.Signal(third, syscall.SIGTERM)
	m.next("STOPPING")
	s.WaitGone()
	m.silence("EXTEND_TIMEOUT_USEC")
}

// silence fails the test if there are more messages than those with these fields.
func (m *manager) silence(keys string) {
	m.t.Helper()
	for len(m.messages) > 0 {
		if got := <-m.messages; got.keys() != "" && got.keys() != keys {
			m.t.Errorf("told %v as well, by %d", got.fields, got.pid)
		}
	}
}
