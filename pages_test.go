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

// What README.md and the other pages show is true: their programs compile, their commands
// are run by somebody, their links lead somewhere.

// pages returns the texts, by name.
func pages(t *testing.T) map[string]string {
	t.Helper()
	names, err := filepath.Glob("docs/*.md")
	if err != nil {
		t.Fatal(err)
	}
	texts := make(map[string]string)
	for _, name := range append(names, "README.md", "CONTRIBUTING.md", "CHANGELOG.md") {
		text, err := os.ReadFile(name)
		if err != nil {
			t.Fatal(err)
		}
		texts[name] = strings.ReplaceAll(string(text), "\r\n", "\n")
	}
	return texts
}

func readme(t *testing.T) string {
	t.Helper()
	return pages(t)["README.md"]
}

func TestPrograms(t *testing.T) {
	programs := 0
	for page, text := range pages(t) {
		for _, block := range regexp.MustCompile("(?ms)^```go\n(package \\w+\n.*?)^```$").FindAllStringSubmatch(text, -1) {
			programs++
			name := "main.go"
			if strings.Contains(block[1], "*testing.T") {
				name = "main_test.go"
			}
			file := filepath.Join(t.TempDir(), name)
			if err := os.WriteFile(file, []byte(block[1]), 0o644); err != nil {
				t.Fatal(err)
			}
			// A file given by its name belongs to the module we are in. To vet it takes less
			// than to link it.
			if out, err := exec.Command("go", "vet", file).CombinedOutput(); err != nil {
				t.Errorf("%s: go vet: %v\n%s\n%s", page, err, out, block[1])
			}
			if formatted, err := format.Source([]byte(block[1])); err != nil || string(formatted) != block[1] {
				t.Errorf("%s: not formatted: %v\n%s", page, err, block[1])
			}
		}
	}
	if programs < 6 {
		t.Errorf("the pages have %d programs, want at least 6", programs)
	}
}

func TestLinks(t *testing.T) {
	links := 0
	for page, text := range pages(t) {
		for _, m := range regexp.MustCompile(`\]\(([^)]+)\)`).FindAllStringSubmatch(text, -1) {
			target, anchor, _ := strings.Cut(m[1], "#")
			if strings.Contains(target, "://") {
				continue
			}
			links++
			path := filepath.Join(filepath.Dir(page), target)
			if target == "" {
				path = page
			}
			b, err := os.ReadFile(path)
			if info, statErr := os.Stat(path); statErr == nil && info.IsDir() && anchor == "" {
				continue
			}
			if err != nil || anchor != "" && !slices.Contains(anchors(string(b)), anchor) {
				t.Errorf("%s: the link %s leads nowhere", page, m[1])
			}
		}
	}
	if links < 10 {
		t.Errorf("the pages have %d links, want at least 10", links)
	}
}

// anchors returns those of the headings, as code hosts make them.
func anchors(text string) (names []string) {
	for _, m := range regexp.MustCompile(`(?m)^#+ (.+)$`).FindAllStringSubmatch(text, -1) {
		name := regexp.MustCompile(`[^\w\- ]`).ReplaceAllString(strings.ToLower(m[1]), "")
		names = append(names, strings.ReplaceAll(name, " ", "-"))
	}
	return names
}

// Who runs the commands of the pages, each block as it is. What CI runs, scripts look for
// by its mark.
var commands = map[string]string{
	"go build -o bin/gracedemo ./gracedemo && bin/gracedemo": "CI",
	"go test ./...": "CI",
	"curl 'http://localhost:48567/sleep/?duration=20s'": "TestWalkThrough of clients",
	"kill -USR2 13774": "TestWalkThrough of clients",
	"curl 'http://localhost:48567/sleep/?duration=0s'": "TestWalkThrough of clients",
	"kill -TERM 13785":                                                             "TestWalkThrough of clients",
	"go build -o gracectl ./cmd/gracectl":                                          "TestReadme of gracectl",
	"gracectl -socket /run/app/control upgrade":                                    "TestReadme of gracectl",
	"gracectl -socket /run/app/control -wait standby upgrade":                      "TestReadme of gracectl",
	"gracectl -socket /run/app/control status":                                     "TestReadme of gracectl",
	"gracectl -socket /run/app/control -wait exit stop":                            "TestReadme of gracectl",
	"go test -race -short ./...":                                                   "CI",
	"go test -run '^$' -bench . ./...":                                             "CI, without the slowest",
	"cd bench && go run . -quick":                                                  "CI, with -smoke",
	"cd bench && go run .":                                                         "CI, with -smoke",
	"go test -run '^$' -fuzz '^FuzzParseMarker$' -fuzztime 30s ./internal/handoff": "CI, for 5 seconds",
}

func TestCommands(t *testing.T) {
	found := make(map[string]bool)
	for page, text := range pages(t) {
		for _, block := range regexp.MustCompile("(?ms)^```sh\n(.*?)^```$").FindAllStringSubmatch(text, -1) {
			for line := range strings.Lines(block[1]) {
				line, _, _ = strings.Cut(line, " #")
				line = strings.TrimSpace(line)
				found[line] = true
				if commands[line] == "" {
					t.Errorf("%s: who runs %q?", page, line)
				}
			}
		}
	}
	for line := range commands {
		if !found[line] && !strings.HasPrefix(line, "cd bench") {
			t.Errorf("no page has the command %q any more", line)
		}
	}
	for name, want := range map[string]string{
		"demo": "go build -o bin/gracedemo ./gracedemo && bin/gracedemo",
		"test": "go test ./...",
	} {
		if mark := "<!-- command: " + name + " -->\n```sh\n" + want + "\n```\n"; !strings.Contains(readme(t), mark) {
			t.Errorf("README.md has no %q", mark)
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
