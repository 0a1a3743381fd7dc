//go:build linux

package main

import (
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"runtime"
	"runtime/debug"
	"slices"
	"strings"
	"sync"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

// measures are what can be measured, in the order of the table.
var measures = []struct {
	name string
	run  func(*bench)
}{
	{measureLost, (*bench).lost},
	{measureLatency, (*bench).latency},
	{measureStart, (*bench).start},
	{measureListeners, (*bench).listeners},
	{measureSteady, (*bench).steady},
	{measureIdle, (*bench).idle},
	{measureGrowth, (*bench).growth},
}

// bench is one run.
type bench struct {
	*stage
	results
	plan        plan
	systems     []*system
	plain       *system
	descriptors int // that a process may have
	out         io.Writer
	broken      map[broken]bool
}

// broken is a system that could not be measured, and is not tried again.
type broken struct {
	measure string
	system  *system
}

// interruptedStatus is the exit status of a run that a signal has ended.
const interruptedStatus = 130

// run makes the measures, writes the table to out and what it does meanwhile to progress. It
// returns the exit status.
func run(o options, out, progress io.Writer) (int, error) {
	b, err := newBench(o, progress)
	if err != nil {
		return 1, err
	}
	defer os.RemoveAll(b.dir)
	defer b.heedSignals(progress)()

	results, err := createAll(o.json, o.svg) // before the work, not after it
	if err != nil {
		return 1, err
	}
	if err := b.findSystems(o.peers); b.interrupted.Load() {
		return interruptedStatus, errInterrupted
	} else if err != nil {
		return 1, err
	}
	begun := time.Now()
	for _, m := range measures {
		if len(o.only) == 0 || slices.Contains(o.only, m.name) {
			m.run(b)
			debug.FreeOSMemory()
		}
		if b.interrupted.Load() {
			return interruptedStatus, errInterrupted
		}
	}
	fmt.Fprintf(out, "%s, %s, %d processors, %s, %v\n\n", runtime.Version(), kernel(), runtime.NumCPU(),
		begun.Format("2006-01-02 15:04"), time.Since(begun).Round(time.Second))
	err = errors.Join(
		writeTable(out, b.names(), b.figures),
		results[0].fill(func(w io.Writer) error { return writeJSON(w, b.figures) }),
		results[1].fill(b.charts.write),
	)
	if err != nil {
		return 1, err
	}
	if len(b.accounts)+len(b.fail) > 0 {
		return 1, b.verdict()
	}
	return 0, nil
}

// heedSignals lets a signal end the run, until stop is called. A second one kills.
func (b *bench) heedSignals(progress io.Writer) (stop func()) {
	signals := make(chan os.Signal, 1)
	signal.Notify(signals, os.Interrupt, syscall.SIGTERM, syscall.SIGHUP)
	var heeding sync.WaitGroup
	heeding.Add(1)
	go func() {
		defer heeding.Done()
		if _, ok := <-signals; !ok {
			return
		}
		signal.Stop(signals)
		fmt.Fprintln(progress, "ending what was started")
		b.interrupted.Store(true)
	}()
	return func() {
		signal.Stop(signals)
		close(signals)
		heeding.Wait()
	}
}

// newBench returns one that knows no systems yet. Its directory is the caller's to remove.
func newBench(o options, progress io.Writer) (*bench, error) {
	dir, err := os.MkdirTemp("", "grace-bench")
	if err != nil {
		return nil, fmt.Errorf("make a directory: %w", err)
	}
	if err := os.Chmod(dir, 0o755); err != nil { // servers have users of their own
		return nil, fmt.Errorf("make a directory: %w", err)
	}
	b := &bench{
		stage:   &stage{dir: dir},
		results: results{now: time.Now},
		plan:    o.plan,
		out:     progress,
		broken:  make(map[broken]bool),
	}
	b.descriptors, err = raiseLimit()
	return b, err
}

// names returns those of the systems, in order.
func (b *bench) names() []string {
	var names []string
	for _, s := range b.systems {
		names = append(names, s.name)
	}
	return names
}

// verdict says what must not be.
func (r *results) verdict() error {
	const show = 10
	var b strings.Builder
	if n := len(r.accounts); n > 0 {
		fmt.Fprintf(&b, "this library has lost %d requests:\n", n)
		for _, account := range r.accounts[:min(n, show)] {
			fmt.Fprintf(&b, "  %s\n", account)
		}
	}
	if len(r.fail) > 0 {
		fmt.Fprintf(&b, "this library could not be measured:\n")
		for _, failure := range r.fail {
			fmt.Fprintf(&b, "  %s\n", failure)
		}
	}
	return errors.New(strings.TrimSuffix(b.String(), "\n"))
}

func kernel() string {
	var u unix.Utsname
	if err := unix.Uname(&u); err != nil {
		return "Linux"
	}
	return unix.ByteSliceToString(u.Sysname[:]) + " " + unix.ByteSliceToString(u.Release[:])
}

// output is a file for results, or none.
type output struct{ *os.File }

func createAll(paths ...string) ([]output, error) {
	outputs := make([]output, len(paths))
	for i, path := range paths {
		if path == "" {
			continue
		}
		f, err := os.Create(path)
		if err != nil {
			return nil, fmt.Errorf("create a file for results: %w", err)
		}
		outputs[i].File = f
	}
	return outputs, nil
}

func (o output) fill(write func(io.Writer) error) error {
	if o.File == nil {
		return nil
	}
	return errors.Join(write(o), o.Close())
}

// findSystems builds the server and finds those of others, and then adopts orphans.
func (b *bench) findSystems(peers peers) error {
	fmt.Fprintln(b.out, "building the server")
	program := filepath.Join(b.dir, "server")
	const pkg = "github.com/facebookgo/grace/bench/server"
	if out, err := exec.Command("go", "build", "-o", program, pkg).CombinedOutput(); err != nil {
		return fmt.Errorf("go build %s (run this in the directory bench): %w\n%s", pkg, err, out)
	}
	b.systems = goSystems(program)
	b.plain = b.named(namePlain)[0]
	if path, err := find("nginx", b.out); err != nil {
		b.missing(err, nameReload, nameUpgrade)
	} else {
		b.systems = append(b.systems, nginxSystems(path, b.plain)...)
	}
	if path, err := find("haproxy", b.out); err != nil {
		b.missing(err, nameHAProxy)
	} else {
		b.systems = append(b.systems, haproxySystem(path, b.plain))
	}
	b.systems = append(b.systems, peers...)
	// Not before: what compilers and installers leave behind is not ours.
	return adoptOrphans()
}

// missing makes systems of which each measure says why they are not there.
func (b *bench) missing(why error, names ...string) {
	for _, name := range names {
		b.systems = append(b.systems, &system{name: name, slow: true, start: func(t *scope, _ conditions) *server {
			t.Fatalf("%v", why)
			return nil
		}})
	}
}

// named returns the systems with these names, which there are.
func (b *bench) named(names ...string) []*system {
	var found []*system
	for _, name := range names {
		i := slices.IndexFunc(b.systems, func(s *system) bool { return s.name == name })
		found = append(found, b.systems[i])
	}
	return found
}

func (b *bench) progress(measure, what string, i, n int) {
	fmt.Fprintf(b.out, "%s: %s, %d of %d\n", measure, what, i+1, n)
}

// part makes a part of a measure, for one system in one round. It reports whether that was
// possible. Where it was not it isn't tried again.
func (b *bench) part(measure string, s *system, round, of int, do func(*scope)) bool {
	return b.partOfAll(measure, []*system{s}, func(t *scope) {
		b.progress(measure, s.name, round, of)
		do(t)
	})
}

// partOfAll makes a part of a measure that takes several systems at once.
func (b *bench) partOfAll(measure string, systems []*system, do func(*scope)) bool {
	for _, s := range systems {
		if b.broken[broken{measure, s}] {
			return false
		}
	}
	err := b.stage.do(do)
	if err == nil {
		return true
	}
	for _, s := range systems {
		b.broken[broken{measure, s}] = true
		if !errors.Is(err, errInterrupted) {
			b.failed(measure, s, err)
		}
	}
	var f *failure
	if errors.As(err, &f) && f.log != "" {
		fmt.Fprintf(b.out, "%s: %v\n%s", measure, err, f.log)
	}
	return false
}
