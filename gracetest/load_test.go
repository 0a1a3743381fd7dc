//go:build unix

package gracetest_test

import (
	"errors"
	"fmt"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/facebookgo/grace/gracetest"
)

var errOnPurpose = errors.New("on purpose")

// answering is a client that gets this answer at once.
func answering(answer string) gracetest.Client {
	return gracetest.Func("answering", func() (string, error) { return answer, nil })
}

func TestLoad(t *testing.T) {
	l := gracetest.NewLoad(t, answering("7"), answering("8"))
	l.WaitPID(7)
	l.WaitPID(8)
	before := l.Requests()
	l.WaitMore(1000)
	if now := l.Requests(); now < before+1000 {
		t.Errorf("%d requests after 1000 more than %d", now, before)
	}
	r := l.Stop()
	if len(r.Losses) != 0 || r.Requests != l.Requests() || len(r.Samples) != r.Requests || r.Connections != r.Requests {
		t.Errorf("%s, with %d samples; Requests is %d", r, len(r.Samples), l.Requests())
	}
	if len(r.Answers) != 2 || r.Answers["7"] == 0 || r.Answers["7"]+r.Answers["8"] != r.Requests {
		t.Errorf("answers %v of %d requests", r.Answers, r.Requests)
	}
	last := r.Begun
	for i, s := range r.Samples {
		if s.At.Before(last) || s.At.Add(s.Took).After(r.Ended) || s.Lost || s.Answer != "7" && s.Answer != "8" {
			t.Fatalf("sample %d: %+v; the one before is of %v", i, s, last)
		}
		last = s.At
	}
}

// While a load is paused no request is under way.
func TestPause(t *testing.T) {
	var paused, during atomic.Bool
	var asking atomic.Int32
	c := gracetest.Func("watched", func() (string, error) {
		asking.Add(1)
		defer asking.Add(-1)
		if paused.Load() {
			during.Store(true)
		}
		return "", nil
	})
	l := gracetest.NewLoad(t, c, c, c)
	for range 5 {
		l.WaitMore(10)
		l.Pause()
		paused.Store(true)
		before := l.Requests()
		for range 1000 {
			if n := asking.Load(); n != 0 {
				t.Fatalf("%d requests are under way", n)
			}
		}
		if now := l.Requests(); now != before {
			t.Errorf("%d requests were made", now-before)
		}
		paused.Store(false)
		l.Resume()
	}
	l.Resume() // of what is not paused
	l.WaitMore(10)
	l.Pause()
	l.Pause() // as a test leaves it that fails
	l.Stop()
	if during.Load() {
		t.Error("a request was made while the load was paused")
	}
}

// A client that waits for its time holds up neither Pause nor Stop.
func TestPacedLoad(t *testing.T) {
	l := gracetest.NewLoad(t, answering("1"), gracetest.Paced(answering("2"), 24*time.Hour))
	l.WaitPID(1)
	l.Pause()
	l.Resume()
	if r := l.Stop(); r.Answers["1"] == 0 || r.Answers["2"] > 1 {
		t.Errorf("%s; answers %v", r, r.Answers)
	}
}

// What a client can't ask because the load is paused is put off, and does not count as late.
func TestPacedPause(t *testing.T) {
	const interval, pause = 100 * time.Millisecond, 2 * time.Second
	l := gracetest.NewLoad(t, gracetest.Paced(answering("1"), interval))
	l.WaitMore(2)
	l.Pause()
	paused := time.Now()
	before := l.Requests()
	<-time.After(pause)
	resumed := time.Now()
	l.Resume()
	l.WaitMore(5)
	samples := l.Stop().Samples
	due := 0
	for _, s := range samples {
		if s.At.Before(resumed) {
			due++
		}
	}
	// A busy machine may have owed some before.
	late := int(paused.Sub(samples[before-1].At) / interval)
	if owed := due - before - late; owed > int(pause/interval)/2 {
		t.Errorf("%d requests were due during a pause that is as long as %d intervals", owed, pause/interval)
	}
}

// A load that loses a request fails the test, and one that makes none.
func TestLoadFails(t *testing.T) {
	n := 0
	failing := gracetest.Func("failing", func() (string, error) {
		if n++; n == 3 {
			return "", errOnPurpose
		}
		return "", nil
	})
	for _, test := range []struct {
		clients []gracetest.Client
		want    []string
	}{
		{nil, []string{"the load made no request"}},
		{[]gracetest.Client{failing}, []string{
			" requests were lost. The first one:\n  failing: request 3, the 1st on a connection that was opened ",
			" before, was lost after ", ": on purpose",
		}},
	} {
		told := watch(t, func(tb testing.TB) {
			l := gracetest.NewLoad(tb, test.clients...)
			if test.clients != nil {
				l.WaitMore(10)
			}
			l.Stop()
		})
		for _, want := range test.want {
			if !strings.Contains(told, want) {
				t.Errorf("told %q, want %q", told, want)
			}
		}
	}
}

// Where nobody answers, clients do not lose as much as they can.
func TestBreath(t *testing.T) {
	lost := gracetest.NewLoad(t, gracetest.Func("losing", func() (string, error) { return "", errOnPurpose }))
	gracetest.NewLoad(t, answering("")).WaitMore(100_000)
	r := lost.Finish()
	if r.Requests > 10_000 || len(r.Losses) != r.Requests {
		t.Errorf("%d requests, %d lost, while another client made 100000", r.Requests, len(r.Losses))
	}
}

// Answers may be long, and no two the same.
func TestManyAnswers(t *testing.T) {
	const most = 1000
	n := 0
	l := gracetest.NewLoad(t, gracetest.Func("inventive", func() (string, error) {
		n++
		return fmt.Sprintf("%0*d", 100+n%2*1000, n), nil // of the long ones only zeros count
	}))
	l.WaitMore(5 * most)
	zeros := strings.Repeat("0", 100)
	l.WaitAnswer(zeros)
	r := l.Stop()
	if len(r.Answers) != most+1 || r.Answers[zeros] != (r.Requests+1)/2 || r.Answers["(other answers)"] != r.Requests/2-(most-1) {
		t.Errorf("%d different answers of %d requests, %d of them zeros and %d others", len(r.Answers), r.Requests, r.Answers[zeros], r.Answers["(other answers)"])
	}
	if first := r.Samples[0].Answer; first != zeros {
		t.Errorf("the first answer is %q", first)
	}
}

func BenchmarkLoad(b *testing.B) {
	l := gracetest.NewLoad(b, answering("1"))
	l.WaitMore(b.N)
	l.Stop()
}
