//go:build unix

package testbin

import (
	"errors"
	"fmt"
	"io/fs"
	"net"
	"os"
	"sync/atomic"
	"time"

	"github.com/facebookgo/grace/gracenet"
	"github.com/facebookgo/grace/internal/testbin/play"
)

// ServeKinds serves what is asked for of every kind: "file" is a file under a name,
// which it opens if it has not inherited it, and "packet" a datagram socket that has a
// name. It reports the addresses of listeners first.
func ServeKinds(cfg play.Config) error {
	var listeners []net.Listener
	var addrs []string
	for _, l := range cfg.Listens {
		switch l.Network {
		case "file":
			if err := OpenFile(&plainNet, l.Addr); err != nil {
				return err
			}
		case "packet", "udp", "udp4", "udp6", "unixgram":
			plainNet.ReplaceStale = cfg.ReplaceStale
			c, err := listenPacket(&plainNet, l)
			if err != nil {
				return err
			}
			addrs = append(addrs, c.LocalAddr().String())
			go ServePackets(c)
		default:
			l, err := ListenNet(cfg, l)
			if err != nil {
				return err
			}
			listeners = append(listeners, l)
		}
	}
	return ServeLines(cfg, listeners, func(_ int, question string) string { return play.Answer(question) }, addrs...)
}

func listenPacket(n *gracenet.Net, l play.Listen) (net.PacketConn, error) {
	if l.Network == "packet" {
		return n.ListenPacketNamed(l.Addr)
	}
	return n.ListenPacket(l.Network, l.Addr)
}

// OpenFile inherits the file of this name, or opens one.
func OpenFile(n *gracenet.Net, name string) error {
	_, err := n.File(name)
	if !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	f, err := os.Open("/")
	if err != nil {
		return err
	}
	return n.AddFile(name, f)
}

// ServePackets answers datagrams until c is closed.
func ServePackets(c net.PacketConn) {
	b := make([]byte, 2048)
	for {
		n, from, err := c.ReadFrom(b)
		if errors.Is(err, net.ErrClosed) {
			return
		}
		if err == nil {
			_, err = c.WriteTo([]byte(play.Answer(string(b[:n]))), from)
		}
		if err != nil {
			play.Fail(err)
		}
	}
}

var clients atomic.Int64 // for their addresses

// Datagrams asks with one datagram each time, and never again.
func Datagrams(network, addr string) Target {
	return func(question string) (string, error) {
		var c net.Conn
		var err error
		if network == "unixgram" { // whose clients need an address to be answered
			c, err = net.DialUnix(network, &net.UnixAddr{Net: network, Name: fmt.Sprint("@client-", os.Getpid(), "-", clients.Add(1))}, &net.UnixAddr{Net: network, Name: addr})
		} else {
			c, err = net.Dial(network, addr)
		}
		if err != nil {
			return "", err
		}
		defer c.Close()
		if err := c.SetDeadline(time.Now().Add(Patience)); err != nil {
			return "", err
		}
		if _, err := c.Write([]byte(question)); err != nil {
			return "", err
		}
		b := make([]byte, 2048)
		n, err := c.Read(b)
		return string(b[:n]), err
	}
}
