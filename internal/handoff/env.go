package handoff

import (
	"fmt"
	"strconv"
	"strings"
)

// The environment variables of sd_listen_fds(3), and the one of our own that
// marks a handover between two processes that use this package.
const (
	envFDs      = "LISTEN_FDS"
	envPID      = "LISTEN_PID"
	envNames    = "LISTEN_FDNAMES"
	envPIDFDID  = "LISTEN_PIDFDID"
	envHandover = "GRACE_HANDOVER"

	// Of sd_watchdog_enabled(3): which process the service manager watches.
	envWatchdogPID = "WATCHDOG_PID"
)

// firstFD is where passed descriptors begin: SD_LISTEN_FDS_START.
const firstFD = 3

// maxEnv bounds the two variables that grow with the number of sockets. Linux
// refuses to execute a program with a single string of 128 KiB or more. What is
// longer goes in a table.
const maxEnv = 100 << 10

// parseCount reads the value of LISTEN_FDS. limit is one more than the largest
// number of descriptors that this process could have.
func parseCount(value string, limit uint64) (int, error) {
	n, err := strconv.Atoi(value)
	if err != nil || n < 0 || uint64(n) > limit {
		return 0, fmt.Errorf("found invalid count value: %s=%s", envFDs, value)
	}
	return n, nil
}

// escapeName turns an address into a name that sd_listen_fds_with_names(3)
// accepts: printable ASCII without a colon. Different addresses give different
// names.
func escapeName(s string) string {
	var b strings.Builder
	for i := range len(s) {
		if c := s[i]; !validInName(c) || c == '%' {
			fmt.Fprintf(&b, "%%%02X", c)
		} else {
			b.WriteByte(c)
		}
	}
	return b.String()
}

func validInName(c byte) bool { return ' ' < c && c < 0x7f && c != ':' }

// passedName is a name as it came in LISTEN_FDNAMES, made fit to be passed on.
// What a service manager gave is kept to the letter.
func passedName(s string) string {
	for i := range len(s) {
		if !validInName(s[i]) {
			return escapeName(s)
		}
	}
	return s
}

// splitNames returns exactly n names from the value of LISTEN_FDNAMES. Service
// managers may pass too few or too many; a missing name is empty.
func splitNames(value string, n int) []string {
	names := make([]string, n)
	if value != "" {
		copy(names, strings.Split(value, ":"))
	}
	for i, name := range names {
		names[i] = passedName(name)
	}
	return names
}

// childEnv is the environment of a child: that of its parent, with the
// variables of the protocol replaced. LISTEN_PID is left out, since the pid is
// not known before the child exists; the child sets it.
func childEnv(environ, names []string, m marker) []string {
	env := make([]string, 0, len(environ)+3)
	for _, kv := range environ {
		key, _, _ := strings.Cut(kv, "=")
		switch key {
		case envFDs, envPID, envNames, envPIDFDID, envHandover:
			continue
		case envWatchdogPID:
			if kv == envWatchdogPID+"="+strconv.Itoa(m.parent) {
				continue // the child comes next
			}
		}
		env = append(env, kv)
	}
	env = append(env, envFDs+"="+strconv.Itoa(len(names)))
	if v := strings.Join(names, ":"); v != "" && len(v) < maxEnv {
		env = append(env, envNames+"="+v)
	}
	return append(env, envHandover+"="+m.String())
}
