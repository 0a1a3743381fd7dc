package grace

import (
	"bytes"
	"io"
	"os"
	"strconv"
	"strings"

	"github.com/facebookgo/grace/internal/handoff"
)

// The last words of a child, for who waits for its upgrade. In the end it has our
// standard error itself, and nothing is between: a pipe would break under it, or a
// process that it has started, when this one exits, and a program that asks whether
// it writes to a terminal or to the journal would be told something else. So:
//
//   - A file is read back.
//   - The journal is asked, with the command of journalOf.
//   - A terminal shows it.
//   - For a pipe, a FIFO, a socket or /dev/null package handoff puts a pipe of its own
//     between, until the child is ready. See stderr_linux.go there.

const (
	tailLines = 20
	tailBytes = handoff.StderrTail
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
		if _, whole, ok := bytes.Cut(b, []byte{'\n'}); ok && len(whole) != 0 {
			b = whole
		}
	}
	lines := strings.SplitAfter(strings.ToValidUTF8(string(b), "\uFFFD"), "\n")
	if lines[len(lines)-1] == "" {
		lines = lines[:len(lines)-1]
	}
	return strings.Join(lines[max(0, len(lines)-tailLines):], "")
}

// isJournal reports whether standard error is the journal.
func isJournal() bool {
	stream := os.Getenv("JOURNAL_STREAM")
	return stream != "" && stream == stderrID()
}

// journalOf is the command that shows what pid has written to standard error, if
// that is the journal.
func journalOf(pid int) string {
	if !isJournal() {
		return ""
	}
	return "journalctl _PID=" + strconv.Itoa(pid)
}
