//go:build unix

package gracetest

import (
	"fmt"
	"math"
	"slices"
	"strconv"
	"strings"
	"time"
)

// Report is what clients saw, and what was left behind.
type Report struct {
	Begun, Ended time.Time // the time in which they made requests

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

// Sample is one request.
type Sample struct {
	At     time.Time     // when it was due
	Took   time.Duration // until the answer was read, or was lost
	Answer string        // as in the Answers of a report; empty if it was lost
	Lost   bool          // if only with a process that was killed
}

// Loss is a request that was lost.
type Loss struct {
	Client string        // what it says it is
	Number int           // of the client's requests, beginning with 1
	Nth    int           // of those on its connection, beginning with 1
	At     time.Time     // when it was due
	Took   time.Duration // until it was lost
	Opened time.Time     // when its connection was opened; zero if the client does not say
	Err    error         // of Client.Do
}

// String tells of the loss in one line.
func (l Loss) String() string {
	conn := ""
	if !l.Opened.IsZero() {
		conn = fmt.Sprintf(", the %s on a connection that was opened %v before,", ordinal(l.Nth), max(l.At.Sub(l.Opened), 0).Round(time.Microsecond))
	}
	return fmt.Sprintf("%s: request %d%s was lost after %v: %v", l.Client, l.Number, conn, l.Took.Round(time.Microsecond), l.Err)
}

func ordinal(n int) string {
	switch {
	case n%10 == 1 && n%100 != 11:
		return strconv.Itoa(n) + "st"
	case n%10 == 2 && n%100 != 12:
		return strconv.Itoa(n) + "nd"
	case n%10 == 3 && n%100 != 13:
		return strconv.Itoa(n) + "rd"
	}
	return strconv.Itoa(n) + "th"
}

// Latency returns how long the fastest part of the answered requests took at most: 0.5 for
// the median, 1 for the slowest. It is 0 if there are none.
func (r *Report) Latency(part float64) time.Duration {
	return Latency(r.Samples, part)
}

// Latency is [Report.Latency] for any samples, such as those of a part of the time.
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
