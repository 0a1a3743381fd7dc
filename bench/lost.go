//go:build linux

package main

import (
	"errors"
	"net/http"
	"time"

	"github.com/facebookgo/grace/gracetest"
)

const measureLost = "lost"

// class is a kind of clients. None of them sends a request a second time.
type class struct {
	name    string
	clients int
	path    string
	request gracetest.Request
}

// slowFor is how long a slow request takes.
const slowFor = 300 * time.Millisecond

// fresh is the number of the class that keeps no connection.
const fresh = 2

func classes() []class {
	body := []byte("a body that comes with the head")
	return []class{
		{"GET, kept connections", 32, "/pid", gracetest.Request{}},
		{"POST, kept connections", 32, "/pid", gracetest.Request{Method: http.MethodPost, Body: body}},
		fresh: {"GET, fresh connections", 8, "/pid", gracetest.Request{Fresh: true}},
		{"slow requests", 16, "/slow?for=" + slowFor.String(), gracetest.Request{}},
	}
}

// toll is what restarts have cost a class.
type toll struct{ lost, reconnects int }

// lost counts the requests that are lost, and the connections that clients have to open
// again, when a server is restarted while clients make requests as fast as they can.
func (b *bench) lost() {
	tolls := make(map[*system][]toll)
	restarts := make(map[*system]int)
	for round := range b.plan.lostRounds {
		for _, sys := range rotate(b.systems, round) {
			b.part(measureLost, sys, round, b.plan.lostRounds, func(t *scope) {
				all := b.loseRequests(t, sys)
				if tolls[sys] == nil {
					tolls[sys] = make([]toll, len(all))
				}
				for i := range all {
					tolls[sys][i].lost += all[i].lost
					tolls[sys][i].reconnects += all[i].reconnects
				}
				restarts[sys] += b.plan.lostRestarts
			})
		}
	}
	for _, sys := range b.systems {
		if !sys.slow {
			b.failed(measureLost, sys, errors.New("slow requests: it is known to answer /pid, and nothing else"))
		}
		total := 0
		n := restarts[sys]
		for i, c := range classes()[:len(tolls[sys])] {
			b.record(measureLost, sys, c.name+": lost", float64(tolls[sys][i].lost)/float64(n), "per restart", n, atMost(0))
			if i != fresh {
				b.record(measureLost, sys, c.name+": reconnects", float64(tolls[sys][i].reconnects)/float64(n), "per restart", n, goal{})
			}
			total += tolls[sys][i].lost
		}
		if n > 0 && !sys.keeps {
			b.charts.lost = append(b.charts.lost, bar{sys.name, sys.ours, float64(total) / float64(n)})
		}
	}
}

// loseRequests restarts a server some times, and returns what each class has paid.
func (b *bench) loseRequests(t *scope, sys *system) []toll {
	s := sys.start(t, conditions{standby: b.plan.standby})
	s.waitUp()
	all := classes()
	if !sys.slow {
		all = all[:len(all)-1]
	}
	var loads []*gracetest.Load
	for _, c := range all {
		c.request.URL = s.url(c.path)
		loads = append(loads, gracetest.NewLoad(t, asks(c.clients, c.request)...))
	}
	answers := func() {
		for i, l := range loads {
			l.WaitMore(2 * all[i].clients)
		}
	}
	tolls := make([]toll, len(all))
	answers()
	for range b.plan.lostRestarts {
		if sys.keeps {
			t.sleep(b.plan.standby)
		} else {
			p := s.restart(askPause, false)
			tolls[fresh].lost += len(p.lost)
			b.losses(measureLost, sys, p.lost...)
		}
		answers()
	}
	for i, l := range loads {
		r := l.Finish()
		tolls[i].lost += len(r.Losses)
		tolls[i].reconnects += r.Reconnects
		for _, loss := range r.Losses {
			b.losses(measureLost, sys, errors.New(loss.String()))
		}
	}
	return tolls
}
