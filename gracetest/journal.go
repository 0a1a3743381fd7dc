//go:build unix

package gracetest

import (
	"bufio"
	"fmt"
	"os"
	"slices"
	"strings"
	"sync"
	"time"
)

// Line is a line that a process of a service has written.
type Line struct {
	Text  string
	Error bool // to standard error
}

// entry is something that happened: a line, or what the test did.
type entry struct {
	at   time.Time
	text string
	line bool
}

// journal is what happened to a service.
type journal struct {
	mu      sync.Mutex
	changed chan struct{} // closed at each line
	lines   []Line
	entries []entry
}

func newJournal() *journal { return &journal{changed: make(chan struct{})} }

// note records what the test does, or sees.
func (j *journal) note(format string, args ...any) {
	j.mu.Lock()
	defer j.mu.Unlock()
	j.entries = append(j.entries, entry{time.Now(), fmt.Sprintf(format, args...), false})
}

// read records the lines that come, to the end.
func (j *journal) read(r *os.File, isError bool) {
	defer r.Close()
	lines := bufio.NewReader(r)
	for {
		text, err := lines.ReadString('\n')
		if text != "" {
			j.line(Line{strings.TrimSuffix(text, "\n"), isError})
		}
		if err != nil {
			return
		}
	}
}

func (j *journal) line(l Line) {
	j.mu.Lock()
	defer j.mu.Unlock()
	j.lines = append(j.lines, l)
	j.entries = append(j.entries, entry{time.Now(), l.Text, true})
	close(j.changed)
	j.changed = make(chan struct{})
}

// all returns the lines so far, and what is closed when there is one more.
func (j *journal) all() (lines []Line, changed <-chan struct{}) {
	j.mu.Lock()
	defer j.mu.Unlock()
	return j.lines[:len(j.lines):len(j.lines)], j.changed
}

// around returns what happened shortly before a moment and soon after it, a line for
// each, with its distance in time. What the test did is not lost among what the
// service wrote.
func (j *journal) around(moment time.Time) string {
	const lines, notes, after = 15, 5, 5
	j.mu.Lock()
	defer j.mu.Unlock()
	now, _ := slices.BinarySearchFunc(j.entries, moment, func(e entry, t time.Time) int { return e.at.Compare(t) })
	shown := slices.Clone(j.entries[now:min(len(j.entries), now+after)])
	slices.Reverse(shown)
	left := map[bool]int{true: lines, false: notes}
	for _, e := range slices.Backward(j.entries[:now]) {
		if left[e.line] > 0 {
			left[e.line]--
			shown = append(shown, e)
		}
		if left[true]+left[false] == 0 {
			break
		}
	}
	var b strings.Builder
	for _, e := range slices.Backward(shown) {
		fmt.Fprintf(&b, "  %+10.3f ms  %s\n", float64(e.at.Sub(moment))/1e6, e.text)
	}
	return b.String()
}
