//go:build unix

package gracetest

import (
	"os"
	"os/exec"
	"path/filepath"
	"runtime/debug"
	"slices"
	"strconv"
)

// Build builds the command pkg, as "go build" does with these flags before it, and
// returns the path of the program, which goes with the test. The program has the race
// detector if the test has.
func Build(t TB, pkg string, flags ...string) string {
	t.Helper()
	program := filepath.Join(t.TempDir(), "program")
	args := append([]string{"build", "-race=" + strconv.FormatBool(raceDetector()), "-o", program}, flags...)
	if out, err := exec.Command("go", append(args, pkg)...).CombinedOutput(); err != nil {
		t.Fatalf("go build %s: %v\n%s", pkg, err, out)
	}
	if info, err := os.Stat(program); err != nil || info.Mode()&0o111 == 0 {
		t.Fatalf("go build %s makes no program: is it a package main?", pkg)
	}
	return program
}

// raceDetector reports whether this program was built with it.
func raceDetector() bool {
	info, ok := debug.ReadBuildInfo()
	return ok && slices.Contains(info.Settings, debug.BuildSetting{Key: "-race", Value: "true"})
}
