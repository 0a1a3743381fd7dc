package play

import "syscall"

// limit sets a resource limit of this process, as setrlimit(2) does. The hard
// limit stays.
func limit(resource int, value uint64) string {
	var l syscall.Rlimit
	if err := syscall.Getrlimit(resource, &l); err != nil {
		return err.Error()
	}
	l.Cur = min(value, l.Max)
	if err := syscall.Setrlimit(resource, &l); err != nil {
		return err.Error()
	}
	return "limited"
}
