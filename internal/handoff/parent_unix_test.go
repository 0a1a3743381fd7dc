//go:build unix

package handoff

import (
	"bufio"
	"fmt"
	"os/exec"
	"testing"
)

// The pid of the parent may have been given to another process since: one that
// is not our parent is sent nothing.
func TestOnlyTheParentIsTerminated(t *testing.T) {
	for name, terminate := range map[string]func(int) error{"terminateParent": terminateParent, "killParent": killParent} {
		t.Run(name, func(t *testing.T) {
			other := exec.Command("cat")
			in, err := other.StdinPipe()
			if err != nil {
				t.Fatal(err)
			}
			out, err := other.StdoutPipe()
			if err != nil {
				t.Fatal(err)
			}
			if err := other.Start(); err != nil {
				t.Fatal(err)
			}
			if err := terminate(other.Process.Pid); err != nil {
				t.Error(err)
			}
			fmt.Fprintln(in, "alive")
			if line, err := bufio.NewReader(out).ReadString('\n'); line != "alive\n" {
				t.Errorf("another process was ended: %q, %v", line, err)
			}
			in.Close()
			if err := other.Wait(); err != nil {
				t.Error(err)
			}
		})
	}
}
