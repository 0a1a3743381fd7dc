//go:build unix

package gracetest

import (
	"fmt"
	"slices"
	"strconv"
	"strings"
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
	excused atomic.Pointer[func(opened, begun, ended time.Time) bool]
}

// worker is a client at work.
type worker struct {
	client Client

	mu       sync.Mutex
	requests int
	records  [][]record // the last one has room
	answers  map[string]*tally
	losses   []Loss
	killed   int
	conns    int
	again    int
}

// record is what is kept of each request, which is little, since there may be
// millions.
type record struct {
	due    time.Duration // since the load has begun
	took   time.Duration
	answer *tally // nil if it was lost
}

// tally counts an answer.
type tally struct {
	answer string
	n      int
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
	Client string
	Number int       // of the client's requests, beginning with 1
	Nth    int       // of those on its connection
	At     time.Time // when it was due
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
	l := &Load{t: t, stop: make(chan struct{}), begun: time.Now()}
	for _, c := range clients {
		w := &worker{client: c, answers: make(map[string]*tally)}
		l.workers = append(l.workers, w)
		l.running.Add(1)
		go func() {
			defer l.running.Done()
			defer func() { _ = c.Close() }()
			l.run(w)
		}()
	}
	t.Cleanup(l.end)
	return l
}

// breath is how long a client waits that has lost a request: where nobody serves it
// would lose as many as the processor can make.
const breath = 5 * time.Millisecond

func (l *Load) run(w *worker) {
	pace, _ := w.client.(*paced)
	for {
		var wait time.Duration
		if pace != nil { // not within Do, which Pause and the end wait for
			wait = pace.untilDue()
		}
		if !l.rest(wait) {
			return
		}
		l.asking.RLock()
		begun := time.Now()
		x, err := w.client.Do()
		ended := time.Now()
		w.mu.Lock()
		l.count(w, x, err, begun, ended)
		w.mu.Unlock()
		l.asking.RUnlock()
		if err != nil && !l.rest(breath) {
			return
		}
	}
}

// rest waits for d. It reports whether the load goes on.
func (l *Load) rest(d time.Duration) bool {
	if d <= 0 {
		select {
		case <-l.stop:
			return false
		default:
			return true
		}
	}
	select {
	case <-l.stop:
		return false
	case <-time.After(d):
		return true
	}
}

// count records a request. The worker is locked.
func (l *Load) count(w *worker, x Exchange, err error, begun, ended time.Time) {
	due := begun
	if !x.Due.IsZero() {
		due = x.Due
	}
	took := ended.Sub(due)
	w.requests++
	if x.Nth == 1 {
		w.conns++
	}
	if x.Reconnected {
		w.again++
	}
	var answer *tally
	if err == nil {
		answer = w.tally(x.Answer)
		answer.n++
	} else if excused := l.excused.Load(); excused != nil && (*excused)(x.Opened, begun, ended) {
		w.killed++
	} else {
		w.losses = append(w.losses, Loss{
			Client: w.client.String(), Number: w.requests, Nth: x.Nth, At: due, Took: took, Opened: x.Opened, Err: err,
		})
	}
	w.record(record{due.Sub(l.begun), took, answer})
}

// record appends in pieces: a slice that grows is copied again and again.
func (w *worker) record(r record) {
	const room = 1 << 12
	last := len(w.records) - 1
	if last < 0 || len(w.records[last]) == room {
		w.records = append(w.records, make([]record, 0, room))
		last++
	}
	w.records[last] = append(w.records[last], r)
}

// What a load keeps of answers, which may be long and of which no two may be the same:
// so many bytes of each, and so many different ones for each client.
const (
	answerBytes = 100
	answerKinds = 1000
)

// tally returns what counts an answer.
func (w *worker) tally(answer string) *tally {
	answer = answer[:min(len(answer), answerBytes)]
	if t, ok := w.answers[answer]; ok {
		return t
	}
	if len(w.answers) >= answerKinds {
		answer = otherAnswers
		if t, ok := w.answers[answer]; ok {
			return t
		}
	}
	t := &tally{answer: strings.Clone(answer)}
	w.answers[t.answer] = t
	return t
}

const otherAnswers = "(other answers)"

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
	l.each(func(w *worker) { n += w.requests })
	return n
}

func (l *Load) each(do func(*worker)) {
	for _, w := range l.workers {
		w.mu.Lock()
		do(w)
		w.mu.Unlock()
	}
}

// WaitAnswer waits until a request was answered so. Answers are told apart as in
// the Answers of a [Report].
func (l *Load) WaitAnswer(answer string) {
	l.t.Helper()
	Poll(l.t, fmt.Sprintf("the answer %q", answer), func() bool {
		found := false
		l.each(func(w *worker) { found = found || w.answers[answer] != nil })
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
	Poll(l.t, "more requests", func() bool { return l.Requests() >= n })
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
	r := &Report{Begun: l.begun, Ended: time.Now(), Answers: make(map[string]int), Samples: make([]Sample, 0, l.Requests())}
	l.each(func(w *worker) {
		r.Requests += w.requests
		r.Killed += w.killed
		r.Connections += w.conns
		r.Reconnects += w.again
		r.Losses = append(r.Losses, w.losses...)
		for _, records := range w.records {
			for _, one := range records {
				s := Sample{At: l.begun.Add(one.due), Took: one.took, Lost: one.answer == nil}
				if one.answer != nil {
					s.Answer = one.answer.answer
				}
				r.Samples = append(r.Samples, s)
			}
		}
		for _, t := range w.answers {
			r.Answers[t.answer] += t.n
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
