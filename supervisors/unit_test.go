//go:build linux

package supervisors_test

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/facebookgo/grace/internal/testbin"
	"github.com/facebookgo/grace/internal/testbin/play"
)

// Where things are in the namespaces of systemd-ns.sh. The units name the program.
const (
	unitDir = "/etc/systemd/system"
	appDir  = "/opt/app"
	program = appDir + "/app"
	config  = appDir + "/config"
	events  = appDir + "/events"
)

// addr is where the servers listen, as app.socket does.
const addr = "127.0.0.1:8080"

// httpConfig is a server that is restarted quickly. It does not close idle
// connections that a busy machine is slow to use.
func httpConfig() play.Config {
	return play.Config{Role: "http", Listens: []play.Listen{{Addr: ":8080"}}, IdleGrace: testbin.Patience}
}

// app is a service of systemd.
type app struct {
	t     *testing.T
	unit  string
	units []string // all that were installed
	bears string   // what the journal may say
}

// install installs a unit of the examples for a server that does what cfg says.
// changes are lines for its section [Service].
func install(t *testing.T, unit string, cfg play.Config, changes ...string) *app {
	t.Helper()
	a := &app{t: t, unit: unit}
	if err := os.Mkdir(appDir, 0o755); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(a.remove)
	a.link(testbin.Executable(t))
	a.deploy(cfg)
	a.write("drop-in", strings.Join(append([]string{
		"[Service]",
		"Environment=" + play.EnvConfig + "=" + config + " GORACE=atexit_sleep_ms=0",
		"StandardOutput=append:" + events,
	}, changes...), "\n")+"\n")
	a.example(unit)
	if err := os.Mkdir(filepath.Join(unitDir, unit+".d"), 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.Symlink(filepath.Join(appDir, "drop-in"), filepath.Join(unitDir, unit+".d", "test.conf")); err != nil {
		t.Fatal(err)
	}
	a.systemctl("daemon-reload")
	// The journal of the test begins here.
	run(t, "journalctl", "--quiet", "--lines=0", "--cursor-file="+appDir+"/cursor")
	return a
}

// start installs a unit and starts it.
func start(t *testing.T, unit string, cfg play.Config, changes ...string) (a *app, pid int) {
	t.Helper()
	a = install(t, unit, cfg, changes...)
	a.systemctl("start", unit)
	pid = a.waitServing(0).PID
	if main := a.mainPID(); main != pid {
		t.Fatalf("the main process is %d, and %d serves", main, pid)
	}
	return a, pid
}

// example installs one unit file of the examples.
func (a *app) example(unit string) {
	a.t.Helper()
	text, err := os.ReadFile(filepath.Join("..", "examples", "systemd", unit))
	if err != nil {
		a.t.Fatal(err)
	}
	a.add(unit, string(text))
}

// add installs a unit file. systemd has to be told with daemon-reload.
func (a *app) add(unit, text string) {
	a.t.Helper()
	a.units = append(a.units, unit)
	if err := os.WriteFile(filepath.Join(unitDir, unit), []byte(text), 0o644); err != nil {
		a.t.Fatal(err)
	}
}

// write writes a file of the program, in one step.
func (a *app) write(name, text string) {
	a.t.Helper()
	name = filepath.Join(appDir, name)
	if err := os.WriteFile(name+".new", []byte(text), 0o644); err != nil {
		a.t.Fatal(err)
	}
	if err := os.Rename(name+".new", name); err != nil {
		a.t.Fatal(err)
	}
}

// link makes the program that the unit names a link to target.
func (a *app) link(target string) {
	a.t.Helper()
	if err := os.Symlink(target, program); err != nil {
		a.t.Fatal(err)
	}
}

// deploy makes cfg what the next process does.
func (a *app) deploy(cfg play.Config) {
	a.t.Helper()
	b, err := json.Marshal(cfg)
	if err != nil {
		a.t.Fatal(err)
	}
	a.write("config", string(b))
}

// remove ends the service and everything that was installed.
func (a *app) remove() {
	if a.t.Failed() {
		a.t.Logf("systemctl status:\n%s", output("systemctl", "status", "--no-pager", "--full", a.unit))
	}
	for _, unit := range slices.Backward(a.units) {
		output("systemctl", "stop", "--no-block", unit)
	}
	testbin.Poll(a.t, "systemd to stop "+a.unit, func() bool {
		output("systemctl", "kill", "--signal=KILL", a.unit)
		state := a.show("ActiveState")
		return state == "inactive" || state == "failed"
	})
	journal := a.journal()
	// A message from a process that systemd does not believe shows that the library
	// takes the wrong one for the main process.
	for _, bad := range []string{"DATA RACE", "reception only permitted"} {
		if bad != a.bears && strings.Contains(journal, bad) {
			a.t.Errorf("the journal says %q", bad)
		}
	}
	if a.t.Failed() {
		for _, e := range a.events() {
			a.t.Logf("%d %s %v %s", e.PID, e.Event, e.Addrs, e.Text)
		}
		a.t.Logf("journal:\n%s", journal)
	}
	output("systemctl", append([]string{"reset-failed"}, a.units...)...)
	for _, unit := range a.units {
		_ = os.Remove(filepath.Join(unitDir, unit))
		_ = os.RemoveAll(filepath.Join(unitDir, unit+".d"))
	}
	if err := os.RemoveAll(appDir); err != nil {
		a.t.Error(err)
	}
	output("systemctl", "daemon-reload")
}

// journal returns what systemd and the service have logged in this test.
func (a *app) journal() string {
	output("journalctl", "--sync")
	return output("journalctl", "--quiet", "--no-pager", "--output=short-monotonic", "--cursor-file="+appDir+"/cursor", "--unit="+a.unit)
}

// output runs a command and returns what it prints, errors too.
func output(name string, args ...string) string {
	ctx, cancel := context.WithTimeout(context.Background(), 2*testbin.Patience)
	defer cancel()
	out, err := exec.CommandContext(ctx, name, args...).CombinedOutput()
	if err != nil {
		out = fmt.Appendf(out, "%v\n", err)
	}
	return string(out)
}

// run runs a command that must succeed, and returns what it prints.
func run(t *testing.T, name string, args ...string) string {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), 2*testbin.Patience)
	defer cancel()
	out, err := exec.CommandContext(ctx, name, args...).CombinedOutput()
	if err != nil {
		t.Fatalf("%s %s: %v\n%s", name, strings.Join(args, " "), err, out)
	}
	return string(out)
}

func (a *app) systemctl(args ...string) {
	a.t.Helper()
	run(a.t, "systemctl", args...)
}

// show returns a property of the service.
func (a *app) show(property string) string {
	return strings.TrimSpace(output("systemctl", "show", "--value", "--property="+property, a.unit))
}

// mainPID returns the process that systemd takes for the main one, or 0.
func (a *app) mainPID() int {
	pid, _ := strconv.Atoi(a.show("MainPID"))
	return pid
}

// wait waits until a property has a value.
func (a *app) wait(property, want string) {
	a.t.Helper()
	testbin.Poll(a.t, property+" to be "+want, func() bool { return a.show(property) == want })
}

// waitMain waits until pid is the main process, and the reload that made it so has
// ended.
func (a *app) waitMain(pid int) {
	a.t.Helper()
	a.wait("MainPID", strconv.Itoa(pid))
	a.wait("ActiveState", "active")
}

// expect checks properties, which are given as systemctl shows them.
func (a *app) expect(properties ...string) {
	a.t.Helper()
	for _, want := range properties {
		name, _, _ := strings.Cut(want, "=")
		if got := name + "=" + a.show(name); got != want {
			a.t.Errorf("got %s, want %s", got, want)
		}
	}
}

// unharmed are the properties of a service that runs as it did from the start.
var unharmed = []string{"ActiveState=active", "SubState=running", "Result=success", "NRestarts=0"}

// events returns what the processes have reported so far.
func (a *app) events() []play.Event {
	b, _ := os.ReadFile(events) // which is not there before the first start
	var list []play.Event
	for line := range bytes.Lines(b) {
		var e play.Event
		if !bytes.HasSuffix(line, []byte("\n")) {
			break // it is being written
		}
		if err := json.Unmarshal(line, &e); err != nil {
			e = play.Event{Event: "not an event", Text: string(line)}
		}
		list = append(list, e)
	}
	return list
}

// waitEvent waits for the first event after the first n that match accepts.
func (a *app) waitEvent(n int, what string, match func(play.Event) bool) (found play.Event) {
	a.t.Helper()
	testbin.Poll(a.t, what, func() bool {
		list := a.events()
		i := slices.IndexFunc(list[min(n, len(list)):], match)
		if i >= 0 {
			found = list[n+i]
		}
		return i >= 0
	})
	return found
}

// waitServing waits until one more process serves after the first n events.
func (a *app) waitServing(n int) play.Event {
	a.t.Helper()
	e := a.waitEvent(n, "a process to serve", func(e play.Event) bool {
		return e.Event == play.Serving || e.Event == play.Failed
	})
	if e.Event == play.Failed {
		a.t.Fatalf("process %d failed: %s", e.PID, e.Text)
	}
	return e
}

// waitLog waits until process pid has logged a line with text.
func (a *app) waitLog(pid int, text string) {
	a.t.Helper()
	a.waitEvent(0, fmt.Sprintf("pid %d to log %q", pid, text), func(e play.Event) bool {
		return e.Event == play.Log && e.PID == pid && strings.Contains(e.Text, text)
	})
}

// waitReturned waits until Serve of process pid has returned without an error.
func (a *app) waitReturned(pid int) {
	a.t.Helper()
	returned := func(e play.Event) bool {
		return e.PID == pid && (e.Event == play.Returned || e.Event == play.Failed)
	}
	testbin.Poll(a.t, fmt.Sprintf("pid %d to return", pid), func() bool {
		gone := syscall.Kill(pid, 0) == syscall.ESRCH // asked first: it reports, and goes
		done := slices.ContainsFunc(a.events(), returned)
		if gone && !done {
			a.t.Fatalf("process %d was killed before it was done", pid)
		}
		return done
	})
	e := a.waitEvent(0, "its last event", returned)
	if e.Event != play.Returned || e.Text != "" {
		a.t.Fatalf("Serve of %d: %s %s", pid, e.Event, e.Text)
	}
}

// reload reloads the service and returns the pid of the process that serves then.
// The command may return at once, or when the reload has ended; a test must bear
// both.
func (a *app) reload() (pid int) {
	a.t.Helper()
	n := len(a.events())
	a.systemctl("reload", "--no-block", a.unit)
	return a.waitServing(n).PID
}

// signal sends sig to a process of the service.
func (a *app) signal(pid int, sig syscall.Signal) {
	a.t.Helper()
	if err := syscall.Kill(pid, sig); err != nil {
		a.t.Fatalf("send %v to %d: %v", sig, pid, err)
	}
}

// slow is a request that takes time.
type slow struct {
	pid    int // which has got it
	answer chan string
}

// ask begins a request and returns when a process has got it.
func (a *app) ask(question string) *slow {
	a.t.Helper()
	n := len(a.events())
	s := &slow{answer: make(chan string, 1)}
	go func() {
		answer, err := testbin.HTTP("http", addr)(question)
		if err != nil {
			answer = err.Error()
		}
		s.answer <- answer
	}()
	s.pid = a.waitEvent(n, "the request "+question, func(e play.Event) bool {
		return e.Event == play.Asked && e.Text == question
	}).PID
	return s
}

// expectAnswer waits for the answer, which must come from the process that has got
// the request.
func (a *app) expectAnswer(s *slow) {
	a.t.Helper()
	select {
	case got := <-s.answer:
		if got != strconv.Itoa(s.pid) {
			a.t.Errorf("request in flight: %s, want an answer of %d", got, s.pid)
		}
	case <-time.After(testbin.Patience):
		a.t.Fatal("request in flight is not answered")
	}
}

// reloadSignal is what ExecReload sends.
const reloadSignal = syscall.SIGUSR2
