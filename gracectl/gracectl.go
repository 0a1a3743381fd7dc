// Package gracectl asks a service that has a control socket to restart, to stop, or
// how it is. The command of that name is in cmd/gracectl.
//
//	c := gracectl.Client{Path: "/run/app/control"}
//	result, err := c.Upgrade(ctx, gracectl.UntilReady)
//	var failure *gracectl.Error
//	if errors.As(err, &failure) {
//		log.Print(failure.Stderr) // the last words of the new process
//	}
package gracectl

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"time"

	"github.com/facebookgo/grace/internal/control"
)

// Client asks one service. Each call makes a connection of its own, so that it
// reaches the process that serves at that moment.
type Client struct {
	Path string // of the control socket
}

// An Error is an answer of the service: what was asked is not done.
type Error struct {
	PID     int    // who answers
	Message string // why

	// These are about an upgrade that has failed.
	Child   int           // the new process; 0 if none was started
	Took    time.Duration // until it had failed
	Stderr  string        // what it has last written to standard error, where that is known: see grace.UpgradeError
	Journal string        // the command that shows it, if it went to the journal

	code string
}

func (e *Error) Error() string { return e.Message }

// Is reports whether e is of the kind of target: [ErrFailed], [ErrBusy] or
// [ErrNotServing].
func (e *Error) Is(target error) bool {
	switch target {
	case ErrFailed:
		return e.code == control.Failed
	case ErrBusy:
		return e.code == control.Busy
	case ErrNotServing:
		return e.code == control.NotServing
	}
	return false
}

// What errors.Is finds in an [Error].
var (
	// ErrFailed: the upgrade has failed, and the process that was asked serves on.
	ErrFailed = errors.New("gracectl: the upgrade failed")
	// ErrBusy: an upgrade is under way already, or too many clients ask at once.
	ErrBusy = errors.New("gracectl: busy")
	// ErrNotServing: the process starts, is about to stop, or was replaced.
	ErrNotServing = errors.New("gracectl: the process does not serve")
)

// Until is what Upgrade waits for. The zero value is UntilReady.
type Until string

const (
	// UntilReady is until the new process serves.
	UntilReady Until = control.WaitReady
	// UntilAlone is until the standby of the old process is over as well, so that
	// the new one has proved itself.
	UntilAlone Until = control.WaitStandby
)

// Result is an upgrade that has succeeded.
type Result struct {
	Old  int           `json:"old"` // pids
	New  int           `json:"new"`
	Took time.Duration `json:"-"` // until that for which Upgrade has waited
}

// Upgrade restarts the service, as SIGUSR2 does, and waits for the outcome. If ctx
// ends first, the upgrade goes on. An answer that is no success is an [*Error].
func (c *Client) Upgrade(ctx context.Context, until Until) (Result, error) {
	a, conn, err := c.ask(ctx, control.Request{Command: control.Upgrade, Wait: string(until)})
	if err != nil {
		return Result{}, err
	}
	_ = conn.Close()
	return Result{Old: a.PID, New: a.Child, Took: seconds(a.Seconds)}, nil
}

// Status returns how the process is that serves.
func (c *Client) Status(ctx context.Context) (Status, error) {
	var s Status
	a, conn, err := c.ask(ctx, control.Request{Command: control.Status})
	if err != nil {
		return s, err
	}
	_ = conn.Close()
	if err := json.Unmarshal(a.Status, &s); err != nil {
		return s, fmt.Errorf("gracectl: status: %w", err)
	}
	return s, nil
}

// Stop stops the service, as SIGTERM does, and a new process that is starting, too.
// It returns the pid of the process that stops as soon as that has been told; if wait
// is true, when it is gone. If ctx ends first, it stops all the same, and the pid is
// returned with the error.
func (c *Client) Stop(ctx context.Context, wait bool) (pid int, err error) {
	a, conn, err := c.ask(ctx, control.Request{Command: control.Stop})
	if err != nil {
		return 0, err
	}
	defer conn.Close()
	if wait {
		err = untilClosed(ctx, conn)
	}
	return a.PID, err
}

// untilClosed waits for the end of the process on the other side, which closes the
// connection in no other way.
func untilClosed(ctx context.Context, conn net.Conn) error {
	stop := context.AfterFunc(ctx, func() { _ = conn.SetReadDeadline(time.Unix(1, 0)) })
	defer stop()
	_, _ = io.Copy(io.Discard, conn) // a reset says the same
	if ctx.Err() != nil {
		return fmt.Errorf("gracectl: %w", context.Cause(ctx))
	}
	return nil
}

func (c *Client) ask(ctx context.Context, r control.Request) (control.Answer, net.Conn, error) {
	a, conn, err := control.Ask(ctx, c.Path, r)
	if err != nil {
		return a, nil, fmt.Errorf("gracectl: %w", err)
	}
	if a.Code != "" {
		_ = conn.Close()
		return a, nil, &Error{
			PID:     a.PID,
			Message: a.Error,
			Child:   a.Child,
			Took:    seconds(a.Seconds),
			Stderr:  a.Stderr,
			Journal: a.Journal,
			code:    a.Code,
		}
	}
	return a, conn, nil
}

func seconds(s float64) time.Duration { return time.Duration(s * float64(time.Second)) }
