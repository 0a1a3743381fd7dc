//go:build linux

package main

import "time"

// plan is how much is measured.
type plan struct {
	standby time.Duration // of this library

	lostRounds, lostRestarts int // each round has that many restarts
	latencyRounds            int
	steadyFor                time.Duration // before a restart
	chartFor                 time.Duration // after its signal
	startRounds              int
	listenerRounds           int
	listenerCounts           []int
	steadyTurns              int
	steadyTurn               time.Duration
	idle                     []idleSize
	growthRestarts           int
}

var (
	full = plan{
		standby:    time.Second,
		lostRounds: 3, lostRestarts: 3,
		latencyRounds: 5, steadyFor: 2 * time.Second, chartFor: chartAfter,
		startRounds:    60,
		listenerRounds: 7, listenerCounts: []int{1, 10, 100, 1000},
		steadyTurns: 40, steadyTurn: 400 * time.Millisecond,
		idle:           []idleSize{{1000, 9}, {10000, 3}},
		growthRestarts: 500,
	}
	quick = plan{
		standby:    time.Second,
		lostRounds: 1, lostRestarts: 1,
		latencyRounds: 1, steadyFor: time.Second, chartFor: chartAfter,
		startRounds:    15,
		listenerRounds: 3, listenerCounts: []int{1, 10, 100, 1000},
		steadyTurns: 8, steadyTurn: 300 * time.Millisecond,
		idle:           []idleSize{{1000, 2}},
		growthRestarts: 50,
	}
	smoke = plan{
		standby:    200 * time.Millisecond,
		lostRounds: 1, lostRestarts: 2,
		latencyRounds: 1, steadyFor: 200 * time.Millisecond, chartFor: 300 * time.Millisecond,
		startRounds:    1,
		listenerRounds: 1, listenerCounts: []int{1, 10},
		steadyTurns: 1, steadyTurn: 100 * time.Millisecond,
		idle:           []idleSize{{100, 1}},
		growthRestarts: 10,
	}
)
