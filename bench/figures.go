//go:build linux

package main

import (
	"encoding/json"
	"fmt"
	"io"
	"math"
	"slices"
	"time"
)

// figure is one result. Its tags are the format of -json.
type figure struct {
	Measure string `json:"measure"`
	System  string `json:"system"`
	Name    string `json:"name"`
	// Value is missing if Failure says why it could not be measured.
	Value   *float64 `json:"value,omitempty"`
	Unit    string   `json:"unit,omitempty"`
	Rounds  int      `json:"rounds,omitempty"`
	Date    string   `json:"date"` // RFC 3339
	Goal    string   `json:"goal,omitempty"`
	Met     *bool    `json:"met,omitempty"`
	Failure string   `json:"failure,omitempty"`
}

// writeJSON writes a line for each figure.
func writeJSON(w io.Writer, figures []figure) error {
	e := json.NewEncoder(w)
	e.SetEscapeHTML(false)
	for _, f := range figures {
		if err := e.Encode(f); err != nil {
			return fmt.Errorf("write a figure: %w", err)
		}
	}
	return nil
}

// goal is what a figure should be. The zero value is none.
type goal struct {
	bound float64
	least bool // at least bound, else at most
	set   bool
}

func atLeast(bound float64) goal { return goal{bound, true, true} }
func atMost(bound float64) goal  { return goal{bound, false, true} }

func (g goal) String() string {
	switch {
	case !g.set:
		return ""
	case g.least:
		return fmt.Sprintf(">= %v", g.bound)
	}
	return fmt.Sprintf("<= %v", g.bound)
}

func (g goal) met(value float64) bool {
	if g.least {
		return value >= g.bound
	}
	return value <= g.bound
}

// results are the figures, in the order in which they were found.
type results struct {
	figures []figure
	charts  charts
	now     func() time.Time

	accounts []string // what this library has lost
	fail     []string // where it could not be measured
}

// record adds a figure. Goals are for this library. A value that is not a number is one that
// could not be measured.
func (r *results) record(measure string, s *system, name string, value float64, unit string, n int, g goal) {
	if math.IsNaN(value) || math.IsInf(value, 0) {
		r.failed(measure, s, fmt.Errorf("%s: there is nothing to compute it from", name))
		return
	}
	if !s.ours {
		g = goal{}
	}
	f := figure{
		Measure: measure, System: s.name, Name: name, Value: &value, Unit: unit, Rounds: n,
		Date: r.now().Format(time.RFC3339), Goal: g.String(),
	}
	if g.set {
		met := g.met(value)
		f.Met = &met
	}
	r.figures = append(r.figures, f)
}

// failed says why a measure, or a figure of it, could not be made for a system. It is said once.
func (r *results) failed(measure string, s *system, err error) {
	f := figure{Measure: measure, System: s.name, Failure: err.Error(), Date: r.now().Format(time.RFC3339)}
	if slices.ContainsFunc(r.figures, func(o figure) bool {
		return o.Measure == f.Measure && o.System == f.System && o.Failure == f.Failure
	}) {
		return
	}
	r.figures = append(r.figures, f)
	if s.ours {
		r.fail = append(r.fail, fmt.Sprintf("%s: %s: %v", measure, s.name, err))
	}
}

// losses notes what a system has lost, if it is ours.
func (r *results) losses(measure string, s *system, accounts ...error) {
	if !s.ours {
		return
	}
	for _, account := range accounts {
		r.accounts = append(r.accounts, fmt.Sprintf("%s: %s: %v", measure, s.name, account))
	}
}
