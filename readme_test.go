package grace_test

import (
	"go/ast"
	"go/format"
	"go/parser"
	"go/token"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
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

// What the log warns of is explained, and nothing that it does not say. The same goes for
// the reasons of a restart that has failed.
func TestReadmeTroubleshooting(t *testing.T) {
	_, text, _ := strings.Cut(readme(t), "\n## Troubleshooting\n")
	text, _, _ = strings.Cut(text, "\n## ")
	rows := regexp.MustCompile("(?m)^\\| `(.+?)` \\| .+ \\| .+ \\|$").FindAllStringSubmatch(text, -1)
	var explained []string
	for _, row := range rows {
		explained = append(explained, row[1])
	}
	messages, all := logMessages(t)
	for message, warns := range messages {
		if warns && !slices.Contains(explained, message) {
			t.Errorf("README.md does not explain %q", message)
		}
	}
	for _, message := range explained {
		if _, ok := messages[message]; !ok {
			t.Errorf("README.md explains %q, which is not logged", message)
		}
	}
	reasons := regexp.MustCompile("(?m)^\\| `([^`.:0-9=]+)[^`]*` \\| [^|]+ \\|$").FindAllStringSubmatch(text, -1)
	if len(reasons) < 5 {
		t.Fatalf("README.md has %d reasons, want at least 5", len(reasons))
	}
	for _, r := range reasons {
		if reason := strings.TrimSpace(r[1]); !strings.Contains(all, reason) && reason != "bind" && reason != "too many open files" {
			t.Errorf("README.md explains the reason %q, which nobody gives", reason)
		}
	}
}

// logMessages returns what is logged, and whether at level WARN or above; and all texts
// of the source.
func logMessages(t *testing.T) (messages map[string]bool, all string) {
	t.Helper()
	messages = make(map[string]bool)
	var texts strings.Builder
	for _, dir := range []string{".", "gracehttp", "gracenet", "internal/handoff"} {
		files, err := filepath.Glob(filepath.Join(dir, "*.go"))
		if err != nil {
			t.Fatal(err)
		}
		for _, name := range files {
			if strings.HasSuffix(name, "_test.go") {
				continue
			}
			f, err := parser.ParseFile(token.NewFileSet(), name, nil, parser.SkipObjectResolution)
			if err != nil {
				t.Fatal(err)
			}
			ast.Inspect(f, func(n ast.Node) bool {
				switch n := n.(type) {
				case *ast.BasicLit:
					if n.Kind == token.STRING {
						text, _ := strconv.Unquote(n.Value)
						texts.WriteString(text + "\n")
					}
				case *ast.CallExpr:
					method, ok := n.Fun.(*ast.SelectorExpr)
					if !ok || len(n.Args) == 0 || !slices.Contains([]string{"Debug", "Info", "Warn", "Error"}, method.Sel.Name) {
						break
					}
					if lit, ok := n.Args[0].(*ast.BasicLit); ok && lit.Kind == token.STRING {
						text, _ := strconv.Unquote(lit.Value)
						messages[text] = method.Sel.Name == "Warn" || method.Sel.Name == "Error"
					}
				}
				return true
			})
		}
	}
	return messages, texts.String()
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
