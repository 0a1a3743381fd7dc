package accept

import (
	"testing"

	"github.com/facebookgo/grace/internal/testbin/compare"
)

// BenchmarkAccept is a connection from its dial to its close, with a listener of package
// net and with one that can be paused.
func BenchmarkAccept(b *testing.B) {
	plain, ours := listen(b), listen(b)
	compare.Benchmark(b, compare.Accepts(b, plain), compare.Accepts(b, newListener(ours)))
}

// BenchmarkGate is what an Accept does besides that of package net.
func BenchmarkGate(b *testing.B) {
	l := newListener(faulty{})
	b.ReportAllocs()
	for b.Loop() {
		_, _ = l.Accept()
	}
}
