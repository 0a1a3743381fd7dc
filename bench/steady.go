//go:build linux

package main

import (
	"fmt"
	"time"

	"github.com/facebookgo/grace/gracetest"
)

const measureSteady = "steady"

// steady compares what a server can do when nothing happens with what one can that has
// net/http alone. They take turns of some hundred milliseconds, each with all its clients;
// the figures are medians of the quotients of turns.
func (b *bench) steady() {
	systems := b.named(namePlain, nameGrace, nameHandOver)
	all, err := availableCPUs()
	if err != nil {
		b.failed(measureSteady, b.plain, err)
		return
	}
	for n := 1; n <= min(2, len(all)); n++ {
		// The clients of a server that has one processor are on others.
		cpus, clients := all[:n], all
		if n == 1 && len(all) > 1 {
			clients = all[1:]
		}
		name := fmt.Sprintf("%d cores: ", n)
		if n == 1 {
			name = "1 core: "
		}
		b.partOfAll(measureSteady, systems, func(t *scope) {
			b.takeTurns(t, systems, cpus, clients, name)
		})
	}
	if len(all) < 2 {
		b.failed(measureSteady, b.plain, fmt.Errorf("2 cores: this machine has one"))
	}
}

// turn is what came of one turn of a server.
type turn struct {
	begun, ended time.Time
	requests     int
	cpu          time.Duration // of the server
}

func (b *bench) takeTurns(t *scope, systems []*system, cpus, clients []int, name string) {
	pin(t, clients)
	type contender struct {
		*server
		pid   int
		load  *gracetest.Load
		turns []turn
	}
	var contenders []*contender
	for _, sys := range systems {
		s := sys.start(t, conditions{standby: b.plan.standby, cpus: cpus})
		c := &contender{server: s, pid: s.waitUp()}
		c.load = gracetest.NewLoad(t, asks(kept, gracetest.Request{URL: s.url("/pid")})...)
		c.load.WaitMore(20 * kept)
		c.load.Pause()
		contenders = append(contenders, c)
	}
	for i := range b.plan.steadyTurns {
		b.progress(measureSteady, name, i, b.plan.steadyTurns)
		for _, c := range rotate(contenders, i) {
			n, cpu := c.load.Requests(), cpuTime(t, c.pid)
			x := turn{begun: time.Now()}
			c.load.Resume()
			t.sleep(b.plan.steadyTurn)
			c.load.Pause()
			x.ended = time.Now()
			x.requests, x.cpu = c.load.Requests()-n, cpuTime(t, c.pid)-cpu
			c.turns = append(c.turns, x)
		}
	}
	type key struct {
		system *system
		name   string
	}
	values := make(rounds[key])
	for _, c := range contenders {
		r := c.load.Finish()
		for _, loss := range r.Losses {
			b.losses(measureSteady, c.system, fmt.Errorf("%v", loss))
		}
		for _, x := range c.turns {
			took := x.ended.Sub(x.begun)
			samples := between(r.Samples, x.begun, x.ended)
			values.add(key{c.system, "throughput"}, float64(x.requests)/took.Seconds())
			values.add(key{c.system, "p50"}, milliseconds(gracetest.Latency(samples, 0.5)))
			values.add(key{c.system, "p99"}, milliseconds(gracetest.Latency(samples, 0.99)))
			values.add(key{c.system, "cpu"}, microseconds(x.cpu)/float64(x.requests))
			values.add(key{c.system, "busy"}, 100*x.cpu.Seconds()/took.Seconds()/float64(len(cpus)))
		}
	}
	for _, sys := range systems {
		least := goal{}
		switch sys.name {
		case nameGrace:
			least = atLeast(0.98)
		case nameHandOver:
			least = atLeast(0.97)
		}
		record := func(what, unit, of string) {
			v := values[key{sys, of}]
			b.record(measureSteady, sys, name+what, median(v), unit, len(v), goal{})
		}
		quotient := func(of string, g goal) {
			if sys.keeps {
				return
			}
			v := quotients(values[key{sys, of}], values[key{b.plain, of}])
			b.record(measureSteady, sys, name+of+" / plain", median(v), "", len(v), g)
		}
		record("throughput", "requests/s", "throughput")
		quotient("throughput", least)
		record("p50", "ms", "p50")
		quotient("p50", goal{})
		record("p99", "ms", "p99")
		quotient("p99", goal{})
		record("cpu per request", "µs", "cpu")
		quotient("cpu", goal{})
		record("server busy", "%", "busy")
	}
}
