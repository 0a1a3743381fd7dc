//go:build linux

package supervisors_test

import (
	"fmt"
	"os"
	"syscall"
	"testing"

	"github.com/facebookgo/grace/internal/testbin"
	"github.com/facebookgo/grace/internal/testbin/play"
)

// inside is a file that systemd-ns.sh makes in its namespaces. What the tests do to
// systemd must not be done to that of the machine.
const inside = "/run/systemd-ns"

func TestMain(m *testing.M) {
	if _, err := os.Stat(inside); err != nil && os.Getenv(play.EnvConfig) == "" {
		// Returns only if it fails. The exit status is that of the tests in there.
		fmt.Fprintln(os.Stderr, "run systemd-ns.sh:", moveInside())
		os.Exit(1)
	}
	testbin.Main(m)
}

func moveInside() error {
	program, err := os.Executable()
	if err != nil {
		return err
	}
	args := append([]string{"./systemd-ns.sh", "run", program}, os.Args[1:]...)
	return syscall.Exec(args[0], args, os.Environ())
}
