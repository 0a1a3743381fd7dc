//go:build unix

package main

import (
	"bufio"
	"context"
	"flag"
	"fmt"
	"io"
	"net/http"
	"net/http/httptrace"
	"net/url"
	"os"
	"os/exec"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"
)

// asDemo makes this test binary the demo. Successors inherit it.
const asDemo = "GRACEDEMO_TEST"

// patience is how long a test waits for what must happen.
const patience = time.Minute

func TestMain(m *testing.M) {
	if os.Getenv(asDemo) != "" {
		main()
		return
	}
	os.Exit(m.Run())
}

// The walk-through of README.md.
func TestWalkThrough(t *testing.T) {
	t.Parallel()
	// The slow request outlives the standby of five seconds, so that the old process has
	// to finish it while it drains. On a busy machine it takes more.
	for slow := 6 * time.Second; !walkThrough(t, slow); slow *= 3 {
		t.Logf("a request of %v is not slow enough", slow)
	}
}

// walkThrough reports whether the slow request was under way when it had to be.
func walkThrough(t *testing.T, duration time.Duration) bool {
	t.Helper()
	d := start(t)
	defer d.kill()
	old := d.cmd.Process.Pid

	slow := d.getAsync(0, duration)
	// A server accepts in order, so this one is answered after the slow one has
	// been accepted.
	d.wantFrom(0, old)

	d.signal(old, syscall.SIGUSR2)
	handoff := d.await("Graceful handoff of " + regexp.QuoteMeta(strings.Join(d.addrs, ", ")) +
		` with new pid (\d+) and old pid ` + strconv.Itoa(old) + "$")
	successor := atoi(t, handoff[1])
	if successor == old {
		t.Fatalf("old and new process have the same pid %d", old)
	}

	d.await("standing by child=" + strconv.Itoa(successor) + " for=5s$")
	for range 3 {
		for server := range d.addrs {
			d.wantFrom(server, successor)
		}
	}
	d.await("draining successor=" + strconv.Itoa(successor) + "$")
	early := len(slow) != 0
	select {
	case a := <-slow:
		if a.err != nil || a.pid() != old {
			t.Fatalf("slow request: %v, want an answer of the old process %d", a, old)
		}
	case <-time.After(duration + patience):
		t.Fatal("the slow request is not answered")
	}
	if early {
		return false
	}
	d.await(exiting(old))
	if err := d.cmd.Wait(); err != nil {
		t.Errorf("old process: %v", err)
	}

	d.wantFrom(0, successor)
	d.signal(successor, syscall.SIGTERM)
	d.await(exiting(successor))
	d.awaitEnd()
	return true
}

// The addresses that README.md tells.
func TestDefaultAddresses(t *testing.T) {
	for name, want := range map[string]string{"a0": ":48567", "a1": ":48568", "a2": ":48569"} {
		if got := flag.Lookup(name).DefValue; got != want {
			t.Errorf("-%s is %s by default, want %s", name, got, want)
		}
	}
}

func TestAnswers(t *testing.T) {
	t.Parallel()
	began := time.Now().Truncate(time.Second)
	d := start(t)
	pid := d.cmd.Process.Pid
	sleptFor := regexp.MustCompile(`^(Zero|First|Second) +started at (\S+) slept for (\S+) in pid (\d+)\.\n$`)
	for server, name := range []string{"Zero", "First", "Second"} {
		for _, duration := range []string{"", "soon", "20", "-1s"} {
			a := d.get(server, duration)
			if a.err != nil || a.status != http.StatusBadRequest || !strings.Contains(a.body, "such as 20s") {
				t.Errorf("%s, duration %q: %v, want status 400 and an example of a duration", name, duration, a)
			}
		}

		a := d.get(server, "2ms")
		if a.err != nil || a.status != http.StatusOK {
			t.Errorf("%s: %v, want status 200", name, a)
			continue
		}
		parts := sleptFor.FindStringSubmatch(a.body)
		if parts == nil {
			t.Errorf("%s: answer %q does not match %v", name, a.body, sleptFor)
			continue
		}
		if parts[1] != name || parts[3] != "2ms" || a.pid() != pid {
			t.Errorf("%s: answer %q, want one of %s, 2ms, pid %d", name, a.body, name, pid)
		}
		if started, err := time.Parse(time.RFC3339, parts[2]); err != nil || started.Before(began) || started.After(time.Now()) {
			t.Errorf("%s: started at %q (%v), want a time between %v and now", name, parts[2], err, began)
		}
	}
	d.signal(pid, syscall.SIGTERM)
	d.await(exiting(pid))
	d.awaitEnd()
}

// demo is a running demo, all generations of it.
type demo struct {
	*testing.T
	ctx   context.Context // ends with the test
	cmd   *exec.Cmd       // the first generation
	addrs []string
	lines chan string // of the standard error that the generations share; closed with the last
	alive map[int]bool
}

// start starts the demo on free ports and returns when it has logged them.
func start(t *testing.T) *demo {
	t.Helper()
	ctx, cancel := context.WithCancel(context.Background())
	d := &demo{T: t, ctx: ctx, lines: make(chan string), alive: make(map[int]bool)}
	r, w, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	exe, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	d.cmd = exec.CommandContext(ctx, exe, "-a0", "127.0.0.1:0", "-a1", "127.0.0.1:0", "-a2", "127.0.0.1:0")
	d.cmd.Env = slices.DeleteFunc(os.Environ(), func(kv string) bool {
		// The tests may run under a service manager.
		return strings.HasPrefix(kv, "LISTEN_") || strings.HasPrefix(kv, "NOTIFY_SOCKET=") || strings.HasPrefix(kv, "INVOCATION_ID=")
	})
	d.cmd.Env = append(d.cmd.Env, asDemo+"=1")
	d.cmd.Stderr = w
	err = d.cmd.Start()
	w.Close()
	if err != nil {
		t.Fatal(err)
	}
	d.alive[d.cmd.Process.Pid] = true
	go func() {
		defer r.Close()
		defer close(d.lines)
		for s := bufio.NewScanner(r); s.Scan(); {
			d.lines <- s.Text()
		}
	}()
	t.Cleanup(func() {
		d.kill()
		cancel()
	})

	serving := d.await(`Serving (\S+), (\S+), (\S+) with pid ` + strconv.Itoa(d.cmd.Process.Pid) + `\.$`)
	d.addrs = serving[1:]
	return d
}

// kill ends what still runs, also processes that show up meanwhile.
func (d *demo) kill() {
	timeout := time.After(10 * time.Second)
	for {
		for pid := range d.alive {
			_ = syscall.Kill(pid, syscall.SIGKILL)
		}
		select {
		case line, ok := <-d.lines:
			if !ok {
				_ = d.cmd.Wait() // fails if the test has waited
				return
			}
			d.note(line)
		case <-timeout:
			d.Errorf("the processes %v keep standard error open", d.alive)
			return
		}
	}
}

var (
	namesPID = regexp.MustCompile(`(?:with pid |new pid |child=)(\d+)`)
	exitsPID = regexp.MustCompile(`Exiting pid (\d+)\.$`)
)

func exiting(pid int) string { return fmt.Sprintf(`Exiting pid %d\.$`, pid) }

// note keeps track of the processes that a line of the log speaks of.
func (d *demo) note(line string) {
	d.Helper()
	d.Log(line)
	if m := exitsPID.FindStringSubmatch(line); m != nil {
		delete(d.alive, atoi(d.T, m[1]))
	} else if m := namesPID.FindStringSubmatch(line); m != nil {
		d.alive[atoi(d.T, m[1])] = true
	}
}

// await reads the log up to a line that matches pattern, and returns the match
// and its groups.
func (d *demo) await(pattern string) []string {
	d.Helper()
	re := regexp.MustCompile(pattern)
	for {
		line, ok := d.line()
		if !ok {
			d.Fatalf("all processes have exited, without a line %q", pattern)
		}
		if m := re.FindStringSubmatch(line); m != nil {
			return m
		}
	}
}

// awaitEnd reads the log up to its end, when all processes have exited.
func (d *demo) awaitEnd() {
	d.Helper()
	for ok := true; ok; {
		_, ok = d.line()
	}
}

func (d *demo) line() (line string, ok bool) {
	d.Helper()
	select {
	case line, ok = <-d.lines:
		if ok {
			d.note(line)
		}
		return line, ok
	case <-time.After(patience):
		d.Fatal("waited in vain for a line of the log")
		return "", false
	}
}

func (d *demo) signal(pid int, sig syscall.Signal) {
	d.Helper()
	if err := syscall.Kill(pid, sig); err != nil {
		d.Fatalf("kill -%v %d: %v", sig, pid, err)
	}
}

type answer struct {
	status int
	body   string
	err    error
}

func (a answer) String() string {
	if a.err != nil {
		return a.err.Error()
	}
	return fmt.Sprintf("status %d, %q", a.status, a.body)
}

var inPID = regexp.MustCompile(` in pid (\d+)\.\n$`)

// pid is the process that has answered, or 0.
func (a answer) pid() int {
	m := inPID.FindStringSubmatch(a.body)
	if m == nil {
		return 0
	}
	pid, _ := strconv.Atoi(m[1])
	return pid
}

// get makes a request on a connection of its own.
func (d *demo) get(server int, duration string) answer {
	ctx, cancel := context.WithTimeout(d.ctx, patience)
	defer cancel()
	return d.do(ctx, server, duration)
}

func (d *demo) do(ctx context.Context, server int, duration string) answer {
	u := "http://" + d.addrs[server] + "/sleep/?duration=" + url.QueryEscape(duration)
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, u, nil)
	if err != nil {
		return answer{err: err}
	}
	client := http.Client{Transport: &http.Transport{DisableKeepAlives: true}}
	resp, err := client.Do(req)
	if err != nil {
		return answer{err: err}
	}
	defer resp.Body.Close()
	body, err := io.ReadAll(resp.Body)
	return answer{resp.StatusCode, string(body), err}
}

// getAsync returns when the request is written. The answer follows.
func (d *demo) getAsync(server int, duration time.Duration) <-chan answer {
	d.Helper()
	written := make(chan struct{})
	ctx := httptrace.WithClientTrace(d.ctx, &httptrace.ClientTrace{
		WroteRequest: func(httptrace.WroteRequestInfo) { close(written) },
	})
	answers := make(chan answer, 1)
	go func() { answers <- d.do(ctx, server, duration.String()) }()
	select {
	case <-written:
	case a := <-answers:
		d.Fatalf("request of %v ended at once: %v", duration, a)
	}
	return answers
}

// wantFrom makes a quick request, which the process pid must answer.
func (d *demo) wantFrom(server, pid int) {
	d.Helper()
	if a := d.get(server, "0s"); a.err != nil || a.status != http.StatusOK || a.pid() != pid {
		d.Fatalf("quick request to %s: %v, want an answer of process %d", d.addrs[server], a, pid)
	}
}

func atoi(t *testing.T, s string) int {
	t.Helper()
	n, err := strconv.Atoi(s)
	if err != nil {
		t.Fatal(err)
	}
	return n
}
