package grace

import (
	"context"
	"encoding/json"
	"errors"
	"net"
	"os"
	"sync"
	"time"

	"github.com/facebookgo/grace/gracectl"
	"github.com/facebookgo/grace/internal/control"
	"github.com/facebookgo/grace/internal/handoff"
)

// The control sockets of this process. Each process of a service makes its own, and
// puts it in the place of the one before when it is ready; the one before goes on
// answering whoever has connected to it.

// controls are the servers of control sockets, one for each path. The lock of the
// engine is not taken while mu is held: a service that joins opens a socket with it.
type controls struct {
	mu      sync.Mutex
	servers map[string]*control.Server
	held    []net.Conn // closed by the end of this process
}

// openControl makes the control socket of p, unless there is none or it is there
// already.
func (p *Process) openControl() error {
	if p.ControlSocket == "" {
		return nil
	}
	path := handoff.This().Absolute(p.ControlSocket)
	c := &shared.controls
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.servers[path] != nil {
		return nil
	}
	var family []int
	if origin, parent := handoff.This().Origin(); origin.Handover() {
		family = []int{parent}
	}
	s, err := control.Listen(path, family...)
	if err != nil {
		return err
	}
	if c.servers == nil {
		c.servers = make(map[string]*control.Server)
	}
	c.servers[path] = control.Serve(s, shared.answer)
	return nil
}

// restore puts the sockets back in their places after the child pid, which may have
// taken them, has come to its end.
func (c *controls) restore(pid int) error {
	c.mu.Lock()
	defer c.mu.Unlock()
	var errs []error
	for _, s := range c.servers {
		errs = append(errs, s.Restore(pid))
	}
	return errors.Join(errs...)
}

// close removes the sockets that are still ours, and waits until all who have asked
// are answered. An answer may need the lock of the engine.
func (c *controls) close() {
	c.mu.Lock()
	servers := c.servers
	c.servers = nil
	c.mu.Unlock()
	var held []net.Conn
	for _, s := range servers {
		held = append(held, s.Close()...)
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	c.held = append(c.held, held...)
}

// answer deals with one request on a control socket.
func (e *engine) answer(r control.Request) (a control.Answer) {
	switch r.Command {
	case control.Upgrade:
		o, err := e.upgrade(context.Background(), r.Wait == control.WaitStandby)
		a = refusal(err)
		if err == nil {
			a.Child, a.Seconds = o.child, o.after.Seconds()
		}
	case control.Stop:
		a = refusal(e.askStop())
	case control.Status:
		b, err := json.Marshal(e.status())
		if err != nil {
			return refusal(err)
		}
		a.Status = b
	}
	return a
}

func refusal(err error) control.Answer {
	var failure *UpgradeError
	switch {
	case err == nil:
		return control.Answer{}
	case errors.As(err, &failure):
		return control.Answer{
			Code:    control.Failed,
			Error:   failure.Err.Error(),
			Child:   failure.Child,
			Seconds: failure.After.Seconds(),
			Stderr:  failure.Stderr,
			Journal: failure.Journal,
		}
	case errors.Is(err, ErrUpgrading):
		return control.Answer{Code: control.Busy, Error: err.Error()}
	default:
		return control.Answer{Code: control.NotServing, Error: err.Error()}
	}
}

// status is what this process says about itself.
func (e *engine) status() gracectl.Status {
	h := handoff.This()
	s := gracectl.Status{PID: os.Getpid(), Generation: h.Generation(), Started: h.Born().Truncate(time.Millisecond)}
	if pid, born, ok := h.Parent(); ok {
		s.Parent = &gracectl.Process{PID: pid, Started: born}
	}
	e.mu.Lock()
	l := e.loop
	if l == nil {
		e.mu.Unlock()
		s.Phase = "not serving"
		return s
	}
	s.Phase, s.Upgrade = l.phase.String(), l.doing
	if l.phase == serving && l.doing != "" {
		s.Phase = "upgrading"
	}
	if l.child != nil {
		s.Child = &gracectl.Process{PID: l.child.MainPID(), Started: l.childBorn}
	}
	if l.failure != nil {
		s.LastFailure = &gracectl.Failure{Time: l.failedAt, Error: l.failure.Error()}
	}
	var services []Service
	for _, m := range e.members {
		services = append(services, m.service)
	}
	e.mu.Unlock()
	for _, service := range services {
		if c, ok := service.(Counter); ok {
			s.Connections += c.Connections()
		}
	}
	return s
}

func (p phase) String() string {
	switch p {
	case standby:
		return "standby"
	case announcing:
		return "stopping"
	case draining:
		return control.Draining
	}
	return "serving"
}
