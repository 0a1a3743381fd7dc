//go:build linux

package main

import (
	"fmt"
	"os"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/facebookgo/grace/gracetest"
)

// Each system answers, is restarted again and again, and leaves nothing.
func TestRestarts(t *testing.T) {
	b := testBench(t)
	for _, sys := range b.systems {
		t.Run(sys.name, func(t *testing.T) {
			b.must(t, func(t *scope) {
				s := sys.start(t, conditions{standby: 50 * time.Millisecond})
				pid := s.waitUp()
				slow := s.WaitAnswer(gracetest.Raw(gracetest.Request{URL: s.url("/slow?for=1ms")}))
				if slow == "" {
					t.Errorf("no answer to a slow request")
				}
				if sys.keeps {
					return
				}
				for range 3 {
					p := s.restart(askPause, false)
					if p.old == p.new || p.answered.Before(p.asked) || p.exited.Before(p.asked) || sys.ours && len(p.lost) > 0 {
						t.Errorf("%+v, lost: %v", p, p.lost)
					}
					if now := s.waitUp(); now == pid || syscall.Kill(p.old, 0) == nil && !isZombie(p.old) {
						t.Errorf("process %d answers after %+v", now, p)
					}
					pid = p.new
				}
				// It has the same processes as at first: the one that answers, and its master.
				if n := len(s.Processes()); sys.isGo && n != 1 {
					t.Errorf("%d processes are left", n)
				}
			})
		})
	}
}

func isZombie(pid int) bool {
	b, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
	return err != nil || strings.Contains(string(b), ") Z ")
}

// Any other server can take part. Its signal is the one that it is given: this one knows
// no other.
func TestPeer(t *testing.T) {
	b := testBench(t)
	program := b.dir + "/server" // the command in server/ serves without flags, too
	for _, test := range []struct {
		signal string
		works  bool
	}{{"USR2", true}, {"URG", false}} {
		t.Run(test.signal, func(t *testing.T) {
			var p peers
			if err := p.Set("a peer=" + program + ":" + test.signal); err != nil {
				t.Fatal(err)
			}
			b := testBench(t, p...)
			sys := b.named("a peer")[0]
			err := b.stage.do(func(t *scope) {
				s := sys.start(t, conditions{})
				s.Patience = 3 * time.Second
				if test.works {
					s.Patience = gracetest.Patience
				}
				s.restart(askPause, false)
			})
			if test.works && err != nil {
				t.Error(err)
			}
			if !test.works && (err == nil || !strings.Contains(err.Error(), "no new process of a peer answers after urgent I/O condition")) {
				t.Errorf("%v, want that nothing follows", err)
			}
		})
	}
}

// A process that is left is ended, and told.
func TestLeft(t *testing.T) {
	b := testBench(t)
	err := b.stage.do(func(t *scope) {
		pid, err := syscall.ForkExec("/bin/sleep", []string{"sleep", "1000"}, nil)
		if err != nil {
			t.Fatalf("start a process: %v", err)
		}
		t.Logf("process %d was started", pid)
	})
	if err == nil || !strings.Contains(err.Error(), "was left") {
		t.Errorf("%v, want that a process was left", err)
	}
}

// A system that can't be found is said to be missing, by each measure.
func TestMissing(t *testing.T) {
	b := testBench(t)
	b.systems = nil
	b.missing(fmt.Errorf("it has been eaten"), "dinner")
	b.start()
	b.lost()
	var told []string
	for _, f := range b.figures {
		told = append(told, f.Measure+" "+f.System+" "+f.Failure)
	}
	if got := strings.Join(told, "; "); got != "start dinner it has been eaten; lost dinner it has been eaten" {
		t.Error(got)
	}
}
