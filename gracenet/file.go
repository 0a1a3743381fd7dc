package gracenet

import (
	"fmt"
	"io/fs"
	"os"
	"strings"

	"github.com/facebookgo/grace/internal/handoff"
)

// AddFile makes f part of what is passed to the next process, where [Net.File] finds
// it under its name: a pipe, a memfd, a locked file, a connected socket, anything that
// has a descriptor. It is passed on for as long as f is open. What it is open on is
// shared by the processes: its offset, its locks of flock(2), and whether it blocks,
// which stays as it is.
//
// A name is 1 to 255 bytes of printable ASCII, without space and colon. One that
// another open file has is refused with an error that wraps fs.ErrExist. Sockets that
// listen here are passed on without it.
//
// Files go to processes that use this library; one with the original protocol gets
// their descriptors, and does not know of them.
func (n *Net) AddFile(name string, f *os.File) error {
	if err := handoff.This().AddFile(name, f); err != nil {
		return fmt.Errorf("gracenet: add file %q: %w", name, err)
	}
	return nil
}

// File returns the inherited file that has this name: one that the process before has
// passed on with [Net.AddFile], or that a service manager has passed and named, and
// that is neither a listening nor a datagram socket, such as a FIFO. It is passed on
// in turn, until it is closed. Each is returned once; if there is none left the error
// wraps fs.ErrNotExist. Files that nobody has asked for when this process says that it
// is ready are closed.
func (n *Net) File(name string) (*os.File, error) {
	return named(n, "file", name, handoff.This().TakeFile)
}

// named returns what was inherited under a name.
func named[C comparable](n *Net, what, name string, take func(string) (C, error)) (C, error) {
	var none C
	if err := n.inheritError(); err != nil {
		return none, err
	}
	c, err := take(name)
	if err == nil && c == none {
		names := "nothing that has a name is left"
		if all := handoff.This().Names(); len(all) != 0 {
			names = "there is " + strings.Join(all, ", ")
		}
		err = fmt.Errorf("gracenet: no %s was inherited with the name %q (%s): %w", what, name, names, fs.ErrNotExist)
	}
	return c, err
}
