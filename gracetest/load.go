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

// Load makes requests with several clients at once, until it is stopped. [NewLoad] makes
// one.
type Load struct {
	t       TB
	workers []*worker
	running sync.WaitGroup
	stop    chan struct{}
	ending  sync.Once
	begun   time.Time

	asking  sync.RWMutex  // held for writing while paused
	paused  bool          // for the goroutine that pauses
	since   time.Time     // it was paused; guarded by asking, too
	stood   time.Duration // how long it was paused, all together
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

// NewLoad starts a goroutine for each client, which closes the client in the end. The load
// ends with the test, at the latest.
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
	stood := time.Duration(0) // of l.stood, what pace knows of
	for {
		var wait time.Duration
		if pace != nil { // not within Do, which Pause and the end wait for
			wait = pace.untilDue()
		}
		if !l.rest(wait) {
			return
		}
		l.asking.RLock()
		if more := l.stood - stood; pace != nil && more > 0 {
			// That it could not ask meanwhile is not the server's fault.
			pace.due = pace.due.Add(more)
			stood += more
			l.asking.RUnlock()
			continue
		}
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

// Pause returns when no request is under way, and lets none begin until [Load.Resume] is
// called, by the same goroutine. What is due in that time is put off. A load that is paused
// is left so.
func (l *Load) Pause() {
	if l.paused {
		return
	}
	since := time.Now()
	l.asking.Lock()
	l.paused, l.since = true, since
}

// Resume ends Pause. A load that is not paused goes on.
func (l *Load) Resume() {
	if !l.paused {
		return
	}
	l.paused = false
	l.stood += time.Since(l.since)
	l.asking.Unlock()
}

// Requests returns how many requests were made: answered, or lost.
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

// WaitAnswer waits until a request was answered so, and fails the test after [Patience].
// Answers are told apart as in the Answers of a [Report].
func (l *Load) WaitAnswer(answer string) {
	l.t.Helper()
	Poll(l.t, fmt.Sprintf("the answer %q", answer), func() bool {
		found := false
		l.each(func(w *worker) { found = found || w.answers[answer] != nil })
		return found
	})
}

// WaitPID is WaitAnswer for services that answer with the pid.
func (l *Load) WaitPID(pid int) {
	l.t.Helper()
	l.WaitAnswer(strconv.Itoa(pid))
}

// WaitMore waits until n more requests were made, and fails the test after [Patience].
func (l *Load) WaitMore(n int) {
	l.t.Helper()
	before := l.Requests()
	Poll(l.t, fmt.Sprintf("%d more requests", n), func() bool { return l.Requests() >= before+n })
}

// end ends the load.
func (l *Load) end() {
	l.ending.Do(func() { close(l.stop) })
	l.Resume() // if the test has failed meanwhile
	l.running.Wait()
}

// Finish ends the load, when the requests that are under way are over, and reports what it
// has found. It fails no test.
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

// Stop is Finish, and fails the test if a request was lost, or none was made.
func (l *Load) Stop() *Report {
	l.t.Helper()
	r := l.Finish()
	r.check(l.t, nil)
	return r
}
