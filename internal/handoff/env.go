package handoff

import (
	"errors"
	"fmt"
	"slices"
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
// refuses to execute a program with a single string of 128 KiB or more.
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

// A marker is the value of GRACE_HANDOVER: what a parent says about the
// descriptors it passes, beyond what LISTEN_FDS can say.
type marker struct {
	parent  int    // pid of the parent
	control int    // descriptor of the control socket; 0 for none
	inode   uint64 // inode of the control socket, which proves that it is the one meant
	states  int    // messages State that follow
	gen     int    // generation of the child; 0 if the parent does not tell
	since   int64  // when the parent was started, in seconds since 1970; 0 if it does not tell
	sockets []meta // one for each descriptor, or none at all

	tap tapMark // the pipe for standard error

	interim bool  // the child serves only until its parent has executed the program anew
	fds     []int // descriptors of the sockets, if they are not those from firstFD
	again   bool  // the process was asked to restart once more
}

// meta is what travels with one socket.
type meta struct {
	network string // the network that was asked for; empty if not known
	foreign bool   // it was not made by this family of processes
	listed  bool   // it belongs to Process.Inherit
}

// String writes m in the form that parseMarker reads, such as
// "1 parent=812 control=5 inode=90210 sockets=tcp+l,unix+f".
func (m marker) String() string {
	var b strings.Builder
	fmt.Fprintf(&b, "1 parent=%d", m.parent)
	if m.control != 0 {
		fmt.Fprintf(&b, " control=%d inode=%d", m.control, m.inode)
	}
	if m.states != 0 {
		fmt.Fprintf(&b, " states=%d", m.states)
	}
	if m.gen != 0 {
		fmt.Fprintf(&b, " generation=%d", m.gen)
	}
	if m.since != 0 {
		fmt.Fprintf(&b, " since=%d", m.since)
	}
	if t := m.tap; t.w != 0 {
		fmt.Fprintf(&b, " stderr=%d,%d,%d,%d,%d", t.w, t.r, t.inode, t.dev, t.ino)
	}
	if m.interim {
		b.WriteString(" interim=1")
	}
	if m.fds != nil {
		b.WriteString(" fds=" + joinPositions(m.fds))
	}
	if m.again {
		b.WriteString(" again=1")
	}
	if len(m.sockets) != 0 {
		b.WriteString(" sockets=")
		for i, s := range m.sockets {
			if i != 0 {
				b.WriteByte(',')
			}
			b.WriteString(s.network)
			if s.foreign || s.listed {
				b.WriteByte('+')
			}
			if s.foreign {
				b.WriteByte('f')
			}
			if s.listed {
				b.WriteByte('l')
			}
		}
	}
	return b.String()
}

var errMarker = errors.New("not written by this package")

// parseMarker reads a marker. Keys and flags that it does not know are left for
// later versions.
func parseMarker(value string) (marker, error) {
	var m marker
	fields := strings.Fields(value)
	if len(fields) == 0 {
		return m, errMarker
	}
	if _, err := strconv.ParseUint(fields[0], 10, 32); err != nil {
		return m, errMarker
	}
	for _, field := range fields[1:] {
		key, v, ok := strings.Cut(field, "=")
		var err error
		switch key {
		case "parent":
			m.parent, err = strconv.Atoi(v)
		case "control":
			m.control, err = strconv.Atoi(v)
		case "inode":
			m.inode, err = strconv.ParseUint(v, 10, 64)
		case "states":
			m.states, err = strconv.Atoi(v)
		case "generation":
			m.gen, err = strconv.Atoi(v)
		case "since":
			m.since, err = strconv.ParseInt(v, 10, 64)
		case "stderr":
			m.tap, err = parseTap(v)
		case "interim":
			m.interim = v == "1"
		case "again":
			m.again = v == "1"
		case "fds":
			if m.fds = parsePositions(v); slices.ContainsFunc(m.fds, func(fd int) bool { return fd < firstFD }) {
				err = errMarker
			}
		case "sockets":
			for s := range strings.SplitSeq(v, ",") {
				network, flags, _ := strings.Cut(s, "+")
				m.sockets = append(m.sockets, meta{
					network: network,
					foreign: strings.Contains(flags, "f"),
					listed:  strings.Contains(flags, "l"),
				})
			}
		}
		if !ok || err != nil {
			return marker{}, errMarker
		}
	}
	if m.parent <= 0 || m.control < 0 || m.control > 0 && m.control < firstFD || m.states < 0 || m.gen < 0 || m.since < 0 {
		return marker{}, errMarker
	}
	return m, nil
}

func parseTap(v string) (tapMark, error) {
	var t tapMark
	_, err := fmt.Sscanf(v, "%d,%d,%d,%d,%d", &t.w, &t.r, &t.inode, &t.dev, &t.ino)
	if err != nil || t.w < firstFD || t.r < firstFD || t.w == t.r {
		return tapMark{}, errMarker
	}
	return t, nil
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
	// Names help to match; without them sockets are matched by address.
	if v := strings.Join(names, ":"); v != "" && len(v) < maxEnv {
		env = append(env, envNames+"="+v)
	}
	v := m.String()
	if len(v) >= maxEnv {
		m.sockets = nil
		v = m.String()
	}
	return append(env, envHandover+"="+v)
}
