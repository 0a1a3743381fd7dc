package grace

import (
	"bytes"
	"io"
	"os"
	"strconv"
	"strings"
)

// The last words of a child. It has our standard error itself, and nothing is put
// between: a pipe would break under the child, or a process that it has started,
// when this one exits, and what a program sees that asks whether it writes to a
// terminal or to the journal would change. So only what can be read back is told.

const (
	tailLines = 20
	tailBytes = 4 << 10
)

// mark is a place in the file that is standard error.
type mark struct {
	path string // empty if it is no file, or can't be read
	end  int64
}

// tail returns the last lines that were written after m.
func (m mark) tail() string {
	if m.path == "" {
		return ""
	}
	f, err := os.Open(m.path)
	if err != nil {
		return ""
	}
	defer f.Close()
	info, err := f.Stat()
	if err != nil {
		return ""
	}
	from := m.end
	if info.Size() < from {
		from = 0 // it was truncated since
	}
	cut := info.Size()-from > tailBytes
	if cut {
		from = info.Size() - tailBytes
	}
	b, err := io.ReadAll(io.NewSectionReader(f, from, tailBytes))
	if err != nil {
		return ""
	}
	return lastLines(b, cut)
}

// lastLines returns the last lines of b. If it was cut, its first line is not whole.
func lastLines(b []byte, cut bool) string {
	if cut {
		if _, whole, ok := bytes.Cut(b, []byte{'\n'}); ok {
			b = whole
		}
	}
	lines := strings.SplitAfter(strings.ToValidUTF8(string(b), "\uFFFD"), "\n")
	if lines[len(lines)-1] == "" {
		lines = lines[:len(lines)-1]
	}
	return strings.Join(lines[max(0, len(lines)-tailLines):], "")
}

// journalOf is the command that shows what pid has written to standard error, if
// that is the journal.
func journalOf(pid int) string {
	if stream := os.Getenv("JOURNAL_STREAM"); stream == "" || stream != stderrID() {
		return ""
	}
	return "journalctl _PID=" + strconv.Itoa(pid)
}
