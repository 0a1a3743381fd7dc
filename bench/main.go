//go:build linux

// Command bench measures what restarts cost: with this library, with net/http alone,
// written by hand, with nginx and HAProxy, and with any other server. All of them run side
// by side and take turns, so that their figures can be compared.
//
//	go run . [-quick] [-smoke] [-only MEASURE,...] [-peer NAME=PATH:SIGNAL ...] [-json FILE] [-svg FILE]
//
// It exits with 1 if this library has lost a request, or could not be measured; with 2 for
// flags that it does not understand.
package main

import (
	"errors"
	"flag"
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

// plan is how much is measured.
type plan struct {
	standby time.Duration // of this library

	lostRounds, lostRestarts int // each round has that many restarts
	latencyRounds            int
	steadyFor                time.Duration // before a restart
	startRounds              int
	listenerRounds           int
	listenerCounts           []int
	steadyTurns              int
	steadyTurn               time.Duration
	idleRounds               int
	idleConns                []int
	growthRestarts           int
}

var (
	full = plan{
		standby:    time.Second,
		lostRounds: 3, lostRestarts: 4,
		latencyRounds: 5, steadyFor: 2 * time.Second,
		startRounds:    60,
		listenerRounds: 7, listenerCounts: []int{1, 10, 100, 1000},
		steadyTurns: 40, steadyTurn: 400 * time.Millisecond,
		idleRounds: 5, idleConns: []int{1000, 10000},
		growthRestarts: 500,
	}
	quick = plan{
		standby:    time.Second,
		lostRounds: 1, lostRestarts: 1,
		latencyRounds: 1, steadyFor: time.Second,
		startRounds:    15,
		listenerRounds: 3, listenerCounts: []int{1, 10, 100, 1000},
		steadyTurns: 8, steadyTurn: 300 * time.Millisecond,
		idleRounds: 2, idleConns: []int{1000},
		growthRestarts: 50,
	}
	smoke = plan{
		standby:    200 * time.Millisecond,
		lostRounds: 1, lostRestarts: 2,
		latencyRounds: 1, steadyFor: 200 * time.Millisecond,
		startRounds:    1,
		listenerRounds: 1, listenerCounts: []int{1, 10},
		steadyTurns: 1, steadyTurn: 100 * time.Millisecond,
		idleRounds: 1, idleConns: []int{100},
		growthRestarts: 10,
	}
)

// options are what the flags say.
type options struct {
	plan  plan
	only  []string
	peers peers
	json  string
	svg   string
}

// parse reads the flags. What is wrong with them it has said already.
func parse(args []string, out io.Writer) (options, error) {
	o := options{plan: full}
	flags := flag.NewFlagSet("bench", flag.ContinueOnError)
	flags.SetOutput(out)
	isQuick := flags.Bool("quick", false, "take less than two minutes, instead of fifteen")
	isSmoke := flags.Bool("smoke", false, "only see that nothing is lost, in less than 40 seconds")
	only := flags.String("only", "", "the `measures` to make, with commas between them: "+strings.Join(measureNames(), ",")+" (default all)")
	flags.Var(&o.peers, "peer", "another server, as `name=path:SIGNAL`: it is started as \"path ADDR\", answers /pid, and is restarted by the signal")
	flags.StringVar(&o.json, "json", "", "`file` for the figures, one JSON object a line")
	flags.StringVar(&o.svg, "svg", "", "`file` for the chart")
	if err := flags.Parse(args); err != nil {
		return o, err
	}
	wrong := func(format string, args ...any) error {
		err := fmt.Errorf(format, args...)
		fmt.Fprintf(out, "bench: %v\n", err)
		return err
	}
	if flags.NArg() > 0 {
		return o, wrong("it takes flags only, not %q: see -help", flags.Arg(0))
	}
	switch {
	case *isQuick && *isSmoke:
		return o, wrong("choose -quick or -smoke")
	case *isQuick:
		o.plan = quick
	case *isSmoke:
		o.plan = smoke
	}
	if *only != "" {
		o.only = strings.Split(*only, ",")
	}
	for _, name := range o.only {
		if !slices.Contains(measureNames(), name) {
			return o, wrong("-only: there is no measure %q: choose from %s", name, strings.Join(measureNames(), ", "))
		}
	}
	return o, nil
}

func measureNames() []string {
	var names []string
	for _, m := range measures {
		names = append(names, m.name)
	}
	return names
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

func main() {
	o, err := parse(os.Args[1:], os.Stderr)
	if errors.Is(err, flag.ErrHelp) {
		return
	}
	if err != nil {
		os.Exit(2)
	}
	code, err := run(o, os.Stdout, os.Stderr)
	if err != nil {
		fmt.Fprintf(os.Stderr, "bench: %v\n", err)
	}
	os.Exit(code)
}

// run makes the measures, writes the table to out and what it does meanwhile to progress. It
// returns the exit status.
func run(o options, out, progress io.Writer) (int, error) {
	dir, err := os.MkdirTemp("", "grace-bench")
	if err != nil {
		return 1, fmt.Errorf("make a directory: %w", err)
	}
	defer os.RemoveAll(dir)
	if err := os.Chmod(dir, 0o755); err != nil { // servers have users of their own
		return 1, fmt.Errorf("make a directory: %w", err)
	}
	b := &bench{
		stage:   &stage{dir: dir},
		results: results{now: time.Now},
		plan:    o.plan,
		out:     progress,
		broken:  make(map[broken]bool),
	}
	if b.descriptors, err = raiseLimit(); err != nil {
		return 1, err
	}
	signals := make(chan os.Signal, 1)
	signal.Notify(signals, os.Interrupt, syscall.SIGTERM, syscall.SIGHUP)
	defer signal.Stop(signals)
	go func() {
		<-signals
		signal.Stop(signals) // a second one kills
		fmt.Fprintln(progress, "ending what was started")
		b.interrupted.Store(true)
	}()

	if err := b.findSystems(o.peers); err != nil {
		return 1, err
	}
	// Not before: what compilers and installers leave behind is not ours.
	if err := adoptOrphans(); err != nil {
		return 1, err
	}
	begun := time.Now()
	for _, m := range measures {
		if len(o.only) == 0 || slices.Contains(o.only, m.name) {
			m.run(b)
			debug.FreeOSMemory()
		}
		if b.interrupted.Load() {
			return 130, errInterrupted
		}
	}
	fmt.Fprintf(out, "%s, %s, %d processors, %s, %v\n\n", runtime.Version(), kernel(), runtime.NumCPU(),
		begun.Format("2006-01-02 15:04"), time.Since(begun).Round(time.Second))
	err = errors.Join(
		writeTable(out, b.figures),
		writeFile(o.json, func(w io.Writer) error { return writeJSON(w, b.figures) }),
		writeFile(o.svg, func(w io.Writer) error { return b.charts.write(w) }),
	)
	if err != nil {
		return 1, err
	}
	if len(b.accounts)+len(b.fail) > 0 {
		return 1, b.verdict()
	}
	return 0, nil
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

func writeFile(path string, write func(io.Writer) error) error {
	if path == "" {
		return nil
	}
	f, err := os.Create(path)
	if err != nil {
		return err
	}
	return errors.Join(write(f), f.Close())
}

// findSystems builds the server and finds those of others.
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
	return nil
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

// sleep lets time pass in which something else is measured.
func (t *scope) sleep(d time.Duration) {
	const look = 100 * time.Millisecond // for somebody who has asked for the end
	for end := time.Now().Add(d); ; {
		t.Helper()
		left := time.Until(end)
		if left <= 0 {
			return
		}
		time.Sleep(min(left, look))
	}
}
