package handoff

import (
	"errors"
	"fmt"
	"net/url"
	"slices"
	"strconv"
	"strings"
)

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
	extras  []meta // what is passed beyond LISTEN_FDS, each with its descriptor and its name

	tap tapMark // the pipe for standard error

	standby  bool  // the parent says when it stands by
	interim  bool  // the child serves only until its parent has executed the program anew
	comeback bool  // the process has executed the program anew
	fds      []int // descriptors of the sockets then: they are not those from firstFD
	again    bool  // it was asked to restart once more

	names      string // of LISTEN_FDNAMES, if a table has them
	table      int    // descriptor of the file that has sockets, extras and fds; 0 for none
	tableInode uint64 // its inode
}

// meta is what travels with one socket, or file.
type meta struct {
	network string // the network that was asked for; empty if not known
	foreign bool   // it was not made by this family of processes
	listed  bool   // it belongs to Process.Inherit
	file    bool   // it is found by its name alone, whatever it is open on
	link    bool   // it is a link to the parent; the name is the position of a socket

	// Of an extra.
	fd    int
	name  string
	inode uint64 // of what fd is open on, which proves that it is the one meant
	path  fileID // what was at the path of a unixgram socket when it was made
}

// flags are the letters that stand for m.
func (m meta) flags() string {
	var b []byte
	for _, f := range []struct {
		set    bool
		letter byte
	}{{m.foreign, 'f'}, {m.listed, 'l'}, {m.file, 'n'}, {m.link, 'k'}} {
		if f.set {
			b = append(b, f.letter)
		}
	}
	return string(b)
}

func parseMeta(network, flags string) meta {
	return meta{
		network: network,
		foreign: strings.Contains(flags, "f"),
		listed:  strings.Contains(flags, "l"),
		file:    strings.Contains(flags, "n"),
		link:    strings.Contains(flags, "k"),
	}
}

// joinSockets writes what parseSockets reads, such as "tcp+l,unix+f".
func joinSockets(sockets []meta) string {
	s := make([]string, len(sockets))
	for i, m := range sockets {
		if s[i] = m.network; m.flags() != "" {
			s[i] += "+" + m.flags()
		}
	}
	return strings.Join(s, ",")
}

func parseSockets(value string) (sockets []meta) {
	for s := range strings.SplitSeq(value, ",") {
		network, flags, _ := strings.Cut(s, "+")
		sockets = append(sockets, parseMeta(network, flags))
	}
	return sockets
}

// joinExtras writes what parseExtras reads, such as
// "7+udp++%253A53+90211,8+unixgram++%2Frun%2Flog+90212+2049.1234,9++n+lock+90213".
func joinExtras(extras []meta) string {
	s := make([]string, len(extras))
	for i, m := range extras {
		s[i] = fmt.Sprintf("%d+%s+%s+%s+%d", m.fd, m.network, m.flags(), url.QueryEscape(m.name), m.inode)
		if m.path != (fileID{}) {
			s[i] += fmt.Sprintf("+%d.%d", m.path.dev, m.path.ino)
		}
	}
	return strings.Join(s, ",")
}

func parseExtras(value string) (extras []meta, err error) {
	for s := range strings.SplitSeq(value, ",") {
		m, err := parseExtra(strings.Split(s, "+"))
		if err != nil {
			return nil, errMarker
		}
		extras = append(extras, m)
	}
	return extras, nil
}

func parseExtra(field []string) (m meta, err error) {
	if len(field) < 5 {
		return m, errMarker
	}
	m = parseMeta(field[1], field[2])
	name, err := url.QueryUnescape(field[3])
	if err != nil {
		return m, err
	}
	m.name = passedName(name)
	if m.fd, err = strconv.Atoi(field[0]); err != nil {
		return m, err
	}
	if m.fd < firstFD {
		return m, errMarker
	}
	if m.inode, err = strconv.ParseUint(field[4], 10, 64); err != nil {
		return m, err
	}
	if len(field) > 5 {
		dev, ino, _ := strings.Cut(field[5], ".")
		if m.path.dev, err = strconv.ParseUint(dev, 10, 64); err == nil {
			m.path.ino, err = strconv.ParseUint(ino, 10, 64)
		}
	}
	return m, err
}

// parseFDs reads descriptors.
func parseFDs(list string) ([]int, error) {
	fds := parsePositions(list)
	if slices.ContainsFunc(fds, func(fd int) bool { return fd < firstFD }) {
		return nil, errMarker
	}
	return fds, nil
}

// A table is a file with what is too long for the environment, a line each: the
// names as they would stand in LISTEN_FDNAMES, and of the marker the sockets, the
// extras and the descriptors.
func (m marker) tableText(names []string) string {
	return strings.Join(names, ":") + "\n" + joinSockets(m.sockets) + "\n" + joinExtras(m.extras) + "\n" + joinPositions(m.fds) + "\n"
}

// needsTable reports whether names and m are too long for the environment.
func (m marker) needsTable(names []string) bool {
	return len(strings.Join(names, ":")) >= maxEnv || len(m.String()) >= maxEnv
}

// readTable completes m with what stands in a table.
func (m *marker) readTable(text string) (err error) {
	lines := strings.Split(text, "\n")
	if len(lines) != 5 {
		return errMarker
	}
	m.names = lines[0]
	if lines[1] != "" {
		m.sockets = parseSockets(lines[1])
	}
	if lines[2] != "" {
		if m.extras, err = parseExtras(lines[2]); err != nil {
			return err
		}
	}
	if lines[3] != "" {
		if m.fds, err = parseFDs(lines[3]); err != nil {
			return err
		}
	}
	return nil
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
	if m.standby {
		b.WriteString(" standby=1")
	}
	if m.interim {
		b.WriteString(" interim=1")
	}
	if m.comeback {
		b.WriteString(" comeback=1")
	}
	if m.again {
		b.WriteString(" again=1")
	}
	if m.table != 0 {
		fmt.Fprintf(&b, " table=%d tableinode=%d", m.table, m.tableInode)
		return b.String()
	}
	if m.fds != nil {
		b.WriteString(" fds=" + joinPositions(m.fds))
	}
	if len(m.sockets) != 0 {
		b.WriteString(" sockets=" + joinSockets(m.sockets))
	}
	if len(m.extras) != 0 {
		b.WriteString(" extras=" + joinExtras(m.extras))
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
		case "standby":
			m.standby = v == "1"
		case "interim":
			m.interim = v == "1"
		case "comeback":
			m.comeback = v == "1"
		case "again":
			m.again = v == "1"
		case "table":
			m.table, err = strconv.Atoi(v)
		case "tableinode":
			m.tableInode, err = strconv.ParseUint(v, 10, 64)
		case "fds":
			m.fds, err = parseFDs(v)
		case "sockets":
			m.sockets = parseSockets(v)
		case "extras":
			m.extras, err = parseExtras(v)
		}
		if !ok || err != nil {
			return marker{}, errMarker
		}
	}
	if m.parent <= 0 || m.control < 0 || m.control > 0 && m.control < firstFD ||
		m.table < 0 || m.table > 0 && m.table < firstFD || m.states < 0 || m.gen < 0 || m.since < 0 {
		return marker{}, errMarker
	}
	if m.table != 0 { // has all of it
		m.sockets, m.extras, m.fds = nil, nil, nil
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
