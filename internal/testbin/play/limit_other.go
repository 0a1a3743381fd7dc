//go:build unix && !linux

package play

// limit does nothing: only Linux runs the tests that ask for it.
func limit(int, uint64) string { return "limits are for Linux" }
