package handoff

import (
	"net"
	"testing"
)

// index finds sockets as Process.Take does, without opening them.
type index map[string]*inherited

func indexOf(sockets ...*inherited) index {
	x := make(index)
	for _, in := range sockets {
		for _, key := range append(in.names(), in.address()) {
			if x[key] == nil {
				x[key] = in
			}
		}
	}
	return x
}

func (x index) find(network, asked string, addr net.Addr) *inherited {
	for _, key := range askedKeys(network, asked, addr) {
		if in := x[key]; in != nil {
			return in
		}
	}
	return nil
}

func resolve(t testing.TB, network, addr string) net.Addr {
	t.Helper()
	var a net.Addr
	var err error
	switch network {
	case "unix", "unixpacket", "unixgram":
		a, err = net.ResolveUnixAddr(network, addr)
	case "udp", "udp4", "udp6":
		a, err = net.ResolveUDPAddr(network, addr)
	default:
		a, err = net.ResolveTCPAddr(network, addr)
	}
	if err != nil {
		t.Fatal(err)
	}
	return a
}

// bound is a socket that is bound to addr and of which no more is known, such as
// one from a service manager.
func bound(t testing.TB, network, addr string) *inherited {
	t.Helper()
	return &inherited{addr: resolve(t, network, addr)}
}

// asked is a socket that the generation before asked for.
func asked(t testing.TB, network, asked, addr string) *inherited {
	t.Helper()
	in := bound(t, network, addr)
	in.network, in.name = network, escapeName(asked)
	return in
}

func TestMatch(t *testing.T) {
	tests := []struct {
		name           string
		sockets        []*inherited
		network, asked string
		want           int // position in sockets; -1 for none
	}{
		{"same address", []*inherited{bound(t, "tcp", "127.0.0.1:1")}, "tcp", "127.0.0.1:1", 0},
		{"other port", []*inherited{bound(t, "tcp", "127.0.0.1:1")}, "tcp", "127.0.0.1:2", -1},
		{"other host", []*inherited{bound(t, "tcp", "127.0.0.1:1")}, "tcp", "127.0.0.2:1", -1},
		{"second of two", []*inherited{bound(t, "tcp", "127.0.0.1:1"), bound(t, "tcp", "127.0.0.1:2")}, "tcp", "127.0.0.1:2", 1},
		{"tcp4", []*inherited{bound(t, "tcp", "127.0.0.1:1")}, "tcp4", "127.0.0.1:1", 0},
		{"tcp6", []*inherited{bound(t, "tcp", "[::1]:1")}, "tcp6", "[::1]:1", 0},
		{"v4 in v6", []*inherited{bound(t, "tcp", "[::ffff:127.0.0.1]:1")}, "tcp", "127.0.0.1:1", 0},
		{"v6 spelled otherwise", []*inherited{bound(t, "tcp", "[::1]:1")}, "tcp", "[0:0::0001]:1", 0},
		{"loopback is not any", []*inherited{bound(t, "tcp", "127.0.0.1:1")}, "tcp", ":1", -1},
		{"any is not loopback", []*inherited{bound(t, "tcp", "[::]:1")}, "tcp", "127.0.0.1:1", -1},

		{"zone", []*inherited{bound(t, "tcp", "[fe80::1%eth0]:1")}, "tcp", "[fe80::1%eth0]:1", 0},
		{"other zone", []*inherited{bound(t, "tcp", "[fe80::1%eth0]:1")}, "tcp", "[fe80::1%eth1]:1", -1},
		{"no zone", []*inherited{bound(t, "tcp", "[fe80::1%eth0]:1")}, "tcp", "[fe80::1]:1", -1},

		{"any, tcp4 prefers v4", []*inherited{bound(t, "tcp", "[::]:1"), bound(t, "tcp", "0.0.0.0:1")}, "tcp4", ":1", 1},
		{"any, tcp6 prefers v6", []*inherited{bound(t, "tcp", "0.0.0.0:1"), bound(t, "tcp", "[::]:1")}, "tcp6", ":1", 1},
		{"any prefers v6", []*inherited{bound(t, "tcp", "0.0.0.0:1"), bound(t, "tcp", "[::]:1")}, "tcp", ":1", 1},
		{"0.0.0.0 prefers v4", []*inherited{bound(t, "tcp", "[::]:1"), bound(t, "tcp", "0.0.0.0:1")}, "tcp", "0.0.0.0:1", 1},
		{"[::] prefers v6", []*inherited{bound(t, "tcp", "0.0.0.0:1"), bound(t, "tcp", "[::]:1")}, "tcp", "[::]:1", 1},
		{"any, other port", []*inherited{bound(t, "tcp", "[::]:1"), bound(t, "tcp", "0.0.0.0:1")}, "tcp", ":2", -1},

		{"port 0 is none", []*inherited{bound(t, "tcp", "127.0.0.1:1")}, "tcp", "127.0.0.1:0", -1},
		{"port 0 by what was asked", []*inherited{asked(t, "tcp", "127.0.0.1:0", "127.0.0.1:1")}, "tcp", "127.0.0.1:0", 0},
		{"port 0 asked otherwise", []*inherited{asked(t, "tcp", "127.0.0.1:0", "127.0.0.1:1")}, "tcp", ":0", -1},
		{"port 0, other network", []*inherited{asked(t, "tcp", ":0", "[::]:1")}, "tcp4", ":0", -1},
		{"chosen port by address", []*inherited{asked(t, "tcp", "127.0.0.1:0", "127.0.0.1:1")}, "tcp", "127.0.0.1:1", 0},
		{"chosen port of a parent that names nothing", []*inherited{bound(t, "tcp", "127.0.0.1:1")}, "tcp", "127.0.0.1:1", 0},
		{"host name by address", []*inherited{asked(t, "tcp", "localhost:1", "127.0.0.1:1")}, "tcp", "127.0.0.1:1", 0},

		// A host name may resolve to another address than it did before.
		{"name wins", []*inherited{bound(t, "tcp", "127.0.0.1:1"), asked(t, "tcp", "localhost:1", "127.0.0.2:1")}, "tcp", "localhost:1", 1},
		{"name wins over any", []*inherited{bound(t, "tcp", "[::]:1"), asked(t, "tcp", ":1", "0.0.0.0:1")}, "tcp", ":1", 1},
		{"name of a manager is no address", []*inherited{{socket: socket{name: "127.0.0.1%3A1"}, addr: resolve(t, "tcp", "127.0.0.1:2")}}, "tcp", "127.0.0.1:1", -1},

		{"unix", []*inherited{bound(t, "unix", "/s")}, "unix", "/s", 0},
		{"unix, other path", []*inherited{bound(t, "unix", "/s")}, "unix", "/s2", -1},
		{"abstract unix", []*inherited{bound(t, "unix", "@s")}, "unix", "@s", 0},
		{"abstract is no path", []*inherited{bound(t, "unix", "@s")}, "unix", "s", -1},
		{"unixpacket", []*inherited{bound(t, "unix", "/s"), bound(t, "unixpacket", "/s")}, "unixpacket", "/s", 1},
		{"unix is not unixpacket", []*inherited{bound(t, "unixpacket", "/s")}, "unix", "/s", -1},
		{"unixpacket is not unix", []*inherited{asked(t, "unix", "/s", "/s")}, "unixpacket", "/s", -1},
		{"tcp is not unix", []*inherited{asked(t, "tcp", "127.0.0.1:1", "127.0.0.1:1")}, "unix", "127.0.0.1:1", -1},
		{"unix is not tcp", []*inherited{asked(t, "unix", "127.0.0.1:1", "127.0.0.1:1")}, "tcp", "127.0.0.1:1", -1},

		{"udp", []*inherited{bound(t, "udp", "127.0.0.1:1")}, "udp", "127.0.0.1:1", 0},
		{"udp4, any", []*inherited{bound(t, "udp", "[::]:1"), bound(t, "udp", "0.0.0.0:1")}, "udp4", ":1", 1},
		{"udp port 0 by what was asked", []*inherited{asked(t, "udp", ":0", "[::]:1")}, "udp", ":0", 0},
		{"udp is not tcp", []*inherited{bound(t, "udp", "127.0.0.1:1")}, "tcp", "127.0.0.1:1", -1},
		{"tcp is not udp", []*inherited{asked(t, "tcp", "127.0.0.1:1", "127.0.0.1:1")}, "udp", "127.0.0.1:1", -1},
		{"unixgram", []*inherited{bound(t, "unix", "/s"), bound(t, "unixgram", "/s")}, "unixgram", "/s", 1},
		{"unixgram is not unix", []*inherited{bound(t, "unixgram", "/s")}, "unix", "/s", -1},
		{"file that is a socket", []*inherited{{socket: socket{name: "/s", network: "unix", kind: kindFile}}}, "unix", "/s", -1},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			var want *inherited
			if tt.want >= 0 {
				want = tt.sockets[tt.want]
			}
			got := indexOf(tt.sockets...).find(tt.network, tt.asked, resolve(t, tt.network, tt.asked))
			if got != want {
				t.Errorf("%s %s gave %+v, want %+v", tt.network, tt.asked, got, want)
			}
		})
	}
}

// Each form of "any address" is found by each other, on every network.
func TestMatchAnyAddress(t *testing.T) {
	v4, v6 := []string{":1", "0.0.0.0:1"}, []string{":1", "[::]:1"}
	forms := map[string][]string{"tcp": {":1", "0.0.0.0:1", "[::]:1"}, "tcp4": v4, "tcp6": v6}
	for _, boundTo := range forms["tcp"] {
		for network, forms := range forms {
			for _, asked := range forms {
				in := bound(t, "tcp", boundTo)
				if in.addr.String() == ":1" {
					in.addr = resolve(t, "tcp", "[::]:1") // as the kernel says it
				}
				if indexOf(in).find(network, asked, resolve(t, network, asked)) != in {
					t.Errorf("%s %s does not find the socket on %s", network, asked, in.addr)
				}
			}
		}
	}
}

// Package net takes an IP without bytes for any address, nil or not.
func TestMatchEmptyIP(t *testing.T) {
	in := bound(t, "tcp", "[::]:1")
	if indexOf(in).find("tcp", ":1", &net.TCPAddr{IP: net.IP{}, Port: 1}) != in {
		t.Error("an empty IP does not find the socket on any address")
	}
}

// Matching has one simple meaning, and it does not matter which of two addresses
// is the bound one.
func FuzzMatch(f *testing.F) {
	loopback4, loopback6 := net.IPv4(127, 0, 0, 1), net.IPv6loopback
	for _, a := range []net.IP{nil, net.IPv4zero.To4(), net.IPv6unspecified, loopback4, loopback6} {
		for _, b := range []net.IP{nil, net.IPv4zero, loopback4.To4(), loopback6} {
			f.Add([]byte(a), uint16(80), []byte(b), uint16(80))
			f.Add([]byte(a), uint16(80), []byte(b), uint16(81))
		}
	}
	f.Add([]byte(loopback4), uint16(0), []byte(loopback4), uint16(0))
	f.Fuzz(func(t *testing.T, ip1 []byte, port1 uint16, ip2 []byte, port2 uint16) {
		for _, ip := range [][]byte{ip1, ip2} {
			if len(ip) != 0 && len(ip) != net.IPv4len && len(ip) != net.IPv6len {
				return // no address
			}
		}
		a, b := &net.TCPAddr{IP: ip1, Port: int(port1)}, &net.TCPAddr{IP: ip2, Port: int(port2)}
		anyA, anyB := isAny(a.IP), isAny(b.IP)
		want := port1 == port2 && port1 != 0 && (anyA && anyB || !anyA && !anyB && a.IP.Equal(b.IP))
		for _, network := range []string{"tcp", "tcp4", "tcp6"} {
			if got := matches(network, a, b); got != want {
				t.Errorf("%s %v finds the socket on %v: %t, want %t", network, b, a, got, want)
			}
			if got := matches(network, b, a); got != want {
				t.Errorf("%s %v finds the socket on %v: %t, want %t", network, a, b, got, want)
			}
		}
	})
}

func isAny(ip net.IP) bool { return len(ip) == 0 || ip.IsUnspecified() }

func matches(network string, bound, asked *net.TCPAddr) bool {
	if len(bound.IP) == 0 {
		bound = &net.TCPAddr{IP: net.IPv6unspecified, Port: bound.Port} // as the kernel says it
	}
	return indexOf(&inherited{addr: bound}).find(network, asked.String(), asked) != nil
}
