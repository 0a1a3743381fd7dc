package handoff

import (
	"reflect"
	"testing"
)

func TestMarker(t *testing.T) {
	tests := []struct {
		m    marker
		text string
	}{
		{marker{parent: 812}, "1 parent=812"},
		{marker{parent: 812, control: 5, inode: 90210}, "1 parent=812 control=5 inode=90210"},
		{marker{parent: 1, control: 3, inode: 1<<64 - 1}, "1 parent=1 control=3 inode=18446744073709551615"},
		{marker{parent: 812, control: 5, inode: 90210, tap: tapMark{6, 7, 90215, 13, 1<<64 - 1}}, "1 parent=812 control=5 inode=90210 stderr=6,7,90215,13,18446744073709551615"},
		{marker{parent: 812, sockets: []meta{{}}}, "1 parent=812 sockets="},
		{marker{parent: 812, sockets: []meta{{}, {}}}, "1 parent=812 sockets=,"},
		{marker{parent: 812, control: 7, inode: 9, sockets: []meta{
			{network: "tcp"},
			{network: "tcp4", listed: true},
			{network: "unix", foreign: true},
			{network: "unixpacket", foreign: true, listed: true},
			{foreign: true},
		}}, "1 parent=812 control=7 inode=9 sockets=tcp,tcp4+l,unix+f,unixpacket+fl,+f"},
		{marker{parent: 812, sockets: []meta{{network: "tcp"}}, extras: []meta{
			{fd: 4, network: "udp", name: "%3A53", inode: 7},
			{fd: 5, network: "unixgram", foreign: true, name: "/run/a,b+c"},
			{fd: 6, file: true, name: "lock", inode: 1<<64 - 1},
			{fd: 7, network: "unixgram", name: "/run/d", inode: 8, path: fileID{9, 10}},
		}}, "1 parent=812 sockets=tcp extras=4+udp++%253A53+7,5+unixgram+f+%2Frun%2Fa%2Cb%2Bc+0,6++n+lock+18446744073709551615,7+unixgram++%2Frun%2Fd+8+9.10"},
		{marker{parent: 812, control: 5, inode: 90210, standby: true}, "1 parent=812 control=5 inode=90210 standby=1"},
		{marker{parent: 812, comeback: true, again: true, fds: []int{7, 5}}, "1 parent=812 comeback=1 again=1 fds=7,5"},
		{marker{parent: 812, table: 9, tableInode: 77}, "1 parent=812 table=9 tableinode=77"},
	}
	for _, tt := range tests {
		if got := tt.m.String(); got != tt.text {
			t.Errorf("%+v is written %q, want %q", tt.m, got, tt.text)
		}
		if got, err := parseMarker(tt.text); err != nil || !reflect.DeepEqual(got, tt.m) {
			t.Errorf("%q is read as %+v, %v, want %+v", tt.text, got, err, tt.m)
		}
	}
}

// Later versions may add keys and flags.
func TestParseMarkerOfALaterVersion(t *testing.T) {
	got, err := parseMarker("2 color=red parent=812 sockets=tcp+xl empty=")
	want := marker{parent: 812, sockets: []meta{{network: "tcp", listed: true}}}
	if err != nil || !reflect.DeepEqual(got, want) {
		t.Errorf("got %+v, %v, want %+v", got, err, want)
	}
}

func TestParseMarkerRejects(t *testing.T) {
	for _, value := range []string{
		"",
		" ",
		"1",
		"x parent=812",
		"parent=812",
		"-1 parent=812",
		"4294967296 parent=812",
		"1 parent",
		"1 parent=",
		"1 parent=x",
		"1 parent=0",
		"1 parent=-812",
		"1 parent=99999999999999999999",
		"1 control=5 inode=9",
		"1 parent=812 control=x",
		"1 parent=812 control=-5",
		"1 parent=812 control=2", // standard error is no control socket
		"1 parent=812 control=5 inode=-9",
		"1 parent=812 control=5 inode=18446744073709551616",
		"1 parent=812 stderr=",
		"1 parent=812 stderr=6,7,9,1",
		"1 parent=812 stderr=2,7,9,1,1",
		"1 parent=812 stderr=6,0,9,1,1",
		"1 parent=812 stderr=6,6,9,1,1",
		"1 parent=812 stderr=6,7,-9,1,1",
		"1 parent=812 rubbish",
		"1 parent=812 table=2",
		"1 parent=812 table=x",
		"1 parent=812 fds=1",
		"1 parent=812 fds=x",
		"1 parent=812 extras=",
		"1 parent=812 extras=4+udp",
		"1 parent=812 extras=4+udp++a",
		"1 parent=812 extras=2+udp++a+7",
		"1 parent=812 extras=x+udp++a+7",
		"1 parent=812 extras=4+udp++%zz+7",
		"1 parent=812 extras=4+udp++a+x",
		"1 parent=812 extras=4+unixgram++a+7+",
		"1 parent=812 extras=4+unixgram++a+7+8",
		"1 parent=812 extras=4+unixgram++a+7+8.x",
	} {
		if m, err := parseMarker(value); err == nil {
			t.Errorf("parseMarker(%q) = %+v, want an error", value, m)
		}
	}
}

func FuzzParseMarker(f *testing.F) {
	for _, s := range []string{
		"",
		"1 parent=812",
		"1 parent=812 control=5 inode=90210 sockets=tcp+l,unix+f",
		"1 parent=812 control=0 inode=7",
		"1 parent=812 control=5 inode=90210 stderr=6,7,90215,13,90101",
		"1 parent=812 control=2",
		"1 parent=812 sockets=",
		"1 parent=812 sockets=,+fl,+,a=b+c",
		"1 parent=812 sockets=tcp sockets=unix",
		"2 parent=812 later=x",
		"1 parent=812 extras=4+udp++%3A53+7,6++n+lock+8++later",
		"1 parent=812 extras=4+unixgram+f+%2Frun%2Fa+7+8.9,5++n+%FF%00+0",
		"1 parent=812 extras=4+udp++a+7 extras=4+udp++a+7,4+udp++a+7",
		"1 parent=812 table=9 tableinode=7 sockets=tcp",
		"1 parent=812 table=9 tableinode=7 table=0 extras=4+udp++a+7",
		"1 parent=812 comeback=1 again=1 fds=7,5 interim=1 since=9 states=3 generation=4",
		"1 parent=812 fds= comeback=0",
		"1\u0085parent=812\xff",
	} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, value string) {
		m, err := parseMarker(value)
		if err != nil {
			return
		}
		if m.parent <= 0 || m.control < 0 || m.control > 0 && m.control < firstFD {
			t.Fatalf("%+v", m)
		}
		if m.control == 0 {
			m.inode = 0 // of nothing; it is not written
		}
		if m.table == 0 {
			m.tableInode = 0
		}
		for _, extra := range m.extras {
			checkName(t, extra.name)
			if extra.fd < firstFD {
				t.Fatalf("%+v", m)
			}
		}
		again, err := parseMarker(m.String())
		if err != nil || !reflect.DeepEqual(again, m) {
			t.Fatalf("%+v, written as %q, became %+v, %v", m, m, again, err)
		}
	})
}

func TestReadTableRejects(t *testing.T) {
	for _, text := range []string{"", "a\n", "\n\n\n", "\n\n\n\n\n", "\n\n4+udp\n\n", "\n\n\n1\n", "\n\n\nx\n"} {
		if err := new(marker).readTable(text); err == nil {
			t.Errorf("readTable(%q) has no error", text)
		}
	}
	if err := new(marker).readTable("\n\n\n\n"); err != nil {
		t.Errorf("readTable of nothing: %v", err)
	}
}
