//go:build linux

package main

import (
	"fmt"
	"io"
	"math"
	"slices"
	"strings"
	"unicode/utf8"
)

// writeTable writes a table for each measure: a line for each figure, a column for each
// system, in this order.
func writeTable(w io.Writer, order []string, figures []figure) error {
	var b strings.Builder
	for len(figures) > 0 {
		measure := figures[0].Measure
		var these, others []figure
		for _, f := range figures {
			if f.Measure == measure {
				these = append(these, f)
			} else {
				others = append(others, f)
			}
		}
		writeMeasure(&b, measure, order, these)
		figures = others
	}
	_, err := io.WriteString(w, b.String())
	return err
}

func writeMeasure(b *strings.Builder, measure string, order []string, figures []figure) {
	var systems, names, notes []string
	add := func(list *[]string, value string) {
		if !slices.Contains(*list, value) {
			*list = append(*list, value)
		}
	}
	for _, f := range figures {
		add(&systems, f.System)
		if f.Failure != "" {
			add(&notes, fmt.Sprintf("  %s: not measured: %s", f.System, f.Failure))
		} else {
			add(&names, f.Name)
		}
	}
	slices.SortStableFunc(systems, func(a, b string) int { return slices.Index(order, a) - slices.Index(order, b) })
	rows := [][]string{append([]string{measure}, systems...)}
	rows[0] = append(rows[0], "", "goal")
	for _, name := range names {
		row := make([]string, len(systems)+3)
		row[0] = "  " + name
		var goals []string
		for _, f := range figures {
			if f.Name != name || f.Failure != "" {
				continue
			}
			cell := number(*f.Value)
			if f.Met != nil {
				cell += map[bool]string{true: " met", false: " MISSED"}[*f.Met]
				add(&goals, f.Goal)
			}
			row[1+slices.Index(systems, f.System)] = cell
			row[len(row)-2] = f.Unit
		}
		row[len(row)-1] = strings.Join(goals, ", ")
		rows = append(rows, row)
	}
	if len(names) == 0 {
		rows[0] = rows[0][:1]
	}
	widths := make([]int, len(rows[0]))
	for _, row := range rows {
		for i, cell := range row[:len(widths)] {
			widths[i] = max(widths[i], utf8.RuneCountInString(cell))
		}
	}
	for _, row := range rows {
		line := ""
		for i, cell := range row[:len(widths)] {
			pad := strings.Repeat(" ", widths[i]-utf8.RuneCountInString(cell))
			switch {
			case i == 0:
				line = cell + pad
			case i > len(systems): // unit and goal
				line += "  " + cell + pad
			default:
				line += "  " + pad + cell
			}
		}
		b.WriteString(strings.TrimRight(line, " ") + "\n")
	}
	for _, note := range notes {
		b.WriteString(strings.ReplaceAll(note, "\n", "\n    ") + "\n")
	}
	b.WriteString("\n")
}

// number writes a value with three digits, or all that are before its point.
func number(v float64) string {
	switch a := math.Abs(v); {
	case a == 0 || a >= 100:
		return fmt.Sprintf("%.0f", v)
	case a >= 10:
		return fmt.Sprintf("%.1f", v)
	case a >= 0.1:
		return fmt.Sprintf("%.2f", v)
	}
	return fmt.Sprintf("%.3f", v)
}
