//go:build linux

package main

import (
	"bufio"
	"encoding/json"
	"encoding/xml"
	"errors"
	"fmt"
	"io"
	"math"
	"strings"
	"testing"
	"time"

	"github.com/facebookgo/grace/gracetest"
)

var (
	us   = &system{name: nameGrace, ours: true}
	them = &system{name: `a <peer> & "friend"`}
)

// found are results of each kind.
func found() *results {
	r := &results{now: func() time.Time { return time.Unix(1700000000, 0).UTC() }}
	r.record("speed", them, "latency", 12.34, "ms", 5, goal{})
	r.record("speed", us, "latency", 0.5, "ms", 5, atMost(0.4))
	r.record("speed", us, "quotient", 0.99, "", 5, atLeast(0.98))
	r.record("speed", them, "quotient", 7, "", 5, atLeast(0.98))
	r.record("speed", us, "nothing", math.NaN(), "ms", 0, goal{})
	r.failed("size", them, errors.New("it is too small"))
	r.failed("size", them, errors.New("it is too small"))
	return r
}

func TestTable(t *testing.T) {
	var b strings.Builder
	if err := writeTable(&b, []string{us.name, them.name}, found().figures); err != nil {
		t.Fatal(err)
	}
	const want = `speed             grace  a <peer> & "friend"      goal
  latency   0.50 MISSED                 12.3  ms  <= 0.4
  quotient     0.99 met                 7.00      >= 0.98
  grace: not measured: nothing: there is nothing to compute it from

size
  a <peer> & "friend": not measured: it is too small

`
	if b.String() != want {
		t.Errorf("the table is\n%s\nwant\n%s", b.String(), want)
	}
}

func TestJSON(t *testing.T) {
	r := found()
	var b strings.Builder
	if err := writeJSON(&b, r.figures); err != nil {
		t.Fatal(err)
	}
	lines := bufio.NewScanner(strings.NewReader(b.String()))
	n := 0
	for ; lines.Scan(); n++ {
		var got map[string]any
		if err := json.Unmarshal(lines.Bytes(), &got); err != nil {
			t.Fatalf("%v: %s", err, lines.Text())
		}
		for _, name := range []string{"measure", "system", "date"} {
			if got[name] == "" || got[name] == nil {
				t.Errorf("no %s in %s", name, lines.Text())
			}
		}
		if (got["value"] == nil) == (got["failure"] == nil) {
			t.Errorf("neither or both of a value and a failure: %s", lines.Text())
		}
	}
	if n != len(r.figures) {
		t.Errorf("%d lines for %d figures", n, len(r.figures))
	}
	const second = `{"measure":"speed","system":"grace","name":"latency","value":0.5,"unit":"ms","rounds":5,` +
		`"date":"2023-11-14T22:13:20Z","goal":"<= 0.4","met":false}`
	if !strings.Contains(b.String(), "\n"+second+"\n") {
		t.Errorf("%s\nis not in\n%s", second, b.String())
	}
}

// Each system is in the chart, which is XML.
func TestSVG(t *testing.T) {
	systems := []*system{us, {name: nameHandOver, ours: true}, {name: namePlain, keeps: true}, {name: nameHand}, {name: nameReload}, {name: nameUpgrade}, {name: nameHAProxy}, them}
	var c charts
	for i, s := range systems {
		if !s.keeps {
			c.lost = append(c.lost, bar{s.name, s.ours, float64(i)})
		}
		asked := time.Now()
		p := passage{asked: asked, answered: asked.Add(10 * time.Millisecond), exited: asked.Add(time.Second), old: 1, new: 2}
		var samples []gracetest.Sample
		for at := -400 * time.Millisecond; at < 3*time.Second; at += time.Millisecond {
			x := gracetest.Sample{At: asked.Add(at), Took: time.Millisecond, Answer: "1"}
			if at > 500*time.Millisecond {
				x.Answer = "2"
			}
			samples = append(samples, x)
		}
		c.add(s, p, samples)
	}
	for name, chart := range map[string]*charts{"all": &c, "nothing": {}} {
		var b strings.Builder
		if err := chart.write(&b); err != nil {
			t.Fatal(err)
		}
		texts, paths := wellFormed(t, b.String())
		if name == "nothing" {
			if strings.Count(texts, "not measured") != 2 {
				t.Errorf("the texts are\n%s", texts)
			}
			continue
		}
		for i, s := range systems {
			if !strings.Contains(texts, s.name) {
				t.Errorf("%s is not in\n%s", s.name, texts)
			}
			if value := fmt.Sprintf("\n%d\n", i); !s.keeps && !strings.Contains(texts, value) {
				t.Errorf("what %s loses, %d, is not in\n%s", s.name, i, texts)
			}
		}
		// Two for each of ours, the one without restarts twice, the others once.
		if want := 2*2 + 2 + 5; paths != want {
			t.Errorf("%d lines, want %d", paths, want)
		}
		if strings.Contains(b.String(), "NaN") || strings.Contains(b.String(), "Inf") {
			t.Errorf("not only numbers in\n%s", b.String())
		}
	}
}

// wellFormed returns the texts of a chart, and how many lines are in it that go through
// more than one point.
func wellFormed(t *testing.T, svg string) (texts string, lines int) {
	t.Helper()
	d := xml.NewDecoder(strings.NewReader(svg))
	for {
		token, err := d.Token()
		if err == io.EOF {
			return texts, lines
		}
		if err != nil {
			t.Fatalf("%v in\n%s", err, svg)
		}
		switch token := token.(type) {
		case xml.CharData:
			texts += string(token) + "\n"
		case xml.StartElement:
			for _, a := range token.Attr {
				if a.Name.Local == "d" && strings.Count(a.Value, "L") > 10 {
					lines++
				}
			}
		}
	}
}
