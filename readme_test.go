package grace_test

import (
	"go/format"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
)

// The programs of README.md compile, and its commands are where scripts look for
// them.

func readme(t *testing.T) string {
	t.Helper()
	text, err := os.ReadFile("README.md")
	if err != nil {
		t.Fatal(err)
	}
	return strings.ReplaceAll(string(text), "\r\n", "\n")
}

func TestReadmePrograms(t *testing.T) {
	blocks := regexp.MustCompile("(?ms)^```go\n(package main\n.*?)^```$").FindAllStringSubmatch(readme(t), -1)
	if len(blocks) < 3 {
		t.Fatalf("README.md has %d programs, want at least 3", len(blocks))
	}
	for _, block := range blocks {
		file := filepath.Join(t.TempDir(), "main.go")
		if err := os.WriteFile(file, []byte(block[1]), 0o644); err != nil {
			t.Fatal(err)
		}
		// A file given by its name belongs to the module we are in. To vet it takes less
		// than to link it.
		if out, err := exec.Command("go", "vet", file).CombinedOutput(); err != nil {
			t.Errorf("go vet: %v\n%s\n%s", err, out, block[1])
		}
		if formatted, err := format.Source([]byte(block[1])); err != nil || string(formatted) != block[1] {
			t.Errorf("not formatted: %v\n%s", err, block[1])
		}
	}
}

func TestReadmeCommands(t *testing.T) {
	got := make(map[string]string)
	marked := regexp.MustCompile("(?m)^<!-- command: (\\w+) -->\n```sh\n(.+)\n```$")
	for _, m := range marked.FindAllStringSubmatch(readme(t), -1) {
		got[m[1]] = m[2]
	}
	for name, want := range map[string]string{
		"demo": "go build -o bin/gracedemo ./gracedemo && bin/gracedemo",
		"test": "go test ./...",
	} {
		if got[name] != want {
			t.Errorf("command %s in README.md: %q, want %q", name, got[name], want)
		}
	}
}
