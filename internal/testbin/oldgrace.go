//go:build unix

package testbin

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"sync"
	"testing"
)

var oldDir string // removed by Main

var buildOld = sync.OnceValues(func() (string, error) {
	dir, err := os.MkdirTemp("", "oldgrace")
	if err != nil {
		return "", err
	}
	oldDir = dir
	path := filepath.Join(dir, "oldgrace")
	out, err := exec.Command("go", "build", "-o", path, "github.com/facebookgo/grace/internal/testbin/oldgrace").CombinedOutput()
	if err != nil {
		return "", fmt.Errorf("build oldgrace: %w\n%s", err, out)
	}
	return path, nil
})

// OldGrace is a server with the protocol of the original, without this library.
func OldGrace(t testing.TB) string {
	t.Helper()
	path, err := buildOld()
	if err != nil {
		t.Fatal(err)
	}
	return path
}
