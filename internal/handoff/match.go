package handoff

import "net"

// Sockets are found by keys, so that thousands of them cost no more each than
// one. A key is a network and an address; what was asked for in the generation
// before, to the letter, comes first.

func nameKey(network, name string) string { return "asked " + network + " " + name }
func addrKey(network, addr string) string { return "bound " + network + " " + addr }

// keys are the keys under which in is found.
func (in *inherited) keys() []string {
	if in.addr == nil {
		return nil
	}
	keys := []string{addrKey(in.addr.Network(), in.addr.String())}
	if in.Network != "" && in.Name != "" {
		keys = append(keys, nameKey(in.Network, in.Name))
	}
	return keys
}

// askedKeys are the keys to look under, in order, for a listener asked for as
// network and asked, which resolved to addr. The unspecified addresses of IPv4
// and IPv6 and the empty one match each other, the asked one first.
func askedKeys(network, asked string, addr net.Addr) []string {
	keys := []string{nameKey(network, escapeName(asked))}
	tcp, ok := addr.(*net.TCPAddr)
	if !ok {
		return append(keys, addrKey(network, addr.String()))
	}
	if tcp.Port == 0 {
		return keys // any free port is no address that a socket could have
	}
	if len(tcp.IP) != 0 && !tcp.IP.IsUnspecified() {
		keys = append(keys, addrKey("tcp", tcp.String()))
		if tcp.Zone != "" {
			// Linux does not tell the zone of a socket with MPTCP, as Go makes it.
			keys = append(keys, addrKey("tcp", (&net.TCPAddr{IP: tcp.IP, Port: tcp.Port}).String()))
		}
		return keys
	}
	v4 := addrKey("tcp", (&net.TCPAddr{IP: net.IPv4zero, Port: tcp.Port}).String())
	v6 := addrKey("tcp", (&net.TCPAddr{IP: net.IPv6unspecified, Port: tcp.Port}).String())
	if network == "tcp4" || network == "tcp" && tcp.IP.To4() != nil {
		return append(keys, v4, v6)
	}
	return append(keys, v6, v4)
}
