//go:build unix

package gracetest

import (
	"fmt"
	"math"
	"slices"
	"strings"
	"time"
)

// Report is what clients saw, and what was left behind.
type Report struct {
	Begun, Ended time.Time

	Requests    int // that were made
	Killed      int // of these, lost with a process that was killed, which had their connection
	Connections int // that clients have opened
	Reconnects  int // of these, because the server did not keep one that the client would have kept

	// Losses are the requests that were lost and should not have been, in order of
	// time.
	Losses []Loss
	// Answers counts the answers: by their first 100 bytes, and a thousand different
	// ones for each client. The rest is counted together as "(other answers)".
	Answers map[string]int
	// Samples are all requests, in order of time.
	Samples []Sample

	// Restarts are those that came to their end, Refused those that could not: the
	// program was bad, or was killed.
	Restarts, Refused int
	// LeakedDescriptors are what a process has at rest in the end and did not have
	// after the first restart.
	LeakedDescriptors []string
	// LeakedProcesses are the pids of those that no restart should have left.
	LeakedProcesses []int
}

// Latency returns how long the fastest part of the answered requests took at most: 0.5 for
// the median. It is 0 if there are none.
func (r *Report) Latency(part float64) time.Duration {
	return Latency(r.Samples, part)
}

// Latency is [Report.Latency] for any samples.
func Latency(samples []Sample, part float64) time.Duration {
	var took []time.Duration
	for _, s := range samples {
		if !s.Lost {
			took = append(took, s.Took)
		}
	}
	if len(took) == 0 {
		return 0
	}
	slices.Sort(took)
	n := int(math.Ceil(part * float64(len(took))))
	return took[min(max(n, 1), len(took))-1]
}

// String is a summary, in one paragraph.
func (r *Report) String() string {
	var b strings.Builder
	fmt.Fprintf(&b, "%d requests, %d lost", r.Requests, len(r.Losses))
	if r.Killed > 0 {
		fmt.Fprintf(&b, ", %d more with a process that was killed", r.Killed)
	}
	fmt.Fprintf(&b, "; %d connections, %d reconnects", r.Connections, r.Reconnects)
	if r.Restarts+r.Refused > 0 {
		fmt.Fprintf(&b, "; %d restarts, %d refused, as they must be", r.Restarts, r.Refused)
	}
	fmt.Fprintf(&b, "; latency: median %v, p99 %v, highest %v", r.Latency(0.5), r.Latency(0.99), r.Latency(1))
	return b.String()
}

// check fails the test for what should not be.
func (r *Report) check(t TB, j *journal) {
	t.Helper()
	if r.Requests == 0 {
		t.Errorf("the load made no request")
	}
	if len(r.Losses) > 0 {
		t.Errorf("%s", r.account(j))
	}
	if len(r.LeakedDescriptors) > 0 {
		t.Errorf("%d descriptors are leaked: %s", len(r.LeakedDescriptors), strings.Join(r.LeakedDescriptors, ", "))
	}
	if len(r.LeakedProcesses) > 0 {
		t.Errorf("the processes %v are left", r.LeakedProcesses)
	}
}

// account tells of the first loss, and what happened at that time.
func (r *Report) account(j *journal) string {
	const show = 5
	first := r.Losses[0]
	var b strings.Builder
	fmt.Fprintf(&b, "%d of %d requests were lost. The first one:\n  %s\n", len(r.Losses), r.Requests, first)
	if j != nil {
		fmt.Fprintf(&b, "What happened at that time:\n%s", j.around(first.At.Add(first.Took)))
	}
	if len(r.Losses) > 1 {
		fmt.Fprintf(&b, "Then:\n")
	}
	for _, l := range r.Losses[1:min(show, len(r.Losses))] {
		fmt.Fprintf(&b, "  %+10.3f ms  %s\n", float64(l.At.Add(l.Took).Sub(first.At.Add(first.Took)))/1e6, l)
	}
	return strings.TrimSuffix(b.String(), "\n")
}
