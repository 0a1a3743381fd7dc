//go:build unix

package grace_test

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/facebookgo/grace/gracectl"
	"github.com/facebookgo/grace/internal/testbin"
	"github.com/facebookgo/grace/internal/testbin/play"
)

// controlled is a server with a control socket whose path is relative, in a
// process that has gone elsewhere. The time of grace is for a client on a busy machine,
// which may take long from its connection to its request.
func controlled(t *testing.T) play.Config {
	t.Helper()
	return play.Config{
		Role:          "http",
		Listens:       []play.Listen{{Network: "tcp", Addr: "127.0.0.1:0"}},
		ControlSocket: "control",
		Chdir:         t.TempDir(),
		IdleGrace:     testbin.Patience,
	}
}

func patient(t *testing.T) context.Context {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), testbin.Patience)
	t.Cleanup(cancel)
	return ctx
}

// started is Start that waits for the control socket, too.
func started(t *testing.T, cfg play.Config, options ...testbin.Option) (*testbin.Service, *gracectl.Client) {
	t.Helper()
	s := testbin.Start(t, cfg, options...)
	c := s.Control(cfg.ControlSocket)
	testbin.Poll(t, "the control socket", func() bool {
		_, err := os.Lstat(c.Path)
		return err == nil
	})
	return s, c
}

// serves accepts that the process pid serves.
func serves(pid int) func(play.Event) bool {
	return func(e play.Event) bool { return e.Event == play.Serving && e.PID == pid }
}

func upgrade(t *testing.T, c *gracectl.Client) gracectl.Result {
	t.Helper()
	r, err := c.Upgrade(patient(t), gracectl.UntilReady)
	if err != nil {
		t.Fatal(err)
	}
	return r
}

// refused returns the answer to an upgrade that must fail.
func refused(t *testing.T, err, kind error, reason string) *gracectl.Error {
	t.Helper()
	var answer *gracectl.Error
	if !errors.As(err, &answer) || !errors.Is(err, kind) || !strings.Contains(answer.Message, reason) {
		t.Fatalf("error %v, want %q, which is %v", err, reason, kind)
	}
	return answer
}

func exists(t *testing.T, path string) bool {
	t.Helper()
	_, err := os.Lstat(path)
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		t.Fatal(err)
	}
	return err == nil
}

// Who asks for an upgrade is told when the new process serves, and which it is. The
// socket goes from one process to the next, and with the last one.
func TestControlUpgrade(t *testing.T) {
	cfg := controlled(t)
	s, c := started(t, cfg)
	first, addrs := s.Newest()
	target := testbin.HTTP("http", addrs[0])
	load := testbin.NewLoad(t, target)
	load.WaitPID(first)
	for generation := 2; generation <= 5; generation++ {
		old, _ := s.Newest()
		r := upgrade(t, c)
		new := s.Wait("the new process to serve", serves(r.New)).PID
		if r.Old != old || r.Took <= 0 {
			t.Errorf("%+v, want the old pid %d", r, old)
		}
		if pid := testbin.AskPID(t, target); pid != new {
			t.Errorf("answered by %d after the upgrade, want %d", pid, new)
		}
		status := testbin.Status(t, c)
		if status.PID != new || status.Generation != generation || status.Phase != "serving" {
			t.Errorf("status %+v, want generation %d, pid %d", status, generation, new)
		}
		info, err := os.Lstat(c.Path)
		if err != nil || info.Mode() != fs.ModeSocket|0o600 {
			t.Errorf("%v, %v, want a socket with mode 0600", info, err)
		}
		s.WaitReturned(old)
	}
	load.Stop()
	s.Stop()
	entries, err := os.ReadDir(s.Dir())
	for _, e := range entries {
		if name := e.Name(); name != "server" && name != "config" {
			t.Errorf("%s is left behind", name)
		}
	}
	if err != nil {
		t.Error(err)
	}
}

// install puts another file of the directory of the service in its place.
func install(name string) func(*testbin.Service) {
	return func(s *testbin.Service) { s.Install(filepath.Join(s.Dir(), name)) }
}

func deploy(cfg play.Config) func(*testbin.Service) {
	return func(s *testbin.Service) { s.Deploy(cfg) }
}

// Who asks for an upgrade that fails is told why, with the last lines of standard
// error where that is a file. The old process serves on, also on the control socket.
func TestControlUpgradeFails(t *testing.T) {
	log, err := os.OpenFile(filepath.Join(t.TempDir(), "log"), os.O_CREATE|os.O_WRONLY|os.O_APPEND, 0o600)
	if err != nil {
		t.Fatal(err)
	}
	defer log.Close()
	fmt.Fprintln(log, "what was there before")
	cfg := controlled(t)
	s, c := started(t, cfg, testbin.Stderr(log))
	pid, addrs := s.Newest()
	target := testbin.HTTP("http", addrs[0])
	load := testbin.NewLoad(t, target)
	load.WaitPID(pid)
	load.Pause()
	before := testbin.Ask(t, target, "fds")
	load.Resume()
	inUse := cfg
	inUse.ControlSocket = "program" // is a file
	if err := os.WriteFile(filepath.Join(s.Dir(), "program"), []byte("no program at all\n"), 0o755); err != nil {
		t.Fatal(err)
	}
	var everything strings.Builder // what is written to standard error
	for i := 89; i < 100; i++ {
		fmt.Fprintf(&everything, "line %d of the complaint%s\n", i, strings.Repeat(".", i))
	}
	for _, f := range []struct {
		name    string
		damage  func(*testbin.Service)
		reason  string
		started bool
		stderr  string
	}{
		{"exits", deploy(play.Config{Role: "exit"}), "new process exited before it was ready: exit status 7", true, ""},
		{"complains", deploy(play.Config{Role: "complain"}), "new process exited before it was ready: exit status 7", true, everything.String()},
		{"panics", deploy(play.Config{Role: "panic"}), "new process exited before it was ready: exit status 2", true, "panic: on purpose"},
		{"panics in init", deploy(play.Config{Role: "panic in init"}), "exit status 2", true, "panic: on purpose, in init"},
		{"is killed", deploy(play.Config{Role: "kill"}), "signal: killed", true, ""},
		{"can't listen", deploy(play.Config{Role: "http", Listens: []play.Listen{{Addr: "192.0.2.1:1"}}}), "new process failed: listen tcp 192.0.2.1:1: bind: cannot assign requested address", true, ""},
		{"can't have the control socket", deploy(inUse), "program: there is a file that is no socket", true, ""},
		{"missing", install("nothing"), "no such file or directory", false, ""},
		{"no program", install("program"), "exec format error", false, ""},
	} {
		f.damage(s)
		_, err := c.Upgrade(patient(t), gracectl.UntilReady)
		answer := refused(t, err, gracectl.ErrFailed, f.reason)
		if answer.PID != pid || (answer.Child > 0) != f.started || answer.Took <= 0 || answer.Journal != "" {
			t.Errorf("%s: answer %+v", f.name, answer)
		}
		if !strings.Contains(answer.Stderr, f.stderr) || f.stderr == "" && answer.Stderr != "" || len(answer.Stderr) > 4<<10 ||
			strings.Count(answer.Stderr, "\n") > 20 || strings.Contains(answer.Stderr, "what was there before") {
			t.Errorf("%s: standard error %q, want %q", f.name, answer.Stderr, f.stderr)
		}
		status := testbin.Status(t, c)
		if status.PID != pid || status.Phase != "serving" || status.Child != nil || status.Generation != 1 ||
			status.LastFailure == nil || status.LastFailure.Error != answer.Message || time.Since(status.LastFailure.Time) > testbin.Patience {
			t.Errorf("%s: status %+v", f.name, status)
		}
		if children := testbin.Children(t, pid); len(children) != 0 {
			t.Errorf("%s: children are left: %v", f.name, children)
		}
		load.WaitMore(3)
		s.Deploy(cfg)
		s.Install(testbin.Executable(t))
	}
	load.Pause()
	testbin.SameDescriptors(t, target, before)
	load.Resume()
	r := upgrade(t, c)
	load.WaitPID(r.New)
	load.Stop()
	s.WaitReturned(pid)
	s.Wait("the new process to serve", serves(r.New))
	s.Stop()
	if exists(t, c.Path) {
		t.Error("the control socket is left behind")
	}
}

// One that hangs is not waited for longer than is configured.
func TestControlUpgradeHangs(t *testing.T) {
	cfg := controlled(t)
	cfg.StartTimeout = time.Second
	s, c := started(t, cfg)
	pid, addrs := s.Newest()
	s.Deploy(play.Config{Role: "hang"})
	_, err := c.Upgrade(patient(t), gracectl.UntilReady)
	answer := refused(t, err, gracectl.ErrFailed, "new process is not ready within 1s")
	if answer.PID != pid || answer.Child == 0 || answer.Took < cfg.StartTimeout {
		t.Errorf("answer %+v", answer)
	}
	status := testbin.Status(t, c)
	if status.PID != pid || status.Phase != "serving" || status.Child != nil ||
		status.LastFailure == nil || status.LastFailure.Error != answer.Message {
		t.Errorf("status %+v", status)
	}
	if children := testbin.Children(t, pid); len(children) != 0 {
		t.Errorf("children are left: %v", children)
	}
	if got := testbin.AskPID(t, testbin.HTTP("http", addrs[0])); got != pid {
		t.Errorf("answered by %d, want %d", got, pid)
	}
	s.Stop()
}

// A hook that fails is why the upgrade does.
func TestControlUpgradeFailsInHook(t *testing.T) {
	cfg := controlled(t)
	cfg.PreStart = "the index is locked"
	s, c := started(t, cfg)
	_, err := c.Upgrade(patient(t), gracectl.UntilReady)
	if answer := refused(t, err, gracectl.ErrFailed, "pre-start hook: the index is locked"); answer.Child != 0 {
		t.Errorf("answer %+v", answer)
	}
	s.Stop()
}

// Who waits for the end of the standby is told that the child has died. Until then
// the child has the socket, and the parent after that.
func TestControlTakeBack(t *testing.T) {
	cfg := controlled(t)
	cfg.Standby = time.Hour
	s, c := started(t, cfg)
	parent, addrs := s.Newest()
	target := testbin.HTTP("http", addrs[0])
	load := testbin.NewLoad(t, target)
	load.WaitPID(parent)
	load.Pause()
	before := testbin.Ask(t, target, "fds")
	load.Resume()
	for range 2 {
		n := len(s.Events())
		failed := make(chan error, 1)
		go func() {
			_, err := c.Upgrade(patient(t), gracectl.UntilAlone)
			failed <- err
		}()
		child := s.WaitAfter(n, "the child", func(e play.Event) bool { return e.Event == play.Serving }).PID
		s.WaitAfter(n, "the standby", func(e play.Event) bool { return e.PID == parent && strings.Contains(e.Text, "standing by child=") })
		status := testbin.Status(t, c)
		if status.PID != child || status.Generation != 2 || status.Parent == nil || status.Parent.PID != parent ||
			status.Parent.Started.IsZero() || time.Since(status.Parent.Started) > time.Hour {
			t.Errorf("on standby: status %+v, parent %+v", status, status.Parent)
		}
		select {
		case err := <-failed:
			t.Fatalf("answered before the standby was over: %v", err)
		default:
		}
		load.Pause() // no request may be in the child when it dies
		s.Signal(child, syscall.SIGKILL)
		if answer := refused(t, <-failed, gracectl.ErrFailed, "new process died: signal: killed"); answer.PID != parent || answer.Child != child {
			t.Errorf("answer %+v", answer)
		}
		status = testbin.Status(t, c)
		if status.PID != parent || status.Phase != "serving" || status.Child != nil || status.LastFailure == nil {
			t.Errorf("after the take-back: status %+v", status)
		}
		load.Resume()
		load.WaitMore(10)
	}
	load.Pause()
	testbin.SameDescriptors(t, target, before)
	load.Resume()
	r := upgrade(t, c)
	load.WaitPID(r.New)
	load.Stop()
	if pid, err := c.Stop(patient(t), true); err != nil || pid != r.New {
		t.Errorf("stop: %d, %v, want %d", pid, err, r.New)
	}
	s.WaitGone() // the one on standby, too
	if exists(t, c.Path) {
		t.Error("the control socket is left behind")
	}
}

// The end of the standby is told to who waits for it.
func TestControlUpgradeUntilAlone(t *testing.T) {
	cfg := controlled(t)
	cfg.Standby = time.Hour
	s, c := started(t, cfg)
	parent, _ := s.Newest()
	results := make(chan gracectl.Result, 2)
	wait := func() {
		r, err := c.Upgrade(patient(t), gracectl.UntilAlone)
		if err != nil {
			t.Error(err)
		}
		results <- r
	}
	go wait()
	second := s.Wait("the child", func(e play.Event) bool { return e.Event == play.Serving && e.PID != parent }).PID
	s.WaitLog(parent, "standing by child=")
	// The child restarts when the standby is over, and asks for less of it. The parent
	// does not hear that before all is seen.
	s.Freeze(parent)
	go wait()
	s.WaitLog(second, "restart waits until")
	status := testbin.Status(t, c)
	if status.PID != second || status.Phase != "upgrading" || !strings.Contains(status.Upgrade, "waits until") {
		t.Errorf("status %+v", status)
	}
	_, err := c.Upgrade(patient(t), gracectl.UntilReady)
	refused(t, err, gracectl.ErrBusy, "under way already: it waits until")
	s.Signal(second, syscall.SIGUSR2)
	s.WaitLog(second, "a restart waits already")
	s.Signal(parent, syscall.SIGTERM)
	s.Signal(parent, syscall.SIGCONT)
	if r := <-results; r.Old != parent || r.New != second {
		t.Errorf("%+v, want %d and %d", r, parent, second)
	}
	s.WaitLog(second, "standing by child=")
	status = testbin.Status(t, c)
	if status.Generation != 3 {
		t.Errorf("status %+v", status)
	}
	s.Signal(second, syscall.SIGTERM)
	if r := <-results; r.Old != second || r.New != status.PID {
		t.Errorf("%+v, want %d and %d", r, second, status.PID)
	}
	s.Wait("the last process to serve", serves(status.PID))
	s.Stop()
}

// A parent on standby says who is to be asked.
func TestControlOnStandby(t *testing.T) {
	cfg := controlled(t)
	cfg.Standby = time.Hour
	s, c := started(t, cfg)
	parent, _ := s.Newest()
	for attempt := 0; ; attempt++ {
		var conns []net.Conn
		for range 3 {
			conn, err := net.Dial("unix", c.Path)
			if err != nil {
				t.Fatal(err)
			}
			defer conn.Close()
			conns = append(conns, conn)
		}
		n := len(s.Events())
		child := s.RestartPID(parent)
		s.WaitAfter(n, "the standby", func(e play.Event) bool { return e.PID == parent && strings.Contains(e.Text, "standing by child=") })
		var answers []string
		for i, command := range []string{"status", "upgrade", "stop"} {
			_, _ = fmt.Fprintf(conns[i], `{"version":1,"command":%q}`+"\n", command)
			answer, err := io.ReadAll(conns[i])
			if err != nil {
				t.Fatal(err)
			}
			answers = append(answers, string(answer))
		}
		if strings.Contains(strings.Join(answers, ""), "no request within") && attempt < 10 {
			// The machine was too slow. The parent takes the socket back after it has said that
			// it serves again.
			s.Signal(child, syscall.SIGKILL)
			testbin.Poll(t, "the parent to serve again", func() bool {
				status, err := c.Status(patient(t))
				return err == nil && status.PID == parent && status.Phase == "serving"
			})
			continue
		}
		who := fmt.Sprintf("does not serve: process %d does now", child)
		if !strings.Contains(answers[0], `"phase":"standby"`) || !strings.Contains(answers[0], fmt.Sprintf(`"child":{"pid":%d`, child)) ||
			!strings.Contains(answers[1], who) || !strings.Contains(answers[2], who) {
			t.Errorf("answers %q", answers)
		}
		break
	}
	s.Stop()
}

// One upgrade at a time: of many who ask, each but one is told so.
func TestControlBusy(t *testing.T) {
	cfg := controlled(t)
	s, c := started(t, cfg)
	parent, _ := s.Newest()
	s.Deploy(play.Config{Role: "hang"})
	const callers = 12
	answers := make(chan error)
	for range callers {
		go func() {
			_, err := c.Upgrade(patient(t), gracectl.UntilReady)
			answers <- err
		}()
	}
	for range callers - 1 {
		if err := <-answers; !errors.Is(err, gracectl.ErrBusy) || !strings.Contains(err.Error(), "a restart is under way already") {
			t.Errorf("answer %v", err)
		}
	}
	var child int
	testbin.Poll(t, "the child", func() bool {
		status := testbin.Status(t, c)
		if status.Phase != "upgrading" || status.PID != parent {
			t.Fatalf("status %+v", status)
		}
		if status.Child == nil {
			return false
		}
		child = status.Child.PID
		return status.Upgrade == "the new process starts"
	})
	// A signal is ignored as ever.
	s.Signal(parent, syscall.SIGUSR2)
	s.WaitLog(parent, "a restart is under way already, the signal is ignored")
	s.Signal(child, syscall.SIGKILL)
	if answer := refused(t, <-answers, gracectl.ErrFailed, "signal: killed"); answer.Child != child {
		t.Errorf("answer %+v, want child %d", answer, child)
	}
	// And an upgrade that a signal asked for is one, too.
	s.Signal(parent, syscall.SIGUSR2)
	testbin.Poll(t, "the child", func() bool { return testbin.Status(t, c).Child != nil })
	_, err := c.Upgrade(patient(t), gracectl.UntilReady)
	refused(t, err, gracectl.ErrBusy, "under way already: the new process starts")
	// Who hangs up changes nothing.
	s.Signal(testbin.Status(t, c).Child.PID, syscall.SIGKILL)
	testbin.Poll(t, "the failure", func() bool { return testbin.Status(t, c).Child == nil })
	s.Deploy(cfg)
	conn, err := net.Dial("unix", c.Path)
	if err != nil {
		t.Fatal(err)
	}
	_, _ = fmt.Fprintln(conn, `{"version":1,"command":"upgrade"}`)
	conn.Close()
	s.WaitReturned(parent)
	new := testbin.Status(t, c).PID
	s.Wait("the new process to serve", serves(new))
	s.Stop()
}

// Stop ends the service, and tells when the process is gone.
func TestControlStop(t *testing.T) {
	s, c := started(t, controlled(t))
	pid, _ := s.Newest()
	if stopped, err := c.Stop(patient(t), true); err != nil || stopped != pid {
		t.Errorf("stop: %d, %v, want %d", stopped, err, pid)
	}
	s.WaitGone()
	if e := s.WaitReturned(pid); e.Event != play.Returned || e.Text != "" {
		t.Errorf("pid %d: %s %s", pid, e.Event, e.Text)
	}
	if exists(t, c.Path) {
		t.Error("the control socket is left behind")
	}
	if _, err := c.Status(patient(t)); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("status of what is gone: %v", err)
	}
}

// Stop ends the new process as well when it still starts. A signal would leave it,
// since that may come from the new process itself.
func TestControlStopWhileAChildStarts(t *testing.T) {
	cfg := controlled(t)
	s, c := started(t, cfg)
	parent, _ := s.Newest()
	s.Deploy(play.Config{Role: "hang"})
	answers := make(chan error)
	go func() {
		_, err := c.Upgrade(patient(t), gracectl.UntilReady)
		answers <- err
	}()
	testbin.Poll(t, "the child", func() bool { return testbin.Status(t, c).Child != nil })
	if pid, err := c.Stop(patient(t), false); err != nil || pid != parent {
		t.Errorf("stop: %d, %v, want %d", pid, err, parent)
	}
	refused(t, <-answers, gracectl.ErrNotServing, "told to stop")
	s.WaitGone()
}

// In the StopDelay the status is told, and all else is refused.
func TestControlInStopDelay(t *testing.T) {
	cfg := controlled(t)
	cfg.StopDelay = time.Hour
	s, c := started(t, cfg)
	pid, _ := s.Newest()
	if stopped, err := c.Stop(patient(t), false); err != nil || stopped != pid {
		t.Errorf("stop: %d, %v, want %d", stopped, err, pid)
	}
	testbin.Poll(t, "the stop to begin", func() bool {
		phase := testbin.Status(t, c).Phase
		if phase != "serving" && phase != "stopping" {
			t.Fatalf("phase %q, want stopping", phase)
		}
		return phase == "stopping"
	})
	_, err := c.Upgrade(patient(t), gracectl.UntilReady)
	refused(t, err, gracectl.ErrNotServing, "does not serve any more")
	_, err = c.Stop(patient(t), false)
	refused(t, err, gracectl.ErrNotServing, "does not serve any more")
	s.Signal(pid, syscall.SIGKILL)
	s.WaitGone()
}

// What is asked for while the process drains is refused, the status is told, and it
// gives way to the next service.
func TestControlWhileDraining(t *testing.T) {
	cfg := controlled(t)
	file := filepath.Join(t.TempDir(), "done")
	s, c := started(t, cfg)
	pid, addrs := s.Newest()
	answer := make(chan error)
	go func() {
		_, err := testbin.HTTP("http", addrs[0])("until " + file)
		answer <- err
	}()
	s.Wait("the request", func(e play.Event) bool { return e.Event == play.Asked })
	if n := testbin.Status(t, c).Connections; n != 1 {
		t.Errorf("%d connections, want 1", n)
	}
	gone := make(chan error)
	go func() {
		_, err := c.Stop(patient(t), true)
		gone <- err
	}()
	testbin.Poll(t, "the drain", func() bool { return testbin.Status(t, c).Phase == "draining" })
	_, err := c.Upgrade(patient(t), gracectl.UntilReady)
	refused(t, err, gracectl.ErrNotServing, "does not serve any more")
	_, err = c.Stop(patient(t), false)
	refused(t, err, gracectl.ErrNotServing, "does not serve any more")
	if status := testbin.Status(t, c); status.PID != pid || status.Connections != 1 {
		t.Errorf("status %+v, want 1 connection of %d", status, pid)
	}
	next := controlled(t)
	next.ControlSocket = c.Path
	other := testbin.Start(t, next)
	otherPID, _ := other.Newest()
	testbin.Poll(t, "the next service to have the control socket", func() bool { return testbin.Status(t, c).PID == otherPID })
	select {
	case err := <-gone:
		t.Errorf("said to be gone while it drains: %v", err)
	default:
	}
	if err := os.WriteFile(file, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	if err := <-answer; err != nil {
		t.Error(err)
	}
	if err := <-gone; err != nil {
		t.Error(err)
	}
	s.WaitGone()
	if got := testbin.Status(t, c).PID; got != otherPID {
		t.Errorf("%d answers, want %d", got, otherPID)
	}
	other.Stop()
}

// What comes in on the socket and is no request changes nothing.
func TestControlRubbish(t *testing.T) {
	s, c := started(t, controlled(t))
	pid, addrs := s.Newest()
	target := testbin.HTTP("http", addrs[0])
	before := testbin.Ask(t, target, "fds")
	n := len(s.Events())
	request := `{"version":1,"command":"stop"}`
	for _, rubbish := range []string{
		"\n", "stop\n", "upgrade\n", "\x00\xff\n", "GET /stop HTTP/1.1\r\nHost: x\r\n\r\n",
		"{}\n", "[]\n", "null\n",
		`{"version":2,"command":"stop"}` + "\n",
		`{"version":1,"command":"reboot"}` + "\n",
		`{"version":1,"command":"stop","force":true}` + "\n",
		`{"version":1,"command":"upgrade","wait":"never"}` + "\n",
		request, // without its end
		request[:10] + "\n",
		request + request + "\n",
		request + "\n" + request + "\n",
		request + strings.Repeat(" ", 5000) + "\n",
		strings.Repeat("{", 1<<20),
		strings.Repeat("\x00", 1<<20) + "\n" + request + "\n",
	} {
		conn, err := net.Dial("unix", c.Path)
		if err != nil {
			t.Fatal(err)
		}
		_, _ = io.WriteString(conn, rubbish) // it may not be read to its end
		_ = conn.(*net.UnixConn).CloseWrite()
		answer, err := io.ReadAll(conn)
		if !strings.Contains(string(answer), `"code":"bad request"`) {
			t.Errorf("%.60q: answer %q, %v", rubbish, answer, err)
		}
		conn.Close()
	}
	var idle []net.Conn
	for range 100 {
		conn, err := net.Dial("unix", c.Path)
		if err != nil {
			t.Fatal(err)
		}
		idle = append(idle, conn)
	}
	for _, conn := range idle {
		conn.Close()
	}
	var status gracectl.Status
	testbin.Poll(t, "an answer", func() bool {
		var err error
		status, err = c.Status(patient(t))
		return !errors.Is(err, gracectl.ErrBusy)
	})
	if status.PID != pid || status.Phase != "serving" || status.Generation != 1 || status.LastFailure != nil {
		t.Errorf("status %+v", status)
	}
	if got := testbin.AskPID(t, target); got != pid {
		t.Errorf("answered by %d, want %d", got, pid)
	}
	if more := s.Events()[n:]; len(more) != 0 {
		t.Errorf("events: %+v", more)
	}
	testbin.SameDescriptors(t, target, before)
	s.WaitReturned(upgrade(t, c).Old)
	new := testbin.Status(t, c).PID
	s.Wait("the new process to serve", serves(new))
	s.Stop()
}

// startFails starts a service that must not come up, and returns why.
func startFails(t *testing.T, cfg play.Config) string {
	t.Helper()
	s := testbin.Launch(t, testbin.Executable(t), cfg)
	e := s.Wait("the first process to fail", func(e play.Event) bool { return e.Event == play.Returned })
	s.WaitGone()
	return e.Text
}

// A first process does not take what belongs to others.
func TestControlPathOfOthers(t *testing.T) {
	s, c := started(t, controlled(t))
	pid, _ := s.Newest()
	cfg := controlled(t)
	cfg.ControlSocket = c.Path
	if why := startFails(t, cfg); !strings.Contains(why, fmt.Sprintf("control socket %s: in use by process %d", c.Path, pid)) {
		t.Errorf("a second service fails with %q", why)
	}
	cfg.ControlSocket = filepath.Join(s.Dir(), "file")
	if err := os.WriteFile(cfg.ControlSocket, []byte("mine"), 0o644); err != nil {
		t.Fatal(err)
	}
	if why := startFails(t, cfg); !strings.Contains(why, "there is a file that is no socket") {
		t.Errorf("with a file at its path it fails with %q", why)
	}
	if b, err := os.ReadFile(cfg.ControlSocket); err != nil || string(b) != "mine" {
		t.Errorf("the file is %q, %v", b, err)
	}
	cfg.ControlSocket = filepath.Join(s.Dir(), "none", "control")
	if why := startFails(t, cfg); !strings.Contains(why, "no such file or directory") {
		t.Errorf("without a directory it fails with %q", why)
	}
	// Nor does a child.
	other, otherControl := started(t, controlled(t))
	cfg = controlled(t)
	cfg.ControlSocket = c.Path
	other.Deploy(cfg)
	_, err := otherControl.Upgrade(patient(t), gracectl.UntilReady)
	refused(t, err, gracectl.ErrFailed, fmt.Sprintf("in use by process %d", pid))
	if got := testbin.Status(t, c).PID; got != pid {
		t.Errorf("%d answers, want %d", got, pid)
	}
	if _, err := otherControl.Stop(patient(t), false); err != nil {
		t.Error(err)
	}
	other.WaitGone()
	// What a process leaves behind that was killed is no obstacle.
	s.Signal(pid, syscall.SIGKILL)
	s.WaitGone()
	if !exists(t, c.Path) {
		t.Fatal("nothing is left behind")
	}
	cfg = controlled(t)
	cfg.ControlSocket = c.Path
	again, c := started(t, cfg)
	againPID, _ := again.Newest()
	testbin.Poll(t, "the new service to answer", func() bool {
		status, err := c.Status(patient(t))
		return err == nil && status.PID == againPID
	})
	again.Stop()
	if exists(t, c.Path) {
		t.Error("the control socket is left behind")
	}
}

// A new process may have its control socket elsewhere, or none.
func TestControlMoves(t *testing.T) {
	cfg := controlled(t)
	s, c := started(t, cfg)
	cfg.ControlSocket = "other"
	s.Deploy(cfg)
	r := upgrade(t, c)
	s.WaitReturned(r.Old)
	s.WaitExit(r.Old)
	if exists(t, c.Path) {
		t.Error("the old control socket is left behind")
	}
	c = s.Control("other")
	if pid := testbin.Status(t, c).PID; pid != r.New {
		t.Errorf("%d answers, want %d", pid, r.New)
	}
	cfg.ControlSocket = ""
	s.Deploy(cfg)
	r = upgrade(t, c)
	s.WaitReturned(r.Old)
	s.WaitExit(r.Old)
	if exists(t, c.Path) {
		t.Error("the old control socket is left behind")
	}
	s.Wait("the last process to serve", serves(r.New))
	s.Stop()
}

// The same for a server on Wait. Its listeners count connections.
func TestControlRaw(t *testing.T) {
	cfg := play.Config{Role: "grace", Listens: []play.Listen{{Network: "tcp", Addr: "127.0.0.1:0"}}, ControlSocket: "control"}
	s, c := started(t, cfg)
	first, addrs := s.Newest()
	s.WaitLog(first, waits)
	var conns []net.Conn
	for range 3 {
		conn, err := net.Dial("tcp", addrs[0])
		if err != nil {
			t.Fatal(err)
		}
		defer conn.Close()
		conns = append(conns, conn)
	}
	testbin.Poll(t, "3 connections", func() bool { return testbin.Status(t, c).Connections == 3 })
	for _, conn := range conns {
		conn.Close()
	}
	testbin.Poll(t, "no connection", func() bool { return testbin.Status(t, c).Connections == 0 })
	r := upgrade(t, c)
	if pid := testbin.AskPID(t, testbin.Lines("tcp", addrs[0])); pid != r.New {
		t.Errorf("answered by %d, want %d", pid, r.New)
	}
	s.WaitReturned(first)
	s.WaitLog(r.New, waits)
	if pid, err := c.Stop(patient(t), true); err != nil || pid != r.New {
		t.Errorf("stop: %d, %v", pid, err)
	}
	s.WaitGone()
}

// The program asks for an upgrade itself.
func TestUpgrade(t *testing.T) {
	cfg := controlled(t)
	cfg.Role = "asking"
	s, c := started(t, cfg)
	pid, _ := s.Newest()
	said := func(n int, text string) {
		t.Helper()
		s.WaitAfter(n, fmt.Sprintf("%d to say %q", pid, text), func(e play.Event) bool {
			return e.PID == pid && e.Event == play.Log && e.Text == "Upgrade: "+text
		})
	}
	said(0, "grace: this process does not serve")
	testbin.Status(t, c)
	n := len(s.Events())
	s.Deploy(play.Config{Role: "exit"})
	s.Signal(pid, syscall.SIGHUP)
	said(n, "grace: upgrade: new process exited before it was ready: exit status 7")
	n = len(s.Events())
	s.Deploy(play.Config{Role: "hang"})
	s.Signal(pid, syscall.SIGHUP)
	testbin.Poll(t, "the child", func() bool { return testbin.Status(t, c).Child != nil })
	s.Signal(pid, syscall.SIGHUP)
	said(n, "grace: a restart is under way already: the new process starts")
	s.Signal(testbin.Status(t, c).Child.PID, syscall.SIGKILL)
	said(n, "grace: upgrade: new process exited before it was ready: signal: killed")
	n = len(s.Events())
	s.Deploy(cfg)
	s.Signal(pid, syscall.SIGHUP)
	said(n, "no error")
	s.WaitReturned(pid)
	said(n, "grace: this process does not serve")
	pid = testbin.Status(t, c).PID
	s.Wait("the new process to serve", serves(pid))
	s.Stop()
}
