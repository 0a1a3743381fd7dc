package gracenet

import (
	"context"
	"net"

	"github.com/facebookgo/grace/internal/handoff"
)

// Datagram sockets. The old process and the new one have the same socket, and each
// datagram goes to the one that reads first: the old one must stop reading when the
// new one is ready. grace.NewPacketConn does that.

// ListenPacket announces on the local network address, as net.ListenPacket does, or
// returns the inherited socket for it. The network must be "udp", "udp4", "udp6" or
// "unixgram"; for others the error is a net.UnknownNetworkError. Which socket is the
// one is decided as for [Net.Listen].
//
// The path of a unixgram socket is removed when grace.Wait or gracehttp.Serve return
// in the last process of the service. Package net does not remove it.
func (n *Net) ListenPacket(network, addr string) (net.PacketConn, error) {
	switch network {
	case "udp", "udp4", "udp6":
		a, err := net.ResolveUDPAddr(network, addr)
		if err != nil {
			return nil, err
		}
		if addr == "" {
			addr = a.String()
		}
		return asPacketConn(n.listenUDP(network, addr, a))
	case "unixgram":
		a, err := net.ResolveUnixAddr(network, addr)
		if err != nil {
			return nil, err
		}
		return asPacketConn(n.ListenUnixgram(network, a))
	}
	return nil, net.UnknownNetworkError(network)
}

// ListenUDP is ListenPacket for "udp", "udp4" and "udp6". A nil addr, or port 0, means
// any free port.
func (n *Net) ListenUDP(network string, addr *net.UDPAddr) (*net.UDPConn, error) {
	switch network {
	case "udp", "udp4", "udp6":
	default:
		return nil, net.UnknownNetworkError(network)
	}
	if addr == nil {
		addr = &net.UDPAddr{}
	}
	return n.listenUDP(network, addr.String(), addr)
}

func (n *Net) listenUDP(network, asked string, addr *net.UDPAddr) (*net.UDPConn, error) {
	return listenPacket(n, network, asked, addr, func() (*net.UDPConn, error) {
		return as[*net.UDPConn](n.ListenConfig.ListenPacket(context.Background(), network, addr.String()))
	})
}

// ListenUnixgram is ListenPacket for "unixgram".
func (n *Net) ListenUnixgram(network string, addr *net.UnixAddr) (*net.UnixConn, error) {
	if network != "unixgram" {
		return nil, net.UnknownNetworkError(network)
	}
	if addr == nil {
		return net.ListenUnixgram(network, nil) // its error
	}
	return listenPacket(n, network, addr.Name, addr, func() (*net.UnixConn, error) {
		return onPath(n, network, addr.Name, func() (*net.UnixConn, error) {
			return as[*net.UnixConn](n.ListenConfig.ListenPacket(context.Background(), network, addr.Name))
		})
	})
}

// ListenPacketNamed is [Net.ListenNamed] for datagram sockets.
func (n *Net) ListenPacketNamed(name string) (net.PacketConn, error) {
	return named(n, "datagram socket", name, handoff.This().TakePacketNamed)
}

func listenPacket[C net.PacketConn](n *Net, network, asked string, addr net.Addr, fresh func() (C, error)) (C, error) {
	return inheritOr(n, network, asked, func() (any, error) { return handoff.This().TakePacket(network, asked, addr) }, fresh)
}

// asPacketConn keeps a nil pointer from becoming a connection that is not nil.
func asPacketConn[C net.PacketConn](c C, err error) (net.PacketConn, error) {
	if err != nil {
		return nil, err
	}
	return c, nil
}
