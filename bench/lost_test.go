//go:build linux

package main

import (
	"strings"
	"testing"
)

// The measure finds what a server loses that closes its connections, and nothing with one
// that does not: a check that can't fail would be none.
func TestLost(t *testing.T) {
	b := testBench(t)
	program := b.dir + "/server"
	careless := goSystem(program, "careless", "-system=hand", "-careless")
	careless.ours = true // so that it is told
	b.systems = append(b.named(nameGrace, nameHandOver, namePlain), careless)
	b.plan.lostRestarts = 1
	b.lost()
	lost := make(map[string]float64)
	for _, f := range b.figures {
		if f.Failure != "" {
			t.Errorf("%s: %s", f.System, f.Failure)
		} else if strings.HasSuffix(f.Name, ": lost") {
			lost[f.System] += *f.Value
		}
	}
	if len(lost) != len(b.systems) {
		t.Fatalf("%v, want a value for each system", lost)
	}
	for name, n := range lost {
		if (n > 0) != (name == "careless") {
			t.Errorf("%s loses %v requests per restart", name, n)
		}
	}
	if err := b.verdict(); len(b.accounts) != int(lost["careless"]) || !strings.Contains(err.Error(), "lost: careless: ") {
		t.Errorf("%d losses are told of %v: %v", len(b.accounts), lost["careless"], err)
	}
}
