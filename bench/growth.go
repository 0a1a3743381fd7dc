//go:build linux

package main

import (
	"fmt"
	"time"

	"github.com/facebookgo/grace/gracetest"
	"github.com/facebookgo/grace/internal/proc"
)

const measureGrowth = "growth"

// growth restarts a server many times, and compares the memory and the descriptors of the
// first generations with those of the last. A few clients keep connections all the time.
func (b *bench) growth() {
	const (
		clients  = 8
		interval = 10 * time.Millisecond
	)
	for _, sys := range b.named(nameGrace, nameHandOver) {
		var memory, descriptors []float64
		left := 0
		n := b.plan.growthRestarts
		ok := b.part(measureGrowth, sys, 0, 1, func(t *scope) {
			s := sys.start(t, conditions{})
			s.waitUp()
			var paced []gracetest.Client
			for _, c := range asks(clients, gracetest.Request{URL: s.url("/pid")}) {
				paced = append(paced, gracetest.Paced(c, interval))
			}
			l := gracetest.NewLoad(t, paced...)
			for i := range n {
				if i%10 == 0 {
					b.progress(measureGrowth, sys.name, i, n)
				}
				p := s.restart(askPause, false)
				b.losses(measureGrowth, sys, p.lost...)
				l.WaitPID(p.new)
				l.WaitMore(2 * clients)
				d, err := proc.Descriptors(p.new)
				if err != nil {
					t.Fatalf("descriptors of process %d: %v", p.new, err)
				}
				kb, err := proc.ResidentKB(p.new)
				if err != nil {
					t.Fatalf("%v", err)
				}
				descriptors, memory = append(descriptors, float64(len(d))), append(memory, float64(kb))
			}
			left = len(s.Processes()) - 1
			for _, loss := range l.Finish().Losses {
				b.losses(measureGrowth, sys, fmt.Errorf("%v", loss))
			}
		})
		if !ok {
			continue
		}
		first, last := tenths(memory)
		b.record(measureGrowth, sys, "memory of the first generations", median(first)/1024, "MiB", len(first), goal{})
		b.record(measureGrowth, sys, "memory of the last generations", median(last)/1024, "MiB", len(last), goal{})
		b.record(measureGrowth, sys, "memory, last / first", median(last)/median(first), "", n, atMost(1.05))
		first, last = tenths(descriptors)
		b.record(measureGrowth, sys, "descriptors of the first generations", median(first), "", len(first), goal{})
		b.record(measureGrowth, sys, "descriptors, last - first", median(last)-median(first), "", n, atMost(0))
		b.record(measureGrowth, sys, "processes left", float64(left), "", n, atMost(0))
	}
}
