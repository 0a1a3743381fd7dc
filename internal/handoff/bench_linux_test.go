package handoff

import (
	"fmt"
	"net"
	"os"
	"testing"

	"github.com/facebookgo/grace/internal/testbin/compare"
)

// BenchmarkTake is a program that asks for each of its listeners, and has inherited many.
// They are found by what was asked for, or by their addresses. It is compared with a
// program that knows which is which, and opens them.
func BenchmarkTake(b *testing.B) {
	for _, by := range []string{"name", "address"} {
		for _, n := range []int{1, 100, 10_000} {
			b.Run(fmt.Sprint(by, "/", n), func(b *testing.B) { benchmarkTake(b, n, by == "name") })
		}
	}
}

func benchmarkTake(b *testing.B, n int, byName bool) {
	first, err := net.Listen("tcp", "127.8.0.1:0")
	if err != nil {
		b.Fatal(err)
	}
	port := first.Addr().(*net.TCPAddr).Port
	_ = first.Close()
	listeners := make([]net.Listener, n)
	asked := make([]string, n)
	for i := range listeners {
		asked[i] = fmt.Sprintf("127.8.%d.%d:%d", i/250, i%250+1, port)
		if listeners[i], err = net.Listen("tcp", asked[i]); err != nil {
			b.Fatal(err)
		}
	}
	b.Cleanup(func() {
		for _, l := range listeners {
			_ = l.Close()
		}
	})

	var p *Process
	// What the turn before has opened is inherited by the next.
	inherit := func() {
		p = &Process{untaken: n}
		for i, l := range listeners {
			fd, err := dup(l.(*net.TCPListener))
			if err != nil {
				b.Fatal(err)
			}
			_ = l.Close()
			in := &inherited{fd: fd, file: os.NewFile(uintptr(fd), "inherited")}
			if byName {
				in.network, in.name = "tcp", escapeName(asked[i])
			}
			p.own(in, streamSocket)
		}
	}
	open := func(int) {
		for i, in := range p.inherited {
			l, err := net.FileListener(in.file)
			if err != nil {
				b.Fatal(err)
			}
			_ = in.file.Close()
			listeners[i] = l
		}
	}
	take := func(int) {
		for i, asked := range asked {
			addr, err := net.ResolveTCPAddr("tcp", asked)
			if err != nil {
				b.Fatal(err)
			}
			l, err := p.Take("tcp", asked, addr)
			if err != nil || l == nil {
				b.Fatal(asked, l, err)
			}
			listeners[i] = l
		}
	}
	compare.Turns(b, n, inherit, open, take)
}
