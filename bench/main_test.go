//go:build linux

package main

import (
	"bufio"
	"bytes"
	"errors"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/facebookgo/grace/gracetest"
)

// asCommand makes the test binary this command.
const asCommand = "GRACE_BENCH_COMMAND"

func TestMain(m *testing.M) {
	if os.Getenv(asCommand) != "" {
		main()
		return
	}
	os.Exit(m.Run())
}

func command(args ...string) *exec.Cmd {
	cmd := exec.Command(os.Args[0], args...)
	cmd.Env = append(os.Environ(), asCommand+"=1")
	return cmd
}

func TestBadFlags(t *testing.T) {
	for _, test := range []struct {
		args []string
		want string // what it says
	}{
		{[]string{"-fast"}, "flag provided but not defined: -fast"},
		{[]string{"fast"}, `it takes flags only, not "fast"`},
		{[]string{"-quick", "-smoke"}, "choose -quick or -smoke"},
		{[]string{"-only", "lost,speed"}, `there is no measure "speed": choose from lost, latency, `},
		{[]string{"-peer", "other"}, "write it as name=path:SIGNAL"},
		{[]string{"-peer", "other=" + os.Args[0]}, "write it as name=path:SIGNAL"},
		{[]string{"-peer", "other=" + os.Args[0] + ":FOO"}, `there is no signal "FOO"`},
		{[]string{"-peer", "grace=" + os.Args[0] + ":HUP"}, `there is a server of the name "grace" already`},
		{[]string{"-peer", "other=" + os.Args[0] + ":HUP", "-peer", "other=" + os.Args[0] + ":USR2"}, `there is a server of the name "other" already`},
		{[]string{"-json", "results", "-svg", "results"}, "choose two files"},
		{[]string{"-peer", "other=/nowhere/other:USR2"}, "/nowhere/other is no program that can be run"},
	} {
		out, err := command(test.args...).CombinedOutput()
		var exit *exec.ExitError
		if !errors.As(err, &exit) || exit.ExitCode() != 2 {
			t.Errorf("%q: %v, want the exit status 2", test.args, err)
		}
		if !strings.Contains(string(out), test.want) {
			t.Errorf("%q says:\n%s\nwant %q", test.args, out, test.want)
		}
	}
}

func TestGoodFlags(t *testing.T) {
	o, err := parse([]string{"-quick", "-only", "lost,idle", "-peer", "a=b=" + os.Args[0] + ":hup", "-json", "j", "-svg", "s"}, io.Discard)
	if err == nil {
		t.Errorf("the path b=%s is accepted", os.Args[0])
	}
	o, err = parse([]string{"-quick", "-only", "lost,idle", "-peer", "a=" + os.Args[0] + ":SIGHUP", "-json", "j", "-svg", "s"}, io.Discard)
	if err != nil {
		t.Fatal(err)
	}
	if o.plan.growthRestarts != quick.growthRestarts || len(o.only) != 2 || len(o.peers) != 1 || o.peers[0].name != "a" || o.json != "j" || o.svg != "s" {
		t.Errorf("%+v", o)
	}
}

// A command that somebody ends leaves nothing.
func TestInterrupt(t *testing.T) {
	dir := t.TempDir()
	cmd := command("-only", measureGrowth)
	cmd.Env = append(cmd.Env, "TMPDIR="+dir)
	stderr, err := cmd.StderrPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	defer time.AfterFunc(3*gracetest.Patience, func() { _ = cmd.Process.Kill() }).Stop()
	var told bytes.Buffer
	lines := bufio.NewScanner(io.TeeReader(stderr, &told))
	asked := false
	for lines.Scan() {
		if strings.HasSuffix(lines.Text(), "11 of 500") && !asked {
			asked = true
			gracetest.Poll(t, "a server to be found, though each is there for a short time only", func() bool { return len(running(t, dir)) > 0 })
			if err := cmd.Process.Signal(os.Interrupt); err != nil {
				t.Fatal(err)
			}
		}
	}
	err = cmd.Wait()
	var exit *exec.ExitError
	if !errors.As(err, &exit) || exit.ExitCode() != 130 {
		t.Errorf("%v, want the exit status 130; it said:\n%s", err, told.String())
	}
	if left := running(t, dir); len(left) > 0 {
		t.Errorf("left are %q", left)
	}
	if files, _ := os.ReadDir(dir); len(files) > 0 {
		t.Errorf("%v is left", files)
	}
}

// running returns the command lines that name a directory.
func running(t *testing.T, dir string) (found []string) {
	t.Helper()
	files, err := filepath.Glob("/proc/[0-9]*/cmdline")
	if err != nil {
		t.Fatal(err)
	}
	for _, file := range files {
		if b, err := os.ReadFile(file); err == nil && bytes.Contains(b, []byte(dir)) {
			found = append(found, strings.ReplaceAll(string(b), "\x00", " "))
		}
	}
	return found
}

// A whole run: it says what it has found in three ways.
func TestRun(t *testing.T) {
	dir := t.TempDir()
	files := []string{filepath.Join(dir, "figures"), filepath.Join(dir, "chart.svg")}
	cmd := command("-smoke", "-only", "start,listeners", "-json", files[0], "-svg", files[1])
	var stderr bytes.Buffer
	cmd.Stderr = &stderr
	out, err := cmd.Output()
	if err != nil {
		t.Fatalf("%v\n%s%s", err, out, stderr.String())
	}
	for _, want := range []string{"\nstart ", "\nlisteners ", "first answer / plain start", nameHandOver, nameReload, nameHAProxy} {
		if !strings.Contains(string(out), want) {
			t.Errorf("the table is:\n%s\nwant %q in it", out, want)
		}
	}
	if strings.Contains(string(out), "not measured") {
		t.Errorf("the table is:\n%s", out)
	}
	for _, file := range files {
		if info, err := os.Stat(file); err != nil || info.Size() == 0 {
			t.Errorf("%s: %v, %v", file, info, err)
		}
	}
}

// What can't be written is said before the work, not after it.
func TestNoPlaceForResults(t *testing.T) {
	out, err := command("-json", t.TempDir()+"/nowhere/figures").CombinedOutput()
	if err == nil || !strings.Contains(string(out), "create a file for results: ") || strings.Contains(string(out), "building") {
		t.Errorf("%v\n%s", err, out)
	}
}

// testBench returns a bench that knows all systems.
func testBench(t *testing.T, peers ...*system) *bench {
	t.Helper()
	t.Setenv("TMPDIR", t.TempDir())
	b, err := newBench(options{plan: smoke}, io.Discard)
	if err == nil {
		err = b.findSystems(peers)
	}
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if left := running(t, b.dir); len(left) > 0 {
			t.Errorf("left are %q", left)
		}
	})
	return b
}

// must carries out a part, which must be possible.
func (b *bench) must(t *testing.T, part func(*scope)) {
	t.Helper()
	if err := b.stage.do(part); err != nil {
		t.Error(err)
	}
}
