//go:build linux

package main

import (
	"time"

	"github.com/facebookgo/grace/gracetest"
)

const measureStart = "start"

// startPause is how soon a server is asked again: by the time that it is asked at all, the
// new process of one that is written here serves, beside the old one.
const startPause = 100 * time.Microsecond

// start measures how soon after the signal a new process answers, and the old one has
// exited, without a standby and without clients. The floor is a plain start of the same
// program in the same part, from its fork to its first answer. Nobody asks before a process says that it
// serves: what the old process would have to do for that, the new one would have to wait
// for. nginx and HAProxy say nothing, so they are asked all the time.
func (b *bench) start() {
	floor, answered, exited := make(rounds[*system]), make(rounds[*system]), make(rounds[*system])
	for round := range b.plan.startRounds {
		for _, sys := range rotate(b.systems, round) {
			if !sys.isGo && round%3 != 0 { // they take longer, and have no goal
				continue
			}
			b.part(measureStart, sys, round, b.plan.startRounds, func(t *scope) {
				s := sys.start(t, conditions{})
				if sys.isGo {
					floor.add(sys, milliseconds(s.firstAnswer().Sub(s.started)))
				}
				if sys.keeps {
					return
				}
				s.waitUp()
				p := s.restart(startPause, true)
				b.losses(measureStart, sys, p.lost...)
				answered.add(sys, milliseconds(p.answered.Sub(p.asked)))
				exited.add(sys, milliseconds(p.exited.Sub(p.asked)))
			})
		}
	}
	for _, sys := range b.systems {
		if n := len(floor[sys]); n > 0 {
			b.record(measureStart, sys, "plain start to first answer", median(floor[sys]), "ms", n, goal{})
		}
		n := len(answered[sys])
		if n == 0 {
			continue
		}
		b.record(measureStart, sys, "signal to first answer", median(answered[sys]), "ms", n, goal{})
		b.record(measureStart, sys, "signal to exit", median(exited[sys]), "ms", n, goal{})
		if sys.isGo {
			b.record(measureStart, sys, "first answer / plain start", median(quotients(answered[sys], floor[sys])), "", n, atMost(1.15))
		}
	}
}

// firstAnswer waits for the first answer of a server that is only just starting, and
// returns when it came.
func (s *server) firstAnswer() time.Time {
	client := s.fresh()
	s.waitSays(0)
	for deadline := time.Now().Add(gracetest.Patience); ; nap(startPause) {
		s.t.Helper()
		_, err := client.Do()
		now := time.Now()
		if err == nil {
			return now
		}
		if now.After(deadline) {
			s.t.Fatalf("%s does not answer: %v", s.system.name, err)
		}
	}
}
