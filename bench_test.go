//go:build unix

package grace_test

import (
	"net"
	"runtime"
	"testing"
	"time"

	"github.com/facebookgo/grace"
	"github.com/facebookgo/grace/internal/testbin/compare"
)

// BenchmarkAccept is a connection from its dial to its close, with a listener of package
// net and with one of ours.
func BenchmarkAccept(b *testing.B) {
	for _, network := range []string{"tcp", "unix"} {
		b.Run(network, func(b *testing.B) {
			plain, ours := listenOn(b, network), grace.NewListener(listenOn(b, network))
			compare.Benchmark(b, compare.Accepts(b, plain), compare.Accepts(b, ours))
		})
	}
}

// BenchmarkConn is what is done with a connection of package net and with one of ours.
func BenchmarkConn(b *testing.B) {
	for _, u := range usuals {
		b.Run(u.name, func(b *testing.B) {
			peer, plain := connect(b, listenOn(b, "tcp"))
			ourPeer, ours := accepted(b, grace.NewListener(listenOn(b, "tcp")))
			for _, c := range []net.Conn{plain, peer, ours, ourPeer} {
				_ = c.SetDeadline(time.Time{}) // who knows how long it runs
			}
			compare.Benchmark(b, u.do(b, plain, peer), u.do(b, ours, ourPeer))
		})
	}
}

func BenchmarkSetIdle(b *testing.B) {
	_, c := accepted(b, grace.NewListener(listenOn(b, "tcp")))
	b.ReportAllocs()
	for b.Loop() {
		c.SetIdle(true)
		c.SetIdle(false)
	}
}

// BenchmarkPacketConn is a datagram that is sent and read, with package net and with a
// PacketConn.
func BenchmarkPacketConn(b *testing.B) {
	run := func(name string, listen func(testing.TB) *grace.PacketConn) {
		b.Run(name, func(b *testing.B) {
			plain, err := net.ListenUDP("udp", &net.UDPAddr{IP: net.IPv4(127, 0, 0, 1)})
			if err != nil {
				b.Fatal(err)
			}
			defer plain.Close()
			compare.Benchmark(b, toItself(b, plain), toItself(b, listen(b)))
		})
	}
	run("plain", listenPacket)
	if runtime.GOOS == "linux" {
		run("forward", listenForward)
	}
}
