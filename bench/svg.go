//go:build linux

package main

import (
	"encoding/xml"
	"fmt"
	"io"
	"math"
	"slices"
	"strings"
	"time"

	"github.com/facebookgo/grace/gracetest"
)

// What the chart of latencies shows: so long before and after the signal, and a point for
// each bucket.
const (
	chartBefore = 300 * time.Millisecond
	chartAfter  = 2 * time.Second
	bucket      = 20 * time.Millisecond
)

// charts is what the SVG shows.
type charts struct {
	lost    []bar
	latency []*series
}

// bar is how many requests a system loses per restart.
type bar struct {
	system string
	ours   bool
	value  float64
}

// series is how long requests took around the restarts of a system: by bucket, which is 0
// at the signal, in milliseconds.
type series struct {
	system           string
	ours, keeps      bool
	old, new, all    map[int][]float64
	answered, exited []float64 // after the signal
}

// add takes the samples of one restart.
func (c *charts) add(sys *system, p passage, samples []gracetest.Sample) {
	i := slices.IndexFunc(c.latency, func(s *series) bool { return s.system == sys.name })
	if i < 0 {
		i = len(c.latency)
		c.latency = append(c.latency, &series{
			system: sys.name, ours: sys.ours, keeps: sys.keeps,
			old: make(map[int][]float64), new: make(map[int][]float64), all: make(map[int][]float64),
		})
	}
	s := c.latency[i]
	if !sys.keeps {
		s.answered = append(s.answered, milliseconds(p.answered.Sub(p.asked)))
		s.exited = append(s.exited, milliseconds(p.exited.Sub(p.asked)))
	}
	old, new := fmt.Sprint(p.old), fmt.Sprint(p.new)
	for _, x := range between(samples, p.asked.Add(-chartBefore), p.asked.Add(chartAfter)) {
		if x.Lost {
			continue
		}
		at := int(math.Floor(float64(x.At.Sub(p.asked)) / float64(bucket)))
		took := milliseconds(x.Took)
		s.all[at] = append(s.all[at], took)
		switch x.Answer {
		case old:
			s.old[at] = append(s.old[at], took)
		case new:
			s.new[at] = append(s.new[at], took)
		}
	}
}

// The sizes of the drawing.
const (
	chartWidth = 800
	left       = 150 // of the bars; names are in front of them
	right      = 20
	barHeight  = 16
	barStep    = 24
	scaleWidth = 70
	plotHeight = 190
)

// Colours that can be told from white and from black.
const (
	ink      = "#7d8590"
	faint    = "#7d859040"
	oldOurs  = "#3b82f6"
	newOurs  = "#16a34a"
	barOurs  = newOurs
	barOther = "#e5534b"
)

var otherColours = []string{"#e5534b", "#d18616", "#a371f7", "#db61a2", "#0e9aa7", "#a3a326", "#8c6d46"}

const title = `font-size="15" font-weight="600"`

// drawing is an SVG that is being written.
type drawing struct {
	strings.Builder
	y float64 // where the next part begins
}

func (d *drawing) text(x, y float64, attributes, format string, args ...any) {
	fmt.Fprintf(d, `<text x="%.1f" y="%.1f" %s>`, x, y, attributes)
	_ = xml.EscapeText(d, fmt.Appendf(nil, format, args...))
	d.WriteString("</text>\n")
}

// write writes the SVG.
func (c *charts) write(w io.Writer) error {
	var d drawing
	c.drawLost(&d)
	c.drawLatency(&d)
	_, err := fmt.Fprintf(w, `<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 %d %.0f" width="%d" height="%.0f" role="img" font-family="-apple-system, 'Segoe UI', Helvetica, Arial, sans-serif" font-size="13" fill="%s">
<title>Requests lost per restart, and latency across a restart</title>
%s</svg>
`, chartWidth, d.y, chartWidth, d.y, ink, d.String())
	return err
}

// drawLost draws a bar for each system.
func (c *charts) drawLost(d *drawing) {
	d.text(0, d.y+18, title, "Requests lost per restart")
	n := 0
	for _, class := range classes() {
		n += class.clients
	}
	d.text(0, d.y+38, "", "by %d clients, none of which sends a request a second time", n)
	d.y += 52
	if len(c.lost) == 0 {
		d.text(0, d.y+10, "", "not measured")
		d.y += 2 * barStep
		return
	}
	most := 1.0
	for _, b := range c.lost {
		most = max(most, b.value)
	}
	const room = 50 // for the number behind the longest bar
	for _, b := range c.lost {
		colour := barOther
		switch {
		case b.ours:
			colour = barOurs
		case b.value == 0:
			colour = ink
		}
		width := b.value / most * (chartWidth - left - right - room)
		d.text(left-8, d.y+12.5, `text-anchor="end"`, "%s", b.system)
		if width > 0 {
			fmt.Fprintf(d, `<rect x="%d" y="%.1f" width="%.1f" height="%d" rx="2" fill="%s"/>`+"\n", left, d.y, max(width, 1), barHeight, colour)
		}
		d.text(left+width+6, d.y+12.5, fmt.Sprintf(`font-weight="600" fill="%s"`, colour), "%s", strings.TrimSuffix(fmt.Sprintf("%.1f", b.value), ".0"))
		d.y += barStep
	}
	d.y += 20
}

// line is one of the chart of latencies.
type line struct {
	name, colour string
	width        float64
	dashes       string          // as SVG has them; none if it is empty
	points       map[int]float64 // p99 of each bucket
}

// panels returns what is to be drawn of this library and of the others. What has no
// restarts is in both, to compare with. What comes last is on top.
func (c *charts) panels() (ours, others []line) {
	for _, s := range c.latency {
		switch {
		case s.keeps:
			l := line{s.system + ", no restart", ink, 1.3, "1 3", p99(s.all)}
			ours, others = slices.Insert(ours, 0, l), slices.Insert(others, 0, l)
		case s.ours:
			dashes := ""
			if s.system == nameHandOver {
				dashes = "6 3"
			}
			ours = append(ours,
				line{s.system + ", new process", newOurs, 2, dashes, p99(s.new)},
				line{s.system + ", old process", oldOurs, 2, dashes, p99(s.old)})
		default:
			others = append(others, line{s.system, otherColours[len(others)%len(otherColours)], 1.6, "", p99(s.all)})
		}
	}
	return ours, others
}

// p99 leaves out what has too few values to say anything.
func p99(buckets map[int][]float64) map[int]float64 {
	const few = 5
	points := make(map[int]float64)
	for at, values := range buckets {
		if len(values) >= few {
			points[at] = quantile(values, 0.99)
		}
	}
	return points
}

// drawLatency draws how long requests take around a restart.
func (c *charts) drawLatency(d *drawing) {
	d.text(0, d.y+18, title, "Latency across a restart")
	d.text(0, d.y+38, "", "p99 of each %d ms of %d clients with kept connections, at half of what the machine can do", bucket.Milliseconds(), kept)
	d.y += 52
	ours, others := c.panels()
	if len(ours)+len(others) == 0 {
		d.text(0, d.y+14, "", "not measured")
		d.y += 2 * barStep
		return
	}
	low, high := math.Inf(1), math.Inf(-1)
	for _, l := range slices.Concat(ours, others) {
		for _, v := range l.points {
			low, high = min(low, v), max(high, v)
		}
	}
	if low > high {
		low, high = 1, 10
	}
	bottom, top := math.Floor(math.Log10(low)), math.Ceil(math.Log10(high))
	s := scale{bottom, max(top, bottom+1)}
	marks := make(map[string]float64)
	for _, series := range c.latency {
		if series.system == nameGrace && len(series.exited) > 0 {
			marks[nameGrace+": the old process has exited"] = median(series.exited)
		}
	}
	d.panel(ours, s, marks)
	d.panel(others, s, nil)
	d.text(chartWidth-right, d.y+4, `text-anchor="end"`, "milliseconds after the signal")
	d.y += 16
}

// scale is what the vertical axis shows: powers of ten of milliseconds.
type scale struct{ bottom, top float64 }

// panel draws lines, with their names above. The marks are moments.
func (d *drawing) panel(lines []line, s scale, marks map[string]float64) {
	if len(lines) == 0 {
		return
	}
	legend(d, lines)
	begin, end := milliseconds(-chartBefore), milliseconds(chartAfter)
	up := d.y
	x := func(ms float64) float64 {
		return scaleWidth + (ms-begin)/(end-begin)*(chartWidth-scaleWidth-right)
	}
	y := func(ms float64) float64 { return up + plotHeight*(s.top-math.Log10(ms))/(s.top-s.bottom) }

	for e := s.bottom; e <= s.top; e++ {
		v := math.Pow(10, e)
		fmt.Fprintf(d, `<path d="M%d %.1fH%d" stroke="%s"/>`+"\n", scaleWidth, y(v), chartWidth-right, faint)
		d.text(scaleWidth-8, y(v)+4.5, `text-anchor="end"`, "%v ms", v)
	}
	for ms := math.Ceil(begin/250) * 250; ms <= end; ms += 250 {
		d.text(x(ms), up+plotHeight+18, `text-anchor="middle"`, "%.0f", ms)
	}
	mark := func(ms float64, name string) {
		fmt.Fprintf(d, `<path d="M%.1f %.1fV%.1f" stroke="%s" stroke-dasharray="3 3"/>`+"\n", x(ms), up-6, up+plotHeight, ink)
		d.text(x(ms)-5, up+4, `font-size="12" text-anchor="end"`, "%s", name)
	}
	mark(0, "signal")
	for name, at := range marks {
		if at < end {
			mark(at, name)
		}
	}
	for _, l := range lines {
		fmt.Fprintf(d, `<path d="%s" fill="none" stroke="%s" stroke-width="%v"%s stroke-linejoin="round"/>`+"\n", path(l.points, x, y), l.colour, l.width, l.dashed())
	}
	d.y = up + plotHeight + 38
}

func (l line) dashed() string {
	if l.dashes == "" {
		return ""
	}
	return fmt.Sprintf(` stroke-dasharray="%s"`, l.dashes)
}

// legend names the lines, in their colours.
func legend(d *drawing, lines []line) {
	const sample, gap, glyph = 18, 18, 7.2 // a character is about that wide
	at := 0.0
	d.y += 8
	for _, l := range slices.Backward(lines) {
		width := sample + 6 + glyph*float64(len(l.name))
		if at > 0 && at+width > chartWidth {
			at = 0
			d.y += 20
		}
		fmt.Fprintf(d, `<path d="M%.1f %.1fh%d" stroke="%s" stroke-width="2"%s/>`+"\n", at, d.y, sample, l.colour, l.dashed())
		d.text(at+sample+6, d.y+4.5, "", "%s", l.name)
		at += width + gap
	}
	d.y += 20
}

// path draws a line through points, with a gap where there are none.
func path(points map[int]float64, x, y func(float64) float64) string {
	var ats []int
	for at := range points {
		ats = append(ats, at)
	}
	slices.Sort(ats)
	var b strings.Builder
	for i, at := range ats {
		command := "L"
		if i == 0 || ats[i-1] != at-1 {
			command = "M"
		}
		middle := (float64(at) + 0.5) * milliseconds(bucket)
		fmt.Fprintf(&b, "%s%.1f %.1f", command, x(middle), y(points[at]))
		if command == "M" && (i == len(ats)-1 || ats[i+1] != at+1) {
			b.WriteString("h0.1") // a point of its own
		}
	}
	return b.String()
}
