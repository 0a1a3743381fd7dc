// Package compare measures what the library adds to what is done without it. The two
// take turns, so that whatever else happens on the machine meets both.
package compare

import (
	"math"
	"runtime"
	"runtime/debug"
	"slices"
	"testing"
	"time"
)

// turn is how long a turn in a benchmark takes, at least.
const turn = 3 * time.Millisecond

// Benchmark compares ours with plain, two functions that do the same n times. The
// metrics of ours are those of every benchmark; beside them stand the time and the
// allocations of plain, and the ratio: the median of the quotients of two turns, of
// ours over plain.
func Benchmark(b *testing.B, plain, ours func(n int)) {
	b.Helper()
	n := 1
	for !b.Failed() && measure(plain, n).time < turn {
		n *= 2
	}
	measure(ours, n) // which may have to make something once, too
	Turns(b, n, func() {}, plain, ours)
}

// Turns is Benchmark with a given n. It calls prepare before each turn and does not
// measure that.
func Turns(b *testing.B, n int, prepare func(), plain, ours func(n int)) {
	b.Helper()
	b.ReportAllocs()
	var sums [2]cost
	var ratios []float64
	for i := 0; b.Loop(); i++ {
		var costs [2]cost
		for j := range costs { // neither is always the first
			k := (i + j) % 2
			prepare()
			costs[k] = measure([]func(int){plain, ours}[k], n)
			sums[k].add(costs[k])
		}
		ratios = append(ratios, float64(costs[1].time)/float64(costs[0].time))
	}
	slices.Sort(ratios)
	each := func(sum float64) float64 { return sum / float64(len(ratios)*n) }
	b.ReportMetric(each(float64(sums[1].time)), "ns/op")
	b.ReportMetric(math.Round(each(float64(sums[1].bytes))), "B/op")
	b.ReportMetric(math.Round(each(float64(sums[1].mallocs))), "allocs/op")
	b.ReportMetric(each(float64(sums[0].time)), "ns/plain")
	b.ReportMetric(math.Round(each(float64(sums[0].mallocs))), "allocs/plain")
	b.ReportMetric(ratios[len(ratios)/2], "ratio")
}

// Allocations returns how many allocations ours makes more than plain, each time. As
// testing.AllocsPerRun does, it lets one goroutine run at a time, so a test must not run
// in parallel with others.
//
// What others allocate meanwhile counts, and with the race detector a sync.Pool forgets
// some of what it is given. So a result that says that there is one gets more chances:
// what allocates each time does so in each of them.
func Allocations(n int, plain, ours func(n int)) int {
	defer runtime.GOMAXPROCS(runtime.GOMAXPROCS(1))
	defer debug.SetGCPercent(debug.SetGCPercent(-1)) // it empties the pools
	least := math.MaxInt
	for i := 0; i < 10 && least > 0; i++ {
		more := float64(measure(ours, n).mallocs) - float64(measure(plain, n).mallocs)
		least = min(least, int(math.Round(more/float64(n))))
	}
	return least
}

// cost is that of a turn.
type cost struct {
	time           time.Duration
	mallocs, bytes uint64
}

func (c *cost) add(d cost) {
	c.time += d.time
	c.mallocs += d.mallocs
	c.bytes += d.bytes
}

func measure(f func(int), n int) cost {
	var before, after runtime.MemStats
	runtime.ReadMemStats(&before)
	begin := time.Now()
	f(n)
	d := time.Since(begin)
	runtime.ReadMemStats(&after)
	return cost{d, after.Mallocs - before.Mallocs, after.TotalAlloc - before.TotalAlloc}
}
