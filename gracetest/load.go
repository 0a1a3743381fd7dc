//go:build unix

package gracetest

import (
	"fmt"
	"maps"
	"slices"
	"strconv"
	"sync"
	"sync/atomic"
	"time"
)

// Load makes requests with several clients at once, until it is stopped.
type Load struct {
	t       TB
	workers []*worker
	running sync.WaitGroup
	stop    chan struct{}
	ending  sync.Once
	begun   time.Time

	asking  sync.RWMutex // held for writing while paused
	paused  bool         // for the goroutine that pauses
	waiting atomic.Int32 // how many wait for more requests
	more    chan struct{}
	excused atomic.Pointer[func(opened, begun, ended time.Time) bool]
}

// worker is a client at work.
type worker struct {
	client Client

	mu      sync.Mutex
	samples []Sample
	answers map[string]int
	losses  []Loss
	killed  int
	conns   int
	again   int
}

// Sample is one request.
type Sample struct {
	At     time.Time     // when it was due
	Took   time.Duration // until the answer was read, or was lost
	Answer string
	Lost   bool
}

// Loss is a request that was lost.
type Loss struct {
	Client string
	Number int       // of the client's requests, beginning with 1
	Nth    int       // of those on its connection
	At     time.Time // when it was made
	Took   time.Duration
	Opened time.Time // when its connection was opened
	Err    error
}

func (l Loss) String() string {
	return fmt.Sprintf("%s: request %d, the %s on a connection that was opened %v before, was lost after %v: %v",
		l.Client, l.Number, ordinal(l.Nth), l.At.Sub(l.Opened).Round(time.Microsecond), l.Took.Round(time.Microsecond), l.Err)
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

// NewLoad starts a goroutine for each client. The load ends with the test, at the
// latest.
func NewLoad(t TB, clients ...Client) *Load {
	l := &Load{t: t, stop: make(chan struct{}), more: make(chan struct{}, 1), begun: time.Now()}
	for _, c := range clients {
		w := &worker{client: c, answers: make(map[string]int)}
		l.workers = append(l.workers, w)
		l.running.Add(1)
		go func() {
			defer l.running.Done()
			l.run(w)
		}()
	}
	t.Cleanup(l.end)
	return l
}

func (l *Load) run(w *worker) {
	for n := 1; ; n++ {
		select {
		case <-l.stop:
			_ = w.client.Close()
			return
		default:
		}
		l.asking.RLock()
		begun := time.Now()
		x, err := w.client.Do()
		ended := time.Now()
		l.asking.RUnlock()
		if !x.Due.IsZero() {
			begun = x.Due
		}
		w.mu.Lock()
		w.count(n, x, err, begun, ended, l.excused.Load())
		w.mu.Unlock()
		if l.waiting.Load() > 0 {
			select {
			case l.more <- struct{}{}:
			default:
			}
		}
	}
}

func (w *worker) count(n int, x Exchange, err error, begun, ended time.Time, excused *func(opened, begun, ended time.Time) bool) {
	if x.Nth == 1 {
		w.conns++
	}
	if x.Reconnected {
		w.again++
	}
	s := Sample{At: begun, Took: ended.Sub(begun), Answer: x.Answer}
	if err == nil {
		w.answers[x.Answer]++
	} else if excused != nil && (*excused)(x.Opened, begun, ended) {
		w.killed++
	} else {
		s.Lost = true
		w.losses = append(w.losses, Loss{
			Client: w.client.String(), Number: n, Nth: x.Nth, At: begun, Took: s.Took, Opened: x.Opened, Err: err,
		})
	}
	w.samples = append(w.samples, s)
}

// excuse says which requests were lost with a process that was killed: those for which
// killed reports true, of a connection that was opened, and a request that was begun and
// has ended at these times.
func (l *Load) excuse(killed func(opened, begun, ended time.Time) bool) { l.excused.Store(&killed) }

// Pause returns when no request is under way, and lets none begin.
func (l *Load) Pause() {
	l.asking.Lock()
	l.paused = true
}

// Resume ends Pause.
func (l *Load) Resume() {
	l.paused = false
	l.asking.Unlock()
}

// Requests returns how many requests were made.
func (l *Load) Requests() int {
	n := 0
	l.each(func(w *worker) { n += len(w.samples) })
	return n
}

func (l *Load) each(do func(*worker)) {
	for _, w := range l.workers {
		w.mu.Lock()
		do(w)
		w.mu.Unlock()
	}
}

// WaitAnswer waits until a request was answered so.
func (l *Load) WaitAnswer(answer string) {
	l.t.Helper()
	l.wait(fmt.Sprintf("the answer %q", answer), func() bool {
		found := false
		l.each(func(w *worker) { found = found || w.answers[answer] > 0 })
		return found
	})
}

// WaitPID waits until a request was answered with the pid.
func (l *Load) WaitPID(pid int) {
	l.t.Helper()
	l.WaitAnswer(strconv.Itoa(pid))
}

// WaitMore waits until n more requests were made.
func (l *Load) WaitMore(n int) {
	l.t.Helper()
	n += l.Requests()
	l.wait("more requests", func() bool { return l.Requests() >= n })
}

func (l *Load) wait(what string, done func() bool) {
	l.t.Helper()
	l.waiting.Add(1)
	defer l.waiting.Add(-1)
	timeout := time.After(Patience)
	for !done() {
		select {
		case <-l.more:
		case <-time.After(50 * time.Millisecond): // another one that waits may have had it
		case <-timeout:
			l.t.Fatalf("waited in vain for %s", what)
		}
	}
}

// end ends the load.
func (l *Load) end() {
	l.ending.Do(func() { close(l.stop) })
	if l.paused { // the test has failed meanwhile
		l.Resume()
	}
	l.running.Wait()
}

// Finish ends the load and reports what it has found.
func (l *Load) Finish() *Report {
	l.end()
	r := &Report{Begun: l.begun, Ended: time.Now(), Answers: make(map[string]int)}
	l.each(func(w *worker) {
		r.Requests += len(w.samples)
		r.Killed += w.killed
		r.Connections += w.conns
		r.Reconnects += w.again
		r.Losses = append(r.Losses, w.losses...)
		r.Samples = append(r.Samples, w.samples...)
		for answer, n := range maps.All(w.answers) {
			r.Answers[answer] += n
		}
	})
	slices.SortFunc(r.Losses, func(a, b Loss) int { return a.At.Add(a.Took).Compare(b.At.Add(b.Took)) })
	slices.SortFunc(r.Samples, func(a, b Sample) int { return a.At.Compare(b.At) })
	return r
}

// Stop ends the load and fails the test if a request was lost, or none was made.
func (l *Load) Stop() *Report {
	l.t.Helper()
	r := l.Finish()
	r.check(l.t, nil)
	return r
}
