package handoff

import "net"

// Sockets are found by keys, so that thousands of them cost no more each than
// one. A key is a network and an address; what was asked for in the generation
// before, to the letter, comes first. Files, and whatever has a name that the
// program knows, are found by that.

const boundPrefix = "bound "

func nameKey(network, name string) string { return "asked " + network + " " + name }
func addrKey(network, addr string) string { return boundPrefix + network + " " + addr }
func namedKey(name string) string         { return "named " + name }

// names are the keys under which in is found by what was asked for, or by its name.
func (in *inherited) names() (keys []string) {
	if in.asked() {
		keys = append(keys, nameKey(in.network, in.name))
	}
	if in.name != "" {
		keys = append(keys, namedKey(in.name))
	}
	return keys
}

// address is the key under which in is found by its address, or "". That counts also
// for one that was asked for as any free port: programs for the original tell the next
// process which port it was, and that asks for it.
func (in *inherited) address() string {
	if in.addr == nil {
		return ""
	}
	return addrKey(in.addr.Network(), in.addr.String())
}

// asked reports whether it is known what in was asked for as.
func (in *inherited) asked() bool { return in.kind != kindFile && in.network != "" && in.name != "" }

// askedKeys are the keys to look under, in order, for a socket asked for as
// network and asked, which resolved to addr. The unspecified addresses of IPv4
// and IPv6 and the empty one match each other, the asked one first.
func askedKeys(network, asked string, addr net.Addr) []string {
	keys := []string{nameKey(network, escapeName(asked))}
	var ip net.IP
	var port int
	var zone string
	var bound func(net.IP, string) string
	switch a := addr.(type) {
	case *net.TCPAddr:
		ip, port, zone = a.IP, a.Port, a.Zone
		bound = func(ip net.IP, zone string) string {
			return addrKey("tcp", (&net.TCPAddr{IP: ip, Port: port, Zone: zone}).String())
		}
	case *net.UDPAddr:
		ip, port, zone = a.IP, a.Port, a.Zone
		bound = func(ip net.IP, zone string) string {
			return addrKey("udp", (&net.UDPAddr{IP: ip, Port: port, Zone: zone}).String())
		}
	default:
		return append(keys, addrKey(network, addr.String()))
	}
	if port == 0 {
		return keys // any free port is no address that a socket could have
	}
	if len(ip) != 0 && !ip.IsUnspecified() {
		keys = append(keys, bound(ip, zone))
		if zone != "" {
			// Linux does not tell the zone of a socket with MPTCP, as Go makes it.
			keys = append(keys, bound(ip, ""))
		}
		return keys
	}
	v4, v6 := bound(net.IPv4zero, ""), bound(net.IPv6unspecified, "")
	if network[len(network)-1] == '4' || network[len(network)-1] != '6' && ip.To4() != nil {
		return append(keys, v4, v6)
	}
	return append(keys, v6, v4)
}
