//go:build unix

package handoff

import (
	"bufio"
	"errors"
	"io"
	"net"
	"os"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"
)

// controls returns both ends of a control socket.
func controls(t *testing.T) (a, b *control) {
	t.Helper()
	ours, theirs, err := socketpair()
	if err != nil {
		t.Fatal(err)
	}
	ends := make([]*control, 2)
	for i, fd := range []int{ours, theirs} {
		if !closeOnExec(t, fd) {
			t.Error("a control socket would leak into every process that the program starts")
		}
		if ends[i], err = newControl(fd); err != nil {
			t.Fatal(err)
		}
		t.Cleanup(ends[i].close)
		_ = ends[i].conn.SetDeadline(time.Now().Add(patience))
	}
	return ends[0], ends[1]
}

// received returns what c receives up to the end.
func received(c *control) []Message {
	var all []Message
	c.receive(func(m Message) bool {
		all = append(all, m)
		return true
	})
	return all
}

func TestControl(t *testing.T) {
	a, b := controls(t)
	for _, err := range []error{
		a.send(Hello, version, 812),
		a.send(Ready, ""),
		a.send(Ready, "0,2"),
		a.send(Leaving, LeavingStop),
		b.send(Main),
	} {
		if err != nil {
			t.Fatal(err)
		}
	}
	a.conn.CloseWrite()
	want := []Message{{Hello, "1 812"}, {Ready, ""}, {Ready, "0,2"}, {Leaving, "stop"}}
	if got := received(b); !slices.Equal(got, want) {
		t.Errorf("got %q, want %q", got, want)
	}
	// The other direction still works.
	b.close()
	if got := received(a); !slices.Equal(got, []Message{{Main, ""}}) {
		t.Errorf("got %q, want main", got)
	}
	if err := a.send(Ready, ""); err == nil {
		t.Error("send to an end that is closed gives no error")
	}
}

func TestControlReceivesRubbish(t *testing.T) {
	long := strings.Repeat("x", maxLine/2)
	tests := []struct {
		name, sent string
		want       []Message
	}{
		{"nothing", "", nil},
		{"empty line", "\n", []Message{{"", ""}}},
		{"no end of line", "ready", []Message{{"ready", ""}}},
		{"later version", "hello 2 812 x=y\nnews\n", []Message{{"hello", "2 812 x=y"}, {"news", ""}}},
		{"binary", "\x00\xff\x16\x03\x01\nready \n", []Message{{"\x00\xff\x16\x03\x01", ""}, {"ready", ""}}},
		{"long line", "ready " + long + "\nmain\n", []Message{{"ready", long}, {"main", ""}}},
		{"endless line", "main\n" + long + long + long + "\nready \n", []Message{{"main", ""}}},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			a, b := controls(t)
			sent := make(chan struct{})
			go func() {
				defer close(sent)
				_, _ = io.WriteString(a.conn, tt.sent) // more than the socket holds
				a.close()
			}()
			if got := received(b); !slices.Equal(got, tt.want) {
				t.Errorf("got %.100q, want %.100q", got, tt.want)
			}
			b.close() // what was not read must not block the other side
			<-sent
		})
	}
}

func TestControlReceiveStops(t *testing.T) {
	a, b := controls(t)
	if err := errors.Join(a.send(Hello), a.send(Ready), a.send(Main)); err != nil {
		t.Fatal(err)
	}
	var got []string
	b.receive(func(m Message) bool { // a stays open
		got = append(got, m.Word)
		return m.Word != Ready
	})
	if !slices.Equal(got, []string{Hello, Ready}) {
		t.Errorf("got %q, want hello and ready", got)
	}
}

// A message is one line of text that anybody can write.
func TestControlWire(t *testing.T) {
	a, b := controls(t)
	if err := errors.Join(a.send(Hello, 1, 812), a.send(Ready, ""), a.send(Main)); err != nil {
		t.Fatal(err)
	}
	a.close()
	lines := bufio.NewScanner(b.conn)
	var got []string
	for lines.Scan() {
		got = append(got, lines.Text())
	}
	if want := []string{"hello 1 812", "ready ", "main"}; !slices.Equal(got, want) {
		t.Errorf("got %q, want %q", got, want)
	}
}

// What is no stream socket is an error. It belongs to newControl all the same.
func TestNewControlRejects(t *testing.T) {
	r, w, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	defer r.Close()
	defer w.Close()
	l := listen(t, "tcp", "127.0.0.1:0")
	conn, err := net.Dial("tcp", l.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	for name, c := range map[string]syscall.Conn{"pipe": r, "tcp": conn.(*net.TCPConn)} {
		fd, err := dup(c)
		if err != nil {
			t.Fatal(err)
		}
		id := identity(t, fd)
		if c, err := newControl(fd); err == nil {
			c.close()
			t.Errorf("%s: no error", name)
		}
		// The number may be open again by now, but on something else.
		if now, err := identify(fd); err == nil && now == id {
			t.Errorf("%s: descriptor %d is still open", name, fd)
		}
	}
}
