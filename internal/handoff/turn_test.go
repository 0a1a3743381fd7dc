//go:build unix

package handoff

import (
	"io"
	"net"
	"testing"
	"time"
)

// A child reads when its parent has said that it reads no more, or can't say it.
func TestTurn(t *testing.T) {
	comes := func(t *testing.T, turn <-chan struct{}, want bool) {
		t.Helper()
		wait := 20 * time.Millisecond
		if want {
			wait = 30 * time.Second
		}
		select {
		case <-turn:
			if !want {
				t.Fatal("it is the turn of the child too early")
			}
		case <-time.After(wait):
			if want {
				t.Fatal("the turn of the child does not come")
			}
		}
	}
	tests := []struct {
		name   string
		tells  bool // the parent says when it stands by
		parent func(f *family)
	}{
		{"standby", true, func(f *family) { f.parent.TellStandby() }},
		{"main", true, func(f *family) { f.parent.TellMain() }},
		{"exit", true, func(f *family) { f.parent.control.close() }},
		{"an older parent", false, func(*family) {}},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			f := newFamily(t, "tcp")
			f.child.origin, f.child.told = Parent, tt.tells
			turn := f.child.Turn(f.theirs[0])
			comes(t, turn, false)
			go func() { _, _ = io.Copy(io.Discard, f.parent.control.conn) }()
			defer f.parent.control.close()
			if _, err := f.child.Ready(); err != nil {
				t.Fatal(err)
			}
			if tt.tells {
				comes(t, turn, false)
			}
			tt.parent(f)
			comes(t, turn, true)
			comes(t, f.child.Turn(f.theirs[0]), true)
		})
	}
}

// A socket that the parent does not have is the child's from the beginning.
func TestTurnOfOwnSockets(t *testing.T) {
	f := newFamily(t)
	f.child.origin, f.child.told = Parent, true
	l := listen(t, "tcp", "127.0.0.1:0")
	f.child.Add(l, "tcp", "own")
	for name, l := range map[string]net.Listener{"made here": l, "not of this package": listen(t, "tcp", "127.0.0.1:0")} {
		select {
		case <-f.child.Turn(l):
		default:
			t.Errorf("%s: it is not the turn of the child", name)
		}
	}
}
