//go:build linux

package main

import (
	"math"
	"slices"
	"time"
)

// quantile returns the value below which the part of all values is: 0.5 for the median.
// Between two values it takes the mean weighted by distance. It is NaN if there are none.
func quantile(values []float64, part float64) float64 {
	if len(values) == 0 {
		return math.NaN()
	}
	sorted := slices.Clone(values)
	slices.Sort(sorted)
	at := part * float64(len(sorted)-1)
	low := int(at)
	high := min(low+1, len(sorted)-1)
	return sorted[low] + (at-float64(low))*(sorted[high]-sorted[low])
}

func median(values []float64) float64 { return quantile(values, 0.5) }

// quotients divides what two systems had in the same rounds. What one of them does not
// have is left out.
func quotients(of, by []float64) []float64 {
	var q []float64
	for i := range min(len(of), len(by)) {
		if by[i] != 0 && !math.IsNaN(of[i]) && !math.IsNaN(by[i]) {
			q = append(q, of[i]/by[i])
		}
	}
	return q
}

// milliseconds and microseconds are the units of the tables.
func milliseconds(d time.Duration) float64 { return float64(d) / float64(time.Millisecond) }
func microseconds(d time.Duration) float64 { return float64(d) / float64(time.Microsecond) }

// rounds has the values that each key had, in the order of the rounds.
type rounds[K comparable] map[K][]float64

func (r rounds[K]) add(key K, value float64) { r[key] = append(r[key], value) }

// tenths returns the first and the last tenth of values, one at least.
func tenths[V any](values []V) (first, last []V) {
	n := max(len(values)/10, min(1, len(values)))
	return values[:n], values[len(values)-n:]
}

// rotate returns the values beginning with another one each round, so that none is always
// the first.
func rotate[V any](values []V, round int) []V {
	if len(values) == 0 {
		return nil
	}
	i := round % len(values)
	return slices.Concat(values[i:], values[:i])
}
