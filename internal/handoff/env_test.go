package handoff

import (
	"fmt"
	"net/url"
	"reflect"
	"slices"
	"strconv"
	"strings"
	"testing"
)

func TestParseCount(t *testing.T) {
	const limit = 1024
	tests := []struct {
		value string
		want  int
		ok    bool
	}{
		{"0", 0, true},
		{"1", 1, true},
		{"+3", 3, true}, // strconv.Atoi, as in the original
		{"007", 7, true},
		{"1024", 1024, true},
		{"1025", 0, false},
		{"", 0, false},
		{"-1", 0, false},
		{"-9223372036854775808", 0, false},
		{"2147483648", 0, false},
		{"99999999999999999999999", 0, false},
		{"x", 0, false},
		{"3x", 0, false},
		{"0x3", 0, false},
		{"1_0", 0, false},
		{"3.0", 0, false},
		{" 3", 0, false},
		{"3 ", 0, false},
		{"3\n", 0, false},
		{"3\x00", 0, false},
		{"٣", 0, false},
	}
	for _, tt := range tests {
		got, err := parseCount(tt.value, limit)
		if got != tt.want || (err == nil) != tt.ok {
			t.Errorf("parseCount(%q) = %d, %v, want %d, ok %t", tt.value, got, err, tt.want, tt.ok)
		}
		// Programs look for this text.
		if want := "found invalid count value: LISTEN_FDS=" + tt.value; err != nil && err.Error() != want {
			t.Errorf("parseCount(%q): error %q, want %q", tt.value, err, want)
		}
	}
}

func FuzzParseCount(f *testing.F) {
	for _, s := range []string{"", "0", "3", "+3", "-1", " 3", "x", "1025", "99999999999999999999"} {
		f.Add(s, uint64(1024))
	}
	f.Add("1", uint64(0))
	f.Add("9223372036854775807", uint64(1)<<63)
	f.Fuzz(func(t *testing.T, value string, limit uint64) {
		n, err := parseCount(value, limit)
		if err != nil {
			if n != 0 || !strings.HasSuffix(err.Error(), "LISTEN_FDS="+value) {
				t.Fatalf("%d, %v", n, err)
			}
			return
		}
		if n < 0 || uint64(n) > limit {
			t.Fatalf("%d is not within [0, %d]", n, limit)
		}
		if again, err := parseCount(strconv.Itoa(n), limit); err != nil || again != n {
			t.Fatalf("%d became %d, %v", n, again, err)
		}
	})
}

func TestEscapeName(t *testing.T) {
	tests := []struct{ in, want string }{
		{"", ""},
		{"127.0.0.1:80", "127.0.0.1%3A80"},
		{"[::1]:80", "[%3A%3A1]%3A80"},
		{"@abstract", "@abstract"},
		{"\x00abstract", "%00abstract"},
		{"/run/my socket", "/run/my%20socket"},
		{"100%", "100%25"},
		{"%3A", "%253A"}, // or it would be the same as ":"
		{"a\nb\tc\x7f", "a%0Ab%09c%7F"},
		{"/run/ä", "/run/%C3%A4"},
		{"\xff", "%FF"},
	}
	for _, tt := range tests {
		if got := escapeName(tt.in); got != tt.want {
			t.Errorf("escapeName(%q) = %q, want %q", tt.in, got, tt.want)
		}
	}
}

// checkName fails unless name may stand in LISTEN_FDNAMES: sd_listen_fds(3) wants
// printable ASCII without the separator. Ours have no space either.
func checkName(t *testing.T, name string) {
	t.Helper()
	for _, c := range []byte(name) {
		if c <= ' ' || c >= 0x7f || c == ':' {
			t.Fatalf("%q contains %q", name, c)
		}
	}
}

func FuzzEscapeName(f *testing.F) {
	for _, s := range []string{"", ":0", "[::1]:80", "%", "%3A", "\x00", "/run/a b", "ä\xff", "fe80::1%eth0"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, s string) {
		name := escapeName(s)
		checkName(t, name)
		if back, err := url.PathUnescape(name); err != nil || back != s {
			t.Fatalf("%q became %q and that %q, %v", s, name, back, err)
		}
		// It is passed on from generation to generation and stays as it is.
		if again := passedName(name); again != name {
			t.Fatalf("%q became %q on the way", name, again)
		}
	})
}

func TestPassedName(t *testing.T) {
	tests := []struct{ in, want string }{
		{"", ""},
		{"http", "http"},
		{"http%3A", "http%3A"}, // a manager's own name is kept to the letter
		{"100%", "100%"},
		{"my socket", "my%20socket"},
		{"100% ä", "100%25%20%C3%A4"},
		{"a\nb", "a%0Ab"},
	}
	for _, tt := range tests {
		if got := passedName(tt.in); got != tt.want {
			t.Errorf("passedName(%q) = %q, want %q", tt.in, got, tt.want)
		}
	}
}

func TestSplitNames(t *testing.T) {
	tests := []struct {
		value string
		n     int
		want  []string
	}{
		{"", 0, []string{}},
		{"", 2, []string{"", ""}},
		{"a:b", 2, []string{"a", "b"}},
		{"a", 3, []string{"a", "", ""}},
		{"a:b:c", 2, []string{"a", "b"}},
		{"a:b", 0, []string{}},
		{":", 2, []string{"", ""}},
		{":b", 2, []string{"", "b"}},
		{"a b:\n", 2, []string{"a%20b", "%0A"}},
	}
	for _, tt := range tests {
		if got := splitNames(tt.value, tt.n); !slices.Equal(got, tt.want) {
			t.Errorf("splitNames(%q, %d) = %q, want %q", tt.value, tt.n, got, tt.want)
		}
	}
}

func FuzzSplitNames(f *testing.F) {
	f.Add("", uint16(2))
	f.Add("a:b", uint16(2))
	f.Add("a:b:c", uint16(1))
	f.Add(":::", uint16(9))
	f.Add("unknown:my socket:\xff", uint16(3))
	f.Fuzz(func(t *testing.T, value string, n uint16) {
		names := splitNames(value, int(n))
		if len(names) != int(n) {
			t.Fatalf("%d names, want %d", len(names), n)
		}
		for _, name := range names {
			checkName(t, name)
		}
		// What is passed on gives the same names in the next generation.
		if again := splitNames(strings.Join(names, ":"), int(n)); !slices.Equal(again, names) {
			t.Fatalf("%q became %q", names, again)
		}
	})
}

func TestChildEnv(t *testing.T) {
	protocol := []string{
		"LISTEN_FDS=7",
		"LISTEN_PID=1",
		"LISTEN_FDNAMES=old",
		"LISTEN_PIDFDID=42",
		"GRACE_HANDOVER=1 parent=1",
		"LISTEN_FDS", // execve does not care about the form
	}
	others := []string{"PATH=/bin", "LISTEN_FDS_X=1", "XLISTEN_PID=1", "EMPTY=", "NOTIFY_SOCKET=@n", "=odd"}
	m := marker{parent: 812, control: 5, inode: 9, sockets: []meta{{network: "tcp"}, {network: "unix"}}}
	tests := []struct {
		name  string
		names []string
		m     marker
		want  []string
	}{
		{"names", []string{"a", "b"}, m,
			[]string{"LISTEN_FDS=2", "LISTEN_FDNAMES=a:b", "GRACE_HANDOVER=" + m.String()}},
		{"empty names", []string{"", ""}, m,
			[]string{"LISTEN_FDS=2", "LISTEN_FDNAMES=:", "GRACE_HANDOVER=" + m.String()}},
		{"no socket", nil, marker{parent: 812},
			[]string{"LISTEN_FDS=0", "GRACE_HANDOVER=1 parent=812"}},
		{"too long names", []string{strings.Repeat("a", maxEnv), "b"}, m,
			[]string{"LISTEN_FDS=2", "GRACE_HANDOVER=" + m.String()}},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			environ := slices.Concat(others[:3], protocol, others[3:])
			before := slices.Clone(environ)
			if got, want := childEnv(environ, tt.names, tt.m), slices.Concat(others, tt.want); !slices.Equal(got, want) {
				t.Errorf("got\n%q, want\n%q", got, want)
			}
			if !slices.Equal(environ, before) {
				t.Error("the environment it was given has changed")
			}
		})
	}
}

// Linux refuses to execute a program if one string of its environment has 128
// KiB. However many sockets there are, what we add stays below that, and a table
// has the rest.
func TestChildEnvOfManySockets(t *testing.T) {
	const n = 50_000
	m := marker{parent: 812, control: 3 + n, inode: 9, sockets: make([]meta, n)}
	names := make([]string, n)
	for i := range n {
		m.sockets[i].network = "tcp"
		names[i] = escapeName("127.0.0.1:" + strconv.Itoa(i))
		m.extras = append(m.extras, meta{fd: firstFD + n + i, network: "udp", name: names[i]})
		m.fds = append(m.fds, firstFD+i)
	}
	if !m.needsTable(names) || (marker{}).needsTable([]string{"a"}) {
		t.Error("a table is for what is too long, and for nothing else")
	}
	short := m
	short.table, short.tableInode = 4+2*n, 10
	env := childEnv(nil, names, short)
	if want := []string{"LISTEN_FDS=50000", "GRACE_HANDOVER=1 parent=812 control=50003 inode=9 table=100004 tableinode=10"}; !slices.Equal(env, want) {
		t.Errorf("got %.200q, want %q", env, want)
	}
	got, err := parseMarker(strings.TrimPrefix(env[1], "GRACE_HANDOVER="))
	if err != nil {
		t.Fatal(err)
	}
	if err := got.readTable(m.tableText(names)); err != nil {
		t.Fatal(err)
	}
	short.names = strings.Join(names, ":")
	if !reflect.DeepEqual(got, short) {
		t.Errorf("what was written came back as %.200s, want %.200s", fmt.Sprintf("%+v", got), fmt.Sprintf("%+v", short))
	}
}
