//go:build unix

package handoff

import "testing"

// The parent that was to come back has gone before the process that serves in the
// interim was ready: that process must make room for the one that the supervisor
// starts, as it does later.
func TestInterimWithoutParent(t *testing.T) {
	parent, child := controls(t)
	p := &Process{control: child, origin: Parent, interim: true}
	relieved := p.Relieved()
	parent.close()
	if _, err := p.Ready(); err != nil {
		t.Fatal(err)
	}
	wait(t, relieved, "the process in the interim to be relieved")
	if next := p.Next(); next != 0 {
		t.Errorf("process %d serves next, want none", next)
	}
}
