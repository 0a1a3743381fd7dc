//go:build unix

package handoff

import (
	"bufio"
	"encoding/base64"
	"fmt"
	"io"
	"net"
	"os"
	"slices"
	"strings"
	"testing"
	"time"
)

// sendStates sends messages as Start does, and lets the child know how many to expect.
func (f *family) sendStates(t *testing.T, messages []string) {
	t.Helper()
	f.child.states = len(messages)
	control, sent := f.parent.control, make(chan struct{})
	go func() { // more than the socket holds
		defer close(sent)
		for _, m := range messages {
			_ = control.send(State, m)
		}
	}()
	t.Cleanup(func() {
		control.close()
		<-sent
	})
}

func TestState(t *testing.T) {
	binary := make([]byte, 256)
	for i := range binary {
		binary[i] = byte(i)
	}
	big := strings.Repeat("0123456789abcdef\n", 100<<10/17)
	tests := []struct {
		name   string
		states []string // an empty one is not set
	}{
		{"none", []string{"", ""}},
		{"one", []string{"keys", ""}},
		{"the second", []string{"", "keys"}},
		{"all", []string{"a", "b", "c"}},
		{"all the same", []string{"a", "a", "a"}},
		{"big", []string{big}},
		{"two big ones", []string{big + "1", "", big + "2"}},
		{"binary", []string{string(binary), "\x00", "\n"}},
		{"like messages", []string{"main\n", "state 1 YQ==\n", " "}},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			f := newFamily(t, slices.Repeat([]string{"tcp"}, len(tt.states))...)
			for i, state := range tt.states {
				if state != "" {
					f.parent.parent.SetState(f.ours[i], func() string { return state })
				}
			}
			f.sendStates(t, f.parent.states())
			for i, want := range tt.states {
				if got := f.child.State(f.theirs[i]); got != want {
					t.Errorf("state %d is %.50q, %d bytes, want %.50q, %d bytes", i, got, len(got), want, len(want))
				}
			}
			for i, want := range tt.states {
				if got := f.child.State(f.theirs[i]); got != want {
					t.Errorf("asked again, state %d is %.50q", i, got)
				}
			}
		})
	}
}

// State and TakeConns go over the same socket.
func TestStateAndConns(t *testing.T) {
	f := newFamily(t, "tcp")
	f.parent.parent.SetState(f.ours[0], func() string { return "keys" })
	f.sendStates(t, f.parent.states())
	if got := f.child.State(f.theirs[0]); got != "keys" {
		t.Errorf("the state is %q", got)
	}
	taken := make(chan net.Conn, 1)
	f.child.TakeConns(f.theirs[0], into(taken))
	f.run(t)
	client, server := connect(t, f.ours[0])
	if !f.parent.Pass(f.ours[0], server.(*net.TCPConn))[0] {
		t.Fatal("not taken")
	}
	joined(t, client, wait(t, taken, "the connection"))
}

// A child that asks for no state is not held up by those that it is sent.
func TestStateIsNotAsked(t *testing.T) {
	f := newFamily(t, "tcp")
	f.parent.parent.SetState(f.ours[0], func() string { return strings.Repeat("x", maxLine/2) })
	f.sendStates(t, f.parent.states())
	taken := make(chan net.Conn, 1)
	f.child.TakeConns(f.theirs[0], into(taken))
	f.run(t)
	client, server := connect(t, f.ours[0])
	if !f.parent.Pass(f.ours[0], server.(*net.TCPConn))[0] {
		t.Fatal("not taken")
	}
	joined(t, client, wait(t, taken, "the connection"))
	if got := f.child.State(f.theirs[0]); got != "" { // too late
		t.Errorf("the state is %.50q", got)
	}
}

// SetState is asked anew for each child, and not for a closed listener.
func TestStateIsAskedAtTheStart(t *testing.T) {
	p := &Process{sole: true}
	a, b := listen(t, "tcp", "127.0.0.1:0"), listen(t, "tcp", "127.0.0.1:0")
	p.Add(a, "tcp", "a")
	p.Add(b, "tcp", "b")
	p.SetState(a, func() string { return "" }) // passes nothing
	asked := 0
	p.SetState(b, func() string {
		asked++
		p.IsReady() // it may use the process
		return fmt.Sprint("state ", asked)
	})
	p.SetState(listen(t, "tcp", "127.0.0.1:0"), func() string { t.Error("an unknown listener is asked"); return "x" })
	for i := 1; i <= 2; i++ {
		c := &Child{parent: p, sockets: slices.Clone(p.active)}
		want := "1 " + base64.StdEncoding.EncodeToString([]byte(fmt.Sprint("state ", i)))
		if got := c.states(); len(got) != 1 || got[0] != want {
			t.Errorf("child %d: got %q, want %q", i, got, want)
		}
	}
}

// What is not understood counts, and is nobody's state.
func TestStateOfRubbish(t *testing.T) {
	const fine = "state 1 ZmluZQ==\n"
	tests := []struct{ name, sent string }{
		{"position out of range", "state 2 eA==\n"},
		{"negative position", "state -1 eA==\n"},
		{"no number", "state x eA==\n"},
		{"large number", "state 99999999999999999999 eA==\n"},
		{"two positions", "state 0,1 eA==\n"},
		{"no position", "state  eA==\n"},
		{"no base64", "state 0 ???\n"},
		{"half of base64", "state 0 eA=\n"},
		{"nothing", "state\n"},
		{"empty line", "\n"},
		{"binary", "\x00\xff state 0 eA==\n"},
		{"another word", "states 0 eA==\n"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			f := newFamily(t, "tcp", "tcp")
			f.child.states = 2
			if _, err := io.WriteString(f.parent.control.conn, tt.sent+fine); err != nil {
				t.Fatal(err)
			}
			for i, want := range []string{"", "fine"} {
				if got := f.child.State(f.theirs[i]); got != want {
					t.Errorf("state %d is %q, want %q", i, got, want)
				}
			}
			// What follows is read by others.
			if err := f.parent.control.send(Main); err != nil {
				t.Fatal(err)
			}
			f.child.control.receive(func(m Message) bool {
				if m.Word != Main {
					t.Errorf("got %q, want main", m)
				}
				return false
			})
		})
	}
}

// Messages that came together with the last state are not lost, and those that
// came in pieces are whole.
func TestStateInPieces(t *testing.T) {
	f := newFamily(t, "tcp", "tcp")
	f.child.states = 2
	go func() {
		text := "state 0 YQ==\nstate 1 Yg==\nmain\n"
		for i := range text {
			_, _ = io.WriteString(f.parent.control.conn, text[i:i+1])
		}
		_ = f.parent.control.conn.CloseWrite()
	}()
	if a, b := f.child.State(f.theirs[0]), f.child.State(f.theirs[1]); a != "a" || b != "b" {
		t.Errorf("the states are %q and %q", a, b)
	}
	if got := received(f.child.control); len(got) != 1 || got[0].Word != Main {
		t.Errorf("got %q, want main", got)
	}
}

// Where nothing was announced, or nobody is there, nothing is waited for.
func TestStateOfNobody(t *testing.T) {
	f := newFamily(t, "tcp")
	if got := f.child.State(f.theirs[0]); got != "" {
		t.Errorf("no state was announced: %q", got)
	}
	if got := f.child.State(listen(t, "tcp", "127.0.0.1:0")); got != "" {
		t.Errorf("state of an unknown listener: %q", got)
	}
	var first Process
	first.Add(f.ours[0], "tcp", "a")
	first.states = 1
	if got := first.State(f.ours[0]); got != "" {
		t.Errorf("without a parent: %q", got)
	}
	f.child.states, f.child.ready = 1, true
	if got := f.child.State(f.theirs[0]); got != "" {
		t.Errorf("after Ready: %q", got)
	}
}

// A parent that dies before it has sent all does not hold its child up.
func TestStateAndTheParentDies(t *testing.T) {
	f := newFamily(t, "tcp", "tcp")
	f.child.states = 3
	if _, err := io.WriteString(f.parent.control.conn, "state 1 Yg==\nstate 0 YW"); err != nil {
		t.Fatal(err)
	}
	f.parent.control.close()
	if a, b := f.child.State(f.theirs[0]), f.child.State(f.theirs[1]); a != "" || b != "b" {
		t.Errorf("the states are %q and %q", a, b)
	}
}

// One that lives on and sends less than it has announced is waited for, but not
// for ever. What it sends after that still arrives.
func TestStateIsLate(t *testing.T) {
	t.Parallel() // it takes as long as it takes
	f := newFamily(t, "tcp", "tcp")
	f.child.states = 2
	if _, err := io.WriteString(f.parent.control.conn, "state 1 Yg==\nstate 0 YW"); err != nil {
		t.Fatal(err)
	}
	start := time.Now()
	a, first := f.child.State(f.theirs[0]), time.Since(start)
	start = time.Now()
	b, second := f.child.State(f.theirs[1]), time.Since(start)
	if a != "" || b != "b" {
		t.Errorf("the states are %q and %q", a, b)
	}
	if first < stateTimeout || second >= stateTimeout {
		t.Errorf("that took %v and %v, want %v, once", first, second, stateTimeout)
	}
	if _, err := io.WriteString(f.parent.control.conn, "E=\nmain\n"); err != nil {
		t.Fatal(err)
	}
	_ = f.parent.control.conn.CloseWrite()
	if got := received(f.child.control); len(got) != 2 || got[1].Word != Main {
		t.Errorf("got %q, want the rest of the state and main", got)
	}
}

// State may be secret. Anybody can see the environment and the arguments of a
// process; the control socket is seen by the two alone.
func TestStateGoesOverTheControlSocketAlone(t *testing.T) {
	const secret = "the secret of a listener"
	encoded := base64.StdEncoding.EncodeToString([]byte(secret))
	p := &Process{sole: true}
	l := listen(t, "tcp", "127.0.0.1:0")
	p.Add(l, "tcp", ":0")
	p.SetState(l, func() string { return secret })

	// The child shows what it was given: the listener is descriptor 3, and the
	// control socket 4.
	args, stdout := os.Args, os.Stdout
	r, w, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	defer r.Close()
	os.Args = []string{"/bin/sh", "-c", "env; echo $0 $*; echo; exec cat <&4"}
	os.Stdout = w
	c, err := p.Start(Options{Control: true})
	os.Args, os.Stdout = args, stdout
	_ = w.Close()
	if err != nil {
		t.Fatal(err)
	}
	defer c.Kill()
	_ = r.SetReadDeadline(time.Now().Add(patience))
	lines := bufio.NewScanner(r)
	states := ""
	for lines.Scan() && lines.Text() != "" {
		if strings.Contains(lines.Text(), secret) || strings.Contains(lines.Text(), encoded) {
			t.Errorf("the environment has %q", lines.Text())
		}
		if _, value, ok := strings.Cut(lines.Text(), envHandover+"="); ok {
			m, err := parseMarker(value)
			if err != nil {
				t.Error(err)
			}
			states = fmt.Sprint(m.control, " ", m.states)
		}
	}
	if states != "4 1" {
		t.Errorf("the marker tells of control socket and states %q, want 4 and 1", states)
	}
	if lines.Scan(); lines.Text() != "state 0 "+encoded {
		t.Errorf("the control socket gives %q, %v", lines.Text(), lines.Err())
	}
	c.TellMain()
	if lines.Scan(); lines.Text() != "main" {
		t.Errorf("the control socket gives %q, %v, want main", lines.Text(), lines.Err())
	}
}
