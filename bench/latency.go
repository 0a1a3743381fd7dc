//go:build linux

package main

import (
	"errors"
	"slices"
	"time"

	"github.com/facebookgo/grace/gracetest"
)

const measureLatency = "latency"

// kept is how many connections the clients keep here, and in steady state.
const kept = 64

// The percentiles that are looked at.
var percentiles = []struct {
	name string
	part float64
}{{"p50", 0.5}, {"p99", 0.99}, {"p99.9", 0.999}, {"highest", 1}}

// latency compares how long requests take during a restart with how long they take before
// it. The clients make a request at fixed times, half as many as the machine can take, so
// that one that has to wait is not left out. During a restart is from the signal to the
// exit of the last old process: the standby of this library belongs to it. Since others
// have none, what comes in a fixed time after the signal is shown as well.
func (b *bench) latency() {
	const after = 200 * time.Millisecond
	interval := time.Duration(0)
	type key struct {
		system *system
		name   string
	}
	values := make(rounds[key])
	for round := range b.plan.latencyRounds {
		for _, sys := range rotate(b.systems, round) {
			b.part(measureLatency, sys, round, b.plan.latencyRounds, func(t *scope) {
				if interval == 0 {
					interval = b.halfLoad(t)
				}
				s := sys.start(t, conditions{standby: b.plan.standby})
				s.waitUp()
				clients := asks(kept, gracetest.Request{URL: s.url("/pid")})
				for i, c := range clients {
					clients[i] = gracetest.Paced(c, interval)
				}
				l := gracetest.NewLoad(t, clients...)
				l.WaitMore(10 * kept) // caches are warm, and connections open
				begun := time.Now()
				t.sleep(b.plan.steadyFor)
				calm := time.Now() // before the harness looks for processes
				p := passage{asked: time.Now()}
				if !sys.keeps {
					p = s.restart(askPause, false)
					b.losses(measureLatency, sys, p.lost...)
				}
				t.sleep(time.Until(p.asked.Add(b.plan.chartFor)))
				r := l.Finish()
				for _, loss := range r.Losses {
					b.losses(measureLatency, sys, errors.New(loss.String()))
				}
				steady := between(r.Samples, begun, calm)
				windows := map[string][]gracetest.Sample{"steady": steady}
				if !sys.keeps {
					windows["restart"] = between(r.Samples, p.asked, p.exited)
					windows["first"] = between(r.Samples, p.asked, p.asked.Add(after))
					values.add(key{sys, "window"}, milliseconds(p.exited.Sub(p.asked)))
				}
				for window, samples := range windows {
					for _, q := range percentiles {
						values.add(key{sys, window + q.name}, milliseconds(gracetest.Latency(samples, q.part)))
					}
				}
				b.charts.add(sys, p, r.Samples)
			})
		}
	}
	for _, sys := range b.systems {
		record := func(name string, of []float64, unit string, g goal) {
			if len(of) > 0 {
				b.record(measureLatency, sys, name, median(of), unit, len(of), g)
			}
		}
		for _, q := range percentiles {
			record(q.name+" in steady state", values[key{sys, "steady" + q.name}], "ms", goal{})
		}
		for _, q := range percentiles {
			record(q.name+" during a restart", values[key{sys, "restart" + q.name}], "ms", goal{})
		}
		record("p99 in the first "+after.String(), values[key{sys, "firstp99"}], "ms", goal{})
		record("length of a restart", values[key{sys, "window"}], "ms", goal{})
		record("p99 during a restart / in steady state",
			quotients(values[key{sys, "restartp99"}], values[key{sys, "steadyp99"}]), "", atMost(1.5))
	}
}

// halfLoad returns at which interval each client has to make requests so that the machine
// is half busy.
func (b *bench) halfLoad(t *scope) time.Duration {
	s := b.plain.start(t, conditions{})
	s.waitUp()
	l := gracetest.NewLoad(t, asks(kept, gracetest.Request{URL: s.url("/pid")})...)
	l.WaitMore(10 * kept)
	n, begun := l.Requests(), time.Now()
	t.sleep(b.plan.steadyFor / 2)
	rate := float64(l.Requests()-n) / time.Since(begun).Seconds()
	l.Finish()
	s.Stop()
	return time.Duration(kept / (rate / 2) * float64(time.Second))
}

// between returns the samples of a time. They are in order.
func between(samples []gracetest.Sample, begin, end time.Time) []gracetest.Sample {
	index := func(at time.Time) int {
		i, _ := slices.BinarySearchFunc(samples, at, func(s gracetest.Sample, at time.Time) int { return s.At.Compare(at) })
		return i
	}
	return samples[index(begin):max(index(begin), index(end))]
}
