// The command gracectl restarts and stops a service that has a control socket, and
// tells how it is.
//
//	gracectl [flags] upgrade   restart; return when the new process serves, or why it does not
//	gracectl [flags] status    tell how the process is that serves
//	gracectl [flags] stop      stop; return when the process has been told
//
// The flags:
//
//	-socket path    the control socket; by default what GRACE_CONTROL is
//	-wait what      for upgrade: "ready", the default, or "standby": until the standby
//	                of the old process is over; for stop: "exit", until it is gone
//	-timeout time   how long to wait; by default 5 minutes; 0 is without limit
//	-json           write JSON
//
// The exit status is 0 if it is done, 1 if the service says that it is not, and 2
// if the service can't be asked, does not answer in time, or the command line is
// wrong. When the time is over an upgrade goes on all the same.
//
// In a unit of systemd:
//
//	ExecReload=/usr/bin/gracectl -socket /run/app/control upgrade
package main

import (
	"context"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"os/signal"
	"slices"
	"strings"
	"syscall"
	"time"

	"github.com/facebookgo/grace/gracectl"
)

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	os.Exit(run(ctx, os.Args[1:], os.Getenv("GRACE_CONTROL"), os.Stdout, os.Stderr))
}

// The exit status.
const (
	done = iota
	refused
	unknown
)

// call is what the command line says.
type call struct {
	client  gracectl.Client
	command string
	wait    string
	timeout time.Duration
	json    bool

	stdout, stderr io.Writer
}

const usage = `usage: gracectl [-socket path] [-timeout time] [-json] command
       upgrade [-wait ready|standby]   restart the service and wait for the outcome
       status                          tell how it is
       stop [-wait exit]               stop it
exit status: 0 done, 1 the service says that it is not, 2 it can't be asked
flags:
`

func run(ctx context.Context, args []string, socket string, stdout, stderr io.Writer) int {
	c, err := parse(args, socket, stdout, stderr)
	if errors.Is(err, flag.ErrHelp) {
		return done
	}
	if err != nil {
		fmt.Fprintln(stderr, "gracectl:", err)
		return unknown
	}
	if c.timeout > 0 {
		var cancel context.CancelFunc
		ctx, cancel = context.WithTimeoutCause(ctx, c.timeout, fmt.Errorf("no answer within %v", c.timeout))
		defer cancel()
	}
	if err := c.do(ctx); err != nil {
		return c.report(err)
	}
	return done
}

func parse(args []string, socket string, stdout, stderr io.Writer) (*call, error) {
	c := &call{stdout: stdout, stderr: stderr}
	f := flag.NewFlagSet("gracectl", flag.ContinueOnError)
	f.SetOutput(io.Discard)
	f.StringVar(&c.client.Path, "socket", socket, "`path` of the control socket; by default that in GRACE_CONTROL")
	f.StringVar(&c.wait, "wait", "", "`what` to wait for")
	f.DurationVar(&c.timeout, "timeout", 5*time.Minute, "how long to wait; 0 is without limit")
	f.BoolVar(&c.json, "json", false, "write JSON")
	// Flags may stand on both sides of the command.
	err := f.Parse(args)
	if err == nil && f.NArg() != 0 {
		c.command = f.Arg(0)
		err = f.Parse(f.Args()[1:])
	}
	if c.command == "help" && err == nil {
		err = flag.ErrHelp
	}
	waits, known := map[string][]string{"upgrade": {"", "ready", "standby"}, "status": {""}, "stop": {"", "exit"}}[c.command]
	switch {
	case errors.Is(err, flag.ErrHelp):
		fmt.Fprint(stdout, usage)
		f.SetOutput(stdout)
		f.PrintDefaults()
		return nil, err
	case err != nil:
		return nil, err
	case c.command == "":
		return nil, errors.New("what shall be done: upgrade, status or stop? See gracectl -h")
	case !known:
		return nil, fmt.Errorf("unknown command %q, see gracectl -h", c.command)
	case f.NArg() != 0:
		return nil, fmt.Errorf("what is %q?", f.Arg(0))
	case !slices.Contains(waits, c.wait):
		return nil, fmt.Errorf("%s does not wait for %q", c.command, c.wait)
	case c.client.Path == "":
		return nil, errors.New("where is the control socket? Say -socket, or set GRACE_CONTROL")
	}
	return c, nil
}

func (c *call) do(ctx context.Context) error {
	switch c.command {
	case "upgrade":
		until := gracectl.UntilReady
		if c.wait == "standby" {
			until = gracectl.UntilAlone
		}
		r, err := c.client.Upgrade(ctx, until)
		if err != nil {
			return err
		}
		c.print(struct {
			gracectl.Result
			Seconds float64 `json:"seconds"`
		}{r, r.Took.Seconds()}, fmt.Sprintf("process %d serves, process %d is replaced, after %v\n", r.New, r.Old, round(r.Took)))
	case "status":
		s, err := c.client.Status(ctx)
		if err != nil {
			return err
		}
		c.print(s, describe(s, time.Now()))
	case "stop":
		pid, err := c.client.Stop(ctx, c.wait == "exit")
		if err != nil {
			return err
		}
		what := "stops"
		if c.wait == "exit" {
			what = "is gone"
		}
		c.print(map[string]int{"pid": pid}, fmt.Sprintf("process %d %s\n", pid, what))
	}
	return nil
}

// print writes what the service has said.
func (c *call) print(v any, text string) {
	if !c.json {
		fmt.Fprint(c.stdout, text)
		return
	}
	e := json.NewEncoder(c.stdout)
	e.SetEscapeHTML(false)
	_ = e.Encode(v)
}

// describe is a status for people.
func describe(s gracectl.Status, now time.Time) string {
	var b strings.Builder
	line := func(what, format string, args ...any) {
		fmt.Fprintf(&b, "%-13s", what)
		fmt.Fprintf(&b, format+"\n", args...)
	}
	process := func(p gracectl.Process) string {
		if p.Started.IsZero() {
			return fmt.Sprint(p.PID)
		}
		return fmt.Sprintf("%d, for %v", p.PID, round(now.Sub(p.Started)))
	}
	line("process", "%s", process(gracectl.Process{PID: s.PID, Started: s.Started}))
	line("generation", "%d", s.Generation)
	line("phase", "%s", s.Phase)
	if s.Upgrade != "" {
		line("restart", "%s", s.Upgrade)
	}
	line("connections", "%d", s.Connections)
	if s.Child != nil {
		line("child", "%s", process(*s.Child))
	}
	if s.Parent != nil {
		line("parent", "%s", process(*s.Parent))
	}
	if f := s.LastFailure; f != nil {
		line("last failure", "%v ago: %s", round(now.Sub(f.Time)), f.Error)
	}
	return b.String()
}

func round(d time.Duration) time.Duration {
	if d < time.Second {
		return d.Round(time.Millisecond)
	}
	return d.Round(time.Second / 10)
}

// report says why it is not done.
func (c *call) report(err error) (status int) {
	var answer *gracectl.Error
	if !errors.As(err, &answer) {
		c.print(map[string]string{"error": err.Error()}, "")
		fmt.Fprintln(c.stderr, err)
		return unknown
	}
	c.print(struct {
		Error   string  `json:"error"`
		PID     int     `json:"pid"`
		Child   int     `json:"child,omitempty"`
		Seconds float64 `json:"seconds,omitempty"`
		Stderr  string  `json:"stderr,omitempty"`
		Journal string  `json:"journal,omitempty"`
	}{answer.Message, answer.PID, answer.Child, answer.Took.Seconds(), answer.Stderr, answer.Journal}, "")
	fmt.Fprintf(c.stderr, "gracectl: %s\n", answer.Message)
	if errors.Is(err, gracectl.ErrFailed) {
		fmt.Fprintf(c.stderr, "gracectl: process %d serves on\n", answer.PID)
	}
	if answer.Stderr != "" {
		fmt.Fprintln(c.stderr, "gracectl: its last lines on standard error:")
		for line := range strings.Lines(answer.Stderr) {
			fmt.Fprintf(c.stderr, "\t%s\n", strings.TrimSuffix(line, "\n"))
		}
	}
	if answer.Journal != "" {
		fmt.Fprintf(c.stderr, "gracectl: what it has said: %s\n", answer.Journal)
	}
	return refused
}
