//go:build unix

package gracetest

import (
	"slices"
	"strings"
	"testing"
	"time"
)

// What a test did is told, however much the service writes.
func TestAround(t *testing.T) {
	j := newJournal()
	begun := time.Now()
	at := func(ms int, text string, line bool) {
		j.entries = append(j.entries, entry{begun.Add(time.Duration(ms) * time.Millisecond), text, line})
	}
	for i := range 7 {
		at(i, "note "+string(rune('0'+i)), false)
	}
	for i := range 100 {
		at(100+i, "line", true)
	}
	for i := range 10 {
		at(1000+i, "after", true)
	}
	told := strings.Split(strings.TrimSuffix(j.around(begun.Add(500*time.Millisecond)), "\n"), "\n")
	var want []string
	for i := 2; i < 7; i++ {
		want = append(want, "note "+string(rune('0'+i)))
	}
	want = append(append(want, slices.Repeat([]string{"line"}, 15)...), slices.Repeat([]string{"after"}, 5)...)
	for i, l := range told {
		if i >= len(want) || !strings.HasSuffix(l, " ms  "+want[i]) {
			t.Fatalf("line %d is %q; want %q", i, l, want)
		}
	}
	if len(told) != len(want) || !strings.HasPrefix(told[0], "    -498.000 ms") || !strings.HasPrefix(told[len(told)-1], "    +504.000 ms") {
		t.Errorf("told:\n%s", strings.Join(told, "\n"))
	}
}
