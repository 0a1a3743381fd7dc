package handoff

// What a child writes to standard error until it is ready is listened to on the
// way, if it is asked for and nothing that the child could see changes. It is
// done only on Linux: see stderr_linux.go. Elsewhere there are no taps.
//
// The parent makes a pipe and passes both ends. A child with this package has it
// in the place of its standard error from its claim until it is ready, or the
// parent has gone. A program that knows nothing of this writes to its standard
// error as ever.

// StderrTail is how many bytes are kept of what a child has last written.
const StderrTail = 4 << 10

// Stderr returns what the child has last written to standard error, and whether
// there was more than StderrTail of that. It is nothing if nobody listens, or if
// the child was ready. A child that has exited is listened to until its end.
func (c *Child) Stderr() (b []byte, cut bool) {
	c.parent.mu.Lock()
	ready := c.ready
	c.parent.mu.Unlock()
	if ready || c.tap == nil {
		return nil, false
	}
	return c.tap.last(LastWords)
}

// A tapMark tells a child where the pipe is. It is in the marker.
type tapMark struct {
	w, r     int    // descriptors of its ends; 0 for no pipe
	inode    uint64 // its inode
	dev, ino uint64 // of the standard error that it takes the place of
}
