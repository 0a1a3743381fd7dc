//go:build unix

package gracehttp_test

import (
	"flag"
	"path/filepath"
	"slices"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/facebookgo/grace/internal/testbin"
	"github.com/facebookgo/grace/internal/testbin/play"
)

var upgrades = flag.Int("upgrades", 20, "how many upgrades TestSoak makes")

// Upgrade after upgrade under mixed load: HTTP on fresh and on kept connections,
// TLS, raw TCP, unix sockets, and requests that outlast their process. One in ten
// has a broken program before it, one in ten a child that dies on standby.
//
//	go test ./gracehttp -run TestSoak -v -timeout 1h -upgrades 500
func TestSoak(t *testing.T) {
	path := filepath.Join(t.TempDir(), "socket")
	cfg := mixedConfig(path)
	cfg.Standby = 100 * time.Millisecond
	cfg.IdleGrace = testbin.Patience // as in loadedConfig
	rounds := shorter(*upgrades, min(*upgrades, 10))
	s := testbin.Start(t, cfg)
	first, addrs := s.Newest()
	var slowest slowest
	keep1, hangUp1 := testbin.Kept(addrs[0])
	keep2, hangUp2 := testbin.Kept(addrs[0])
	var all []testbin.Target
	for _, target := range append(targets(addrs),
		testbin.Lines("unix", path),
		keep1, keep2,
		slow(testbin.HTTP("http", addrs[0])), slow(testbin.Lines("unix", path)),
	) {
		all = append(all, slowest.measure(target))
	}
	load := testbin.NewLoad(t, all...)
	load.WaitPID(first)
	plain := targets(addrs)[0]
	fds := testbin.Ask(t, plain, "fds")
	var memory []int
	for i := range rounds {
		parent, _ := s.Newest()
		switch i % 10 {
		case 3:
			fail(t, s, parent, cfg, faults[i/10%(len(faults)-2)])
		case 6: // the next one shall have the time to take back
			patient := cfg
			patient.Standby = time.Hour
			s.Deploy(patient)
		case 7:
			s.Deploy(cfg)
			n := len(s.Events())
			child := s.RestartPID(parent)
			s.WaitAfter(n, "the parent to stand by", logged(parent, "standing by"))
			// No request may be in the child when it dies, nor a connection that
			// a client means to use.
			load.Pause()
			hangUp1()
			hangUp2()
			s.Signal(child, syscall.SIGKILL)
			load.Resume()
			s.WaitAfter(n, "the parent to serve again", logged(parent, "serves again"))
		}
		n := len(s.Events())
		new := s.RestartPID(parent)
		load.WaitPID(new)
		if i%10 == 7 {
			s.WaitAfter(n, "the parent to stand by", logged(parent, "standing by"))
			s.Signal(parent, syscall.SIGTERM)
		}
		if e := s.WaitReturned(parent); e.Event != play.Returned || e.Text != "" {
			t.Fatalf("upgrade %d: pid %d: %s %s", i, parent, e.Event, e.Text)
		}
		memory = append(memory, testbin.ResidentKB(t, new))
	}
	load.Stop()
	hangUp1() // or the drain waits for another request
	hangUp2()
	s.WaitOne()
	testbin.SameDescriptors(t, plain, fds)
	last, _ := s.Newest()
	if c := testbin.Children(t, last); len(c) != 0 {
		t.Errorf("children: %v", c)
	}
	tenth := max(1, len(memory)/10)
	before, after := median(memory[:tenth]), median(memory[len(memory)-tenth:])
	t.Logf("%d upgrades; memory of a generation %d KiB at first, %d KiB in the end (%.2f); slowest request %v",
		rounds, before, after, float64(after)/float64(before), slowest.get())
	if after > 2*before {
		t.Errorf("the memory of a generation grew from %d to %d KiB", before, after)
	}
	s.Stop()
}

// slow asks in a way that takes time.
func slow(target testbin.Target) testbin.Target {
	return func(string) (string, error) { return target("sleep 150ms") }
}

// slowest is the longest time that a request has taken.
type slowest struct {
	mu sync.Mutex
	d  time.Duration
}

func (s *slowest) measure(target testbin.Target) testbin.Target {
	return func(question string) (string, error) {
		begin := time.Now()
		answer, err := target(question)
		s.mu.Lock()
		defer s.mu.Unlock()
		s.d = max(s.d, time.Since(begin))
		return answer, err
	}
}

func (s *slowest) get() time.Duration {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.d
}

func median(values []int) int {
	values = slices.Sorted(slices.Values(values))
	return values[len(values)/2]
}
