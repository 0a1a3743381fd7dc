package handoff

import "testing"

// A child that was passed no sockets remains a child when its program changes LISTEN_FDS.
func TestClaimOnce(t *testing.T) {
	p := &Process{origin: Parent, claimed: "0", ppid: 812}
	t.Setenv(envFDs, "")
	if origin, parent := p.Origin(); origin != Parent || parent != 812 {
		t.Errorf("origin %d, parent %d, want a child of 812", origin, parent)
	}
}
