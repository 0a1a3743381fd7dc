//go:build linux

package main

import (
	"math"
	"slices"
	"testing"
)

func TestQuantile(t *testing.T) {
	for _, test := range []struct {
		values []float64
		part   float64
		want   float64
	}{
		{[]float64{3}, 0.5, 3},
		{[]float64{3, 1, 2}, 0.5, 2},
		{[]float64{4, 1, 3, 2}, 0.5, 2.5},
		{[]float64{4, 1, 3, 2}, 0, 1},
		{[]float64{4, 1, 3, 2}, 1, 4},
		{[]float64{0, 10}, 0.99, 9.9},
	} {
		if got := quantile(test.values, test.part); math.Abs(got-test.want) > 1e-9 {
			t.Errorf("quantile(%v, %v) = %v, want %v", test.values, test.part, got, test.want)
		}
	}
	if got := median(nil); !math.IsNaN(got) {
		t.Errorf("the median of nothing is %v", got)
	}
}

func TestQuotients(t *testing.T) {
	nan := math.NaN()
	if got := quotients([]float64{2, 6, nan, 1, 9}, []float64{1, 3, 1, 0}); !slices.Equal(got, []float64{2, 2}) {
		t.Error(got)
	}
}

func TestTenths(t *testing.T) {
	var values []int
	for i := range 27 {
		values = append(values, i)
	}
	if first, last := tenths(values); !slices.Equal(first, []int{0, 1}) || !slices.Equal(last, []int{25, 26}) {
		t.Error(first, last)
	}
	if first, last := tenths(values[:3]); len(first) != 1 || len(last) != 1 {
		t.Error(first, last)
	}
	if first, last := tenths(values[:0]); len(first) != 0 || len(last) != 0 {
		t.Error(first, last)
	}
}

func TestRotate(t *testing.T) {
	values := []int{1, 2, 3}
	if got := rotate(values, 4); !slices.Equal(got, []int{2, 3, 1}) || !slices.Equal(values, []int{1, 2, 3}) {
		t.Error(got, values)
	}
}

func TestGoals(t *testing.T) {
	for _, test := range []struct {
		goal  goal
		value float64
		met   bool
		want  string
	}{
		{atMost(1.5), 1.5, true, "<= 1.5"},
		{atMost(1.5), 1.51, false, "<= 1.5"},
		{atLeast(0.98), 0.98, true, ">= 0.98"},
		{atLeast(0.98), 0.97, false, ">= 0.98"},
	} {
		if test.goal.met(test.value) != test.met || test.goal.String() != test.want {
			t.Errorf("%v of %v: %v", test.value, test.goal, test.goal.met(test.value))
		}
	}
}
