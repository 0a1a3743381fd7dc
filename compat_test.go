package grace_test

import (
	"errors"
	"net"
	"os"
	"testing"
	"time"

	"github.com/facebookgo/grace"
)

// Programs written for facebookgo/grace must compile against this package: each
// name and type of its API, as the compiler sees them.
var (
	_ error = grace.ErrNotInheriting
	_ error = grace.ErrAlreadyClosed

	_ func(grace.Listener) grace.Listener = grace.NewListener

	_ func([]grace.Listener) error     = grace.Wait
	_ func() ([]grace.Listener, error) = grace.Inherit
	_ func() error                     = grace.CloseParent
	_ func([]grace.Listener) error     = grace.Restart

	_ func(*grace.Process, []grace.Listener) error     = (*grace.Process).Wait
	_ func(*grace.Process) ([]grace.Listener, error)   = (*grace.Process).Inherit
	_ func(*grace.Process) error                       = (*grace.Process).CloseParent
	_ func(*grace.Process, []grace.Listener) error     = (*grace.Process).Restart
	_ func(grace.Process) (termTimeout *time.Duration) = func(p grace.Process) *time.Duration { return &p.TermTimeout }

	_ = grace.Process{TermTimeout: time.Minute}
)

// listenerMethods are those that a Listener has: one more would break the
// implementations of programs, one less their calls.
type listenerMethods interface {
	net.Listener
	File() (*os.File, error)
}

var (
	_ listenerMethods = grace.Listener(nil)
	_ grace.Listener  = listenerMethods(nil)
	_ grace.Listener  = (*net.TCPListener)(nil)
	_ grace.Listener  = (*net.UnixListener)(nil)
)

func TestErrorTexts(t *testing.T) {
	for err, want := range map[error]string{
		grace.ErrNotInheriting: "grace: no inherited listeners",
		grace.ErrAlreadyClosed: "grace: already closed",
	} {
		if err.Error() != want {
			t.Errorf("got %q, want %q", err, want)
		}
	}
}

func TestZeroProcess(t *testing.T) {
	var p grace.Process
	for name, inherit := range map[string]func() ([]grace.Listener, error){"method": p.Inherit, "function": grace.Inherit} {
		if ls, err := inherit(); err != grace.ErrNotInheriting || ls != nil {
			t.Errorf("Inherit, the %s: %v, %v, want ErrNotInheriting itself", name, ls, err)
		}
	}
	// Without a parent that waits for it there is nobody to tell.
	if err := errors.Join(p.CloseParent(), p.CloseParent(), grace.CloseParent()); err != nil {
		t.Errorf("CloseParent: %v", err)
	}
	if p.Restart(nil) == nil || grace.Restart([]grace.Listener{}) == nil {
		t.Error("Restart without listeners gives no error")
	}
}
