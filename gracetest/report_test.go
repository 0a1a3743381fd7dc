//go:build unix

package gracetest_test

import (
	"testing"
	"time"

	"github.com/facebookgo/grace/gracetest"
)

func TestLatency(t *testing.T) {
	samples := []gracetest.Sample{{Took: time.Hour, Lost: true}}
	if got := gracetest.Latency(samples, 1); got != 0 {
		t.Errorf("the highest of none is %v", got)
	}
	for _, ms := range []int{30, 10, 40, 20, 50, 60, 100, 90, 80, 70} {
		samples = append(samples, gracetest.Sample{Took: time.Duration(ms) * time.Millisecond})
	}
	for part, want := range map[float64]time.Duration{0: 10, 0.1: 10, 0.11: 20, 0.5: 50, 0.9: 90, 0.99: 100, 1: 100} {
		if got := gracetest.Latency(samples, part); got != want*time.Millisecond {
			t.Errorf("the fastest %v took %v at most, want %v ms", part, got, int64(want))
		}
	}
	if samples[1].Took != 30*time.Millisecond {
		t.Error("the samples were sorted")
	}
}

func TestReportString(t *testing.T) {
	r := &gracetest.Report{
		Requests: 5, Connections: 3, Reconnects: 2,
		Samples: []gracetest.Sample{{Took: time.Millisecond}, {Took: 2 * time.Millisecond}, {Took: 3 * time.Millisecond}, {Took: time.Hour, Lost: true}},
	}
	const latency = "; latency: median 2ms, p99 3ms, highest 3ms"
	if got, want := r.String(), "5 requests, 0 lost; 3 connections, 2 reconnects"+latency; got != want {
		t.Errorf("got %q, want %q", got, want)
	}
	r.Losses = make([]gracetest.Loss, 1)
	r.Killed, r.Restarts, r.Refused = 4, 6, 7
	if got, want := r.String(), "5 requests, 1 lost, 4 more with a process that was killed; 3 connections, 2 reconnects; 6 restarts, 7 refused, as they must be"+latency; got != want {
		t.Errorf("got %q, want %q", got, want)
	}
}

func TestLossString(t *testing.T) {
	at := time.Now()
	for nth, want := range map[int]string{1: "1st", 2: "2nd", 3: "3rd", 4: "4th", 11: "11th", 12: "12th", 13: "13th", 21: "21st", 112: "112th", 122: "122nd"} {
		l := gracetest.Loss{Client: "c", Number: 9, Nth: nth, At: at, Took: 2 * time.Millisecond, Opened: at.Add(-time.Second), Err: errOnPurpose}
		if got, want := l.String(), "c: request 9, the "+want+" on a connection that was opened 1s before, was lost after 2ms: on purpose"; got != want {
			t.Errorf("got %q, want %q", got, want)
		}
	}
	// The client opened it for this request, a little after that was due.
	late := gracetest.Loss{Client: "c", Number: 9, Nth: 1, At: at, Took: 2 * time.Millisecond, Opened: at.Add(time.Second), Err: errOnPurpose}
	if got, want := late.String(), "c: request 9, the 1st on a connection that was opened 0s before, was lost after 2ms: on purpose"; got != want {
		t.Errorf("got %q, want %q", got, want)
	}
	unknown := gracetest.Loss{Client: "c", Number: 9, At: at, Took: 2 * time.Millisecond, Err: errOnPurpose}
	if got, want := unknown.String(), "c: request 9 was lost after 2ms: on purpose"; got != want {
		t.Errorf("got %q, want %q", got, want)
	}
}
