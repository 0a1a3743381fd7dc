//go:build linux

package main

import "fmt"

const measureListeners = "listeners"

// listeners measures how a restart takes longer with many listeners, without a standby and
// without clients.
func (b *bench) listeners() {
	type key struct {
		system    *system
		listeners int
	}
	systems := b.named(nameGrace, nameHand, namePlain)
	answered, exited := make(rounds[key]), make(rounds[key])
	for round := range b.plan.listenerRounds {
		for _, sys := range rotate(systems, round) {
			b.part(measureListeners, sys, round, b.plan.listenerRounds, func(t *scope) {
				for _, n := range b.plan.listenerCounts {
					s := sys.start(t, conditions{listeners: n})
					if sys.keeps {
						answered.add(key{sys, n}, milliseconds(s.firstAnswer().Sub(s.started)))
						continue
					}
					s.waitUp()
					p := s.restart(startPause, true)
					b.losses(measureListeners, sys, p.lost...)
					answered.add(key{sys, n}, milliseconds(p.answered.Sub(p.asked)))
					exited.add(key{sys, n}, milliseconds(p.exited.Sub(p.asked)))
				}
			})
		}
	}
	for _, sys := range systems {
		for _, n := range b.plan.listenerCounts {
			name := fmt.Sprintf("%d listeners: ", n)
			if n == 1 {
				name = "1 listener: "
			}
			v := answered[key{sys, n}]
			if len(v) == 0 {
				continue
			}
			if sys.keeps {
				b.record(measureListeners, sys, name+"plain start to first answer", median(v), "ms", len(v), goal{})
				continue
			}
			b.record(measureListeners, sys, name+"signal to first answer", median(v), "ms", len(v), goal{})
			b.record(measureListeners, sys, name+"signal to exit", median(exited[key{sys, n}]), "ms", len(v), goal{})
		}
	}
}
