package gracehttp_test

import (
	"fmt"
	"io"
	"os"
	"os/exec"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/facebookgo/grace/internal/testbin"
	"github.com/facebookgo/grace/internal/testbin/play"
)

// terminal is what a shell with job control runs in, and is typed at.
type terminal struct {
	t              *testing.T
	keyboard, line *os.File
}

func newTerminal(t *testing.T) *terminal {
	t.Helper()
	keyboard, err := os.OpenFile("/dev/ptmx", os.O_RDWR|syscall.O_NOCTTY, 0)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { keyboard.Close() })
	raw, err := keyboard.SyscallConn()
	if err != nil {
		t.Fatal(err)
	}
	number, ioctlErr := 0, error(nil)
	err = raw.Control(func(fd uintptr) {
		if ioctlErr = unix.IoctlSetPointerInt(int(fd), unix.TIOCSPTLCK, 0); ioctlErr == nil {
			number, ioctlErr = unix.IoctlGetInt(int(fd), unix.TIOCGPTN)
		}
	})
	if err != nil || ioctlErr != nil {
		t.Fatal(err, ioctlErr)
	}
	line, err := os.OpenFile(fmt.Sprint("/dev/pts/", number), os.O_RDWR|syscall.O_NOCTTY, 0)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { line.Close() })
	go io.Copy(io.Discard, keyboard) // what is shown; ends with it
	return &terminal{t, keyboard, line}
}

// shell starts the server in the foreground of a shell, which reports when it has
// ended and is done when it gets a line.
func (term *terminal) shell(_ *testbin.Service, cmd *exec.Cmd) {
	const script = `"$0"; echo '{"event":"log","text":"prompt"}'; read line`
	cmd.Args = []string{"sh", "-m", "-c", script, cmd.Path}
	cmd.Path = "/bin/sh"
	cmd.Stdin = term.line
	cmd.SysProcAttr = &syscall.SysProcAttr{Setsid: true, Setctty: true}
}

func (term *terminal) hit(keys string) {
	term.t.Helper()
	if _, err := io.WriteString(term.keyboard, keys); err != nil {
		term.t.Fatal(err)
	}
}

func prompt(e play.Event) bool { return e.Event == play.Log && e.Text == "prompt" }

const ctrlC = "\x03"

// Ctrl-C stops all processes of the job, and cuts no request.
func TestCtrlC(t *testing.T) {
	term := newTerminal(t)
	cfg := httpConfig()
	cfg.Standby = time.Hour
	s := testbin.Start(t, cfg, term.shell)
	first, addrs := s.Newest()
	slow := testbin.Dial(t, play.Listen{}, addrs[0])
	slow.Send(testbin.Request("sleep 1s"))
	s.Wait("the slow request", asked("sleep 1s"))
	child := s.RestartPID(first)
	s.WaitLog(first, "standing by")
	s.WaitLog(child, "the old process is told")
	term.hit(ctrlC)
	if got := slow.Receive(); got.Body != fmt.Sprint(first) {
		t.Errorf("got %+v, want an answer of %d", got, first)
	}
	s.WaitReturned(first)
	s.WaitReturned(child)
	s.Wait("the prompt", prompt)
	term.hit("\n")
	s.WaitGone()
}

// What drains since a restart is killed by the second Ctrl-C.
func TestCtrlCDuringDrain(t *testing.T) {
	term := newTerminal(t)
	s := testbin.Start(t, httpConfig(), term.shell)
	first, addrs := s.Newest()
	slow := testbin.Dial(t, play.Listen{}, addrs[0])
	slow.Send(testbin.Request("sleep 1h"))
	s.Wait("the slow request", asked("sleep 1h"))
	child := s.RestartPID(first)
	s.WaitLog(first, "requests in flight are waited for")
	s.WaitLog(child, "the old process is told")
	term.hit(ctrlC)
	s.WaitReturned(child)
	s.WaitLog(first, "draining already, the request to stop changes nothing")
	term.hit(ctrlC)
	slow.WaitClosed()
	s.WaitExit(first)
	s.WaitGone() // a script ends when its program is killed so
}

// The shell takes the end of the first process for that of the job. What is typed then
// is not for the new process: it serves on until it is stopped by its pid.
func TestPromptAfterRestart(t *testing.T) {
	term := newTerminal(t)
	s := testbin.Start(t, httpConfig(), term.shell)
	first, child := s.Restart()
	s.WaitReturned(first)
	s.Wait("the prompt", prompt)
	s.WaitLog(child, "the old process is told")
	_, addrs := s.Newest()
	term.hit(ctrlC) // is for the shell, which ends
	s.WaitOne()
	if got := testbin.AskPID(t, targets(addrs)[0]); got != child {
		t.Errorf("answered by %d, want %d", got, child)
	}
	s.Signal(child, syscall.SIGTERM)
	s.WaitReturned(child)
	s.WaitGone()
}
