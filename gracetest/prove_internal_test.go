//go:build unix

package gracetest

import (
	"testing"
	"time"
)

// What a killed process had may be lost; nothing else.
func TestWasKilled(t *testing.T) {
	at := func(ms int) time.Time { return time.Unix(1000, int64(ms)*1e6) }
	p := &proof{kills: []kill{{sent: at(100), gone: at(110)}, {sent: at(5000)}}}
	for _, test := range []struct {
		name                 string
		opened, begun, ended int
		want                 bool
	}{
		{"over before the kill", 0, 50, 99, false},
		{"under way", 0, 50, 105, true},
		{"begun while it dies", 0, 105, 120, true},
		{"opened while it dies", 105, 106, 120, true},
		{"on a connection whose end was not noticed", 0, 1000, 1001, true},
		{"long after", 0, 1111, 1112, false},
		{"on a connection that is younger", 110, 111, 112, false},
		{"before the second kill", 2000, 4000, 4999, false},
		{"while the second one dies", 2000, 4000, 5001, true},
		{"opened after the second kill, before it is known to have gone", 5002, 5002, 5003, true},
	} {
		if got := p.wasKilled(at(test.opened), at(test.begun), at(test.ended)); got != test.want {
			t.Errorf("%s: %t, want %t", test.name, got, test.want)
		}
	}
}
