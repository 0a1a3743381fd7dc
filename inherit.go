package grace

import (
	"errors"
	"fmt"

	"github.com/facebookgo/grace/internal/handoff"
)

// ErrNotInheriting is returned by [Process.Inherit] when nobody passed a
// listener to this process, or all of them have been asked for already.
var ErrNotInheriting = errors.New("grace: no inherited listeners")

// Inherit returns the listeners that this process was passed, each as
// [NewListener] makes them: by the process that it replaces, in the order in
// which that one gave them to Wait or Restart, or by a service manager as
// sd_listen_fds(3) describes. Each is given away once.
//
// It returns [ErrNotInheriting] if there are none, and a different error if the
// environment announces descriptors that are not there or are no sockets that
// listen; nothing is closed then.
func (p *Process) Inherit() ([]Listener, error) {
	h := handoff.This()
	if err := h.Err(); err != nil {
		return nil, err
	}
	inherited, err := h.TakeAll()
	if err != nil {
		return nil, err
	}
	if len(inherited) == 0 {
		return nil, ErrNotInheriting
	}
	listeners := make([]Listener, len(inherited))
	for i, l := range inherited {
		listener, ok := l.(Listener)
		if !ok {
			return nil, fmt.Errorf("grace: inherited a %T, which can't be passed on", l)
		}
		listeners[i] = NewListener(listener)
	}
	return listeners, nil
}
