package grace_test

import (
	"fmt"
	"go/ast"
	"go/format"
	"go/parser"
	"go/token"
	"io/fs"
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

// pages returns the texts of the repository, by name.
func pages(t *testing.T) map[string]string {
	t.Helper()
	texts := make(map[string]string)
	err := filepath.WalkDir(".", func(name string, d fs.DirEntry, err error) error {
		switch {
		case err != nil:
			return err
		case d.IsDir() && strings.HasPrefix(d.Name(), ".") && name != ".":
			return fs.SkipDir
		case filepath.Ext(name) != ".md":
			return nil
		}
		text, err := os.ReadFile(name)
		texts[filepath.ToSlash(name)] = strings.ReplaceAll(string(text), "\r\n", "\n")
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	return texts
}

func readme(t *testing.T) string {
	t.Helper()
	return pages(t)["README.md"]
}

// block is what stands between two fences.
type block struct{ page, kind, text string }

// blocks returns those of all pages. Each says what it is: a program or a part of one,
// commands, or text that is neither.
func blocks(t *testing.T) (all []block) {
	t.Helper()
	for page, text := range pages(t) {
		var inside *block
		for line := range strings.Lines(text) {
			fence, isFence := strings.CutPrefix(strings.TrimSpace(line), "```")
			switch {
			case !isFence && inside != nil:
				inside.text += line
			case !isFence:
			case inside != nil:
				all, inside = append(all, *inside), nil
			default:
				inside = &block{page: page, kind: fence}
				if !slices.Contains([]string{"go", "sh", "text"}, fence) || !strings.HasPrefix(line, "```") {
					t.Errorf("%s: a block begins with %q, want ```go, ```sh or ```text", page, line)
				}
			}
		}
		if inside != nil {
			t.Errorf("%s: a block has no end:\n%s", page, inside.text)
		}
		if other := regexp.MustCompile(`(?m)^~~~|<code|<pre|href=|src=|^\[[^]]+\]:`).FindString(text); other != "" {
			t.Errorf("%s has %q, in which no test would find a program, a command or a link", page, other)
		}
	}
	return all
}

// around makes a program of a part of one, with what a handler has.
const around = `package main

import (
	"fmt"
	"net/http"

	"github.com/facebookgo/grace/gracehttp"
)

func handle(w http.ResponseWriter, r *http.Request, events chan string) {
%s}

func main() {}
`

func TestPrograms(t *testing.T) {
	programs := 0
	for _, b := range blocks(t) {
		if b.kind != "go" {
			continue
		}
		programs++
		name, program := "main.go", b.text
		if !strings.HasPrefix(program, "package ") {
			program = fmt.Sprintf(around, program)
		}
		if strings.Contains(program, "*testing.T") {
			name = "main_test.go"
		}
		file := filepath.Join(t.TempDir(), name)
		if err := os.WriteFile(file, []byte(program), 0o644); err != nil {
			t.Fatal(err)
		}
		// A file given by its name belongs to the module we are in. To vet it takes less
		// than to link it.
		vet := exec.Command("go", "vet", file)
		vet.Dir = filepath.Dir(b.page)
		if out, err := vet.CombinedOutput(); err != nil {
			t.Errorf("%s: go vet: %v\n%s\n%s", b.page, err, out, program)
		}
		if formatted, err := format.Source([]byte(b.text)); err != nil || string(formatted) != b.text {
			t.Errorf("%s: not formatted: %v\n%s", b.page, err, b.text)
		}
	}
	if programs < 7 {
		t.Errorf("the pages have %d programs, want at least 7", programs)
	}
}

// The first program of README.md, in a module that has only the line with replace that
// stands there, and that was written for an older Go.
func TestReplace(t *testing.T) {
	const line = "\nreplace github.com/facebookgo/grace => "
	if !strings.Contains(readme(t), "```text"+line+"../grace\n```\n") {
		t.Fatalf("README.md has no block with %q", line)
	}
	root, err := os.Getwd()
	if err != nil {
		t.Fatal(err)
	}
	_, program, _ := strings.Cut(readme(t), "```go\n")
	program, _, _ = strings.Cut(program, "```")
	dir := t.TempDir()
	for name, text := range map[string]string{"main.go": program, "go.mod": "module app\n\ngo 1.20\n" + line + root + "\n"} {
		if err := os.WriteFile(filepath.Join(dir, name), []byte(text), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	for _, args := range [][]string{{"mod", "tidy"}, {"vet", "."}} {
		cmd := exec.Command("go", args...)
		cmd.Dir = dir
		// What it needs is there already, since our tests need it, too.
		cmd.Env = append(os.Environ(), "GOFLAGS=", "GOPROXY=off", "GONOSUMDB=*", "GOWORK=off")
		if out, err := cmd.CombinedOutput(); err != nil {
			t.Fatalf("%v: %v\n%s", cmd.Args, err, out)
		}
	}
	mod, err := os.ReadFile(filepath.Join(dir, "go.mod"))
	if err != nil {
		t.Fatal(err)
	}
	if !strings.Contains(string(mod), "\ngo 1.24\n") {
		t.Errorf("go.mod is now\n%swant the line go 1.24 in it", mod)
	}
}

// Pages of others, which somebody must have looked at: a test should need no network.
var external = []string{
	"https://github.com/facebookgo/grace",
	"https://github.com/quic-go/quic-go",
	"https://keepachangelog.com/en/1.1.0/",
	"https://semver.org/spec/v2.0.0.html",
}

func TestLinks(t *testing.T) {
	links := 0
	for page, text := range pages(t) {
		for _, m := range regexp.MustCompile(`\]\(([^)]+)\)`).FindAllStringSubmatch(text, -1) {
			target, anchor, _ := strings.Cut(m[1], "#")
			if strings.Contains(target, "://") {
				if !slices.Contains(external, m[1]) {
					t.Errorf("%s: who has looked at %s?", page, m[1])
				}
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

// runner is who runs a command: a text in a file.
type runner struct{ file, text string }

var (
	walkThrough = runner{"clients/walkthrough_test.go", "func TestWalkThrough("}
	control     = runner{"cmd/gracectl/main_test.go", "func TestReadme("}
	quic        = runner{"examples/quic/readme_test.go", "func TestReadme("}
)

// Who runs the commands of the pages. Those of pages of the examples begin with that.
// What CI does with them, here or in .ci/run, it does with them as they are, but for the
// time that they may take.
var commands = map[string]runner{
	"go build -o bin/gracedemo ./gracedemo && bin/gracedemo": {".ci/run", "demo=$(readme demo)"},
	"go test ./...": {".ci/run", "tests=$(readme test)"},
	"curl 'http://localhost:48567/sleep/?duration=20s'": walkThrough,
	"kill -USR2 13774": walkThrough,
	"curl 'http://localhost:48567/sleep/?duration=0s'": walkThrough,
	"kill -TERM 13785":                                                            walkThrough,
	"go build -o gracectl ./cmd/gracectl":                                         control,
	"gracectl -socket /run/app/control upgrade":                                   control,
	"gracectl -socket /run/app/control -wait standby upgrade":                     control,
	"gracectl -socket /run/app/control status":                                    control,
	"gracectl -socket /run/app/control -wait exit stop":                           control,
	"go test -race -short ./...":                                                  {".ci/run", "run -race -short -count=1 -timeout 60m ./...\n"},
	"go test -run '^$' -bench . -benchtime 1x . ./internal/... ./gracehttp":       {".ci/run", "run -run '^$' -bench . -benchtime 1x -timeout 60m . ./internal/... ./gracehttp\n"},
	"cd bench && go run . -quick":                                                 {".ci/run", "(cd bench && run -race -count=1 -timeout 60m ./... && go run . -quick)\n"},
	"go test -run '^$' -fuzz '^FuzzParseMarker$' -fuzztime 2s ./internal/handoff": {".ci/run", `go test -run '^$' -fuzz "^$target\$" -fuzztime 2s "$pkg"`},
	"go doc ./internal/handoff":                                                   {"pages_test.go", "func TestDocuments("},

	"examples: go test ./...":          {".ci/run", "(cd examples && run -race -count=1 -timeout 60m ./...)\n"},
	"examples: go test -v .":           {".ci/run", "(cd examples && run -race -count=1 -timeout 60m ./...)\n"},
	"examples: go build -o app ./quic": quic,
	"examples: kill -USR2 PID":         quic,
	"examples: openssl req -x509 -newkey ed25519 -nodes -subj /CN=localhost -keyout key.pem -out cert.pem": quic,
	"examples: ./app -addr 127.0.0.1:8443 -cert cert.pem -key key.pem &":                                   quic,
}

func TestCommands(t *testing.T) {
	found := make(map[string]bool)
	check := func(page, command string) {
		if strings.HasPrefix(page, "examples/") {
			command = "examples: " + command
		}
		found[command] = true
		r, ok := commands[command]
		if !ok {
			t.Errorf("%s: who runs %q?", page, command)
			return
		}
		if b, err := os.ReadFile(r.file); err != nil || !strings.Contains(string(b), r.text) {
			t.Errorf("%s: %q is not run any more by %s, where %q was (%v)", page, command, r.file, r.text, err)
		}
	}
	for _, b := range blocks(t) {
		if b.kind != "sh" {
			continue
		}
		for line := range strings.Lines(b.text) {
			line, _, _ = strings.Cut(line, " #")
			check(b.page, strings.TrimSpace(line))
		}
	}
	// Commands of Go in the middle of a sentence.
	for page, text := range pages(t) {
		for _, m := range regexp.MustCompile("`((?:cd \\w+ && )?go (?:build|doc|run|test|vet) [^`]+)`").FindAllStringSubmatch(text, -1) {
			check(page, m[1])
		}
	}
	for command := range commands {
		if !found[command] {
			t.Errorf("no page has the command %q any more", command)
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

// What go doc shows is there, and its links lead somewhere.
func TestDocuments(t *testing.T) {
	document := func(args ...string) string {
		out, err := exec.Command("go", append([]string{"doc"}, args...)...).CombinedOutput()
		if err != nil {
			t.Errorf("go doc %v: %v\n%s", args, err, out)
		}
		return string(out)
	}
	if !strings.Contains(document("./internal/handoff"), "GRACE_HANDOVER=1") {
		t.Error("go doc ./internal/handoff does not tell the protocol")
	}
	for _, dir := range []string{".", "./gracehttp", "./gracenet", "./gracectl", "./gracetest"} {
		// Where go doc finds what a link leads to, the brackets are gone; but it does not
		// look at the comments of fields.
		for _, m := range regexp.MustCompile(`\[\*?([A-Z]\w*(?:\.\w+)?)\]`).FindAllStringSubmatch(document("-all", dir), -1) {
			document(dir, m[1])
		}
	}
}

// Each option of gracehttp has one row in README.md, with the default that its comment
// tells, and each field of grace.Process is there.
func TestReadmeOptions(t *testing.T) {
	_, text, _ := strings.Cut(readme(t), "\n## Options\n")
	text, _, _ = strings.Cut(text, "\n## ")
	rows := make(map[string]string)
	for _, m := range regexp.MustCompile("(?m)^\\| `(\\w+\\(.*?\\))` \\| (.+?) \\| .+ \\|$").FindAllStringSubmatch(text, -1) {
		name, _, _ := strings.Cut(m[1], "(")
		if rows[name] != "" {
			t.Errorf("README.md has the option %s twice", name)
		}
		rows[name] = m[2]
	}
	options, fields := exported(t)
	for name, comment := range options {
		told, ok := map[string]string{
			"1 minute":         "The default is a minute",
			"5 seconds":        "The default is 5 seconds",
			"0.5 seconds":      "The default is half a second",
			"0":                "The default is zero",
			"zero value":       "The default is the zero value",
			"off, on as pid 1": "It is on for a process whose pid is 1",
			"none":             "", // what is not said is not done
			"off":              "",
		}[rows[name]]
		if !ok || !strings.Contains(comment, told) {
			t.Errorf("README.md has the default %q for the option %s, whose comment is\n%s", rows[name], name, comment)
		}
		delete(rows, name)
	}
	for name := range rows {
		t.Errorf("README.md has the option %s, which is none", name)
	}
	for _, name := range fields {
		if !strings.Contains(text, "`"+name+"`") {
			t.Errorf("README.md does not have the field %s of grace.Process", name)
		}
	}
}

// exported returns the options of gracehttp with their comments, and the fields of
// grace.Process.
func exported(t *testing.T) (options map[string]string, fields []string) {
	t.Helper()
	options = make(map[string]string)
	parse := func(name string) *ast.File {
		f, err := parser.ParseFile(token.NewFileSet(), name, nil, parser.SkipObjectResolution|parser.ParseComments)
		if err != nil {
			t.Fatal(err)
		}
		return f
	}
	for _, d := range parse("gracehttp/options.go").Decls {
		f, ok := d.(*ast.FuncDecl)
		if ok && f.Name.IsExported() {
			options[f.Name.Name] = strings.Join(strings.Fields(f.Doc.Text()), " ")
		}
	}
	ast.Inspect(parse("grace.go"), func(n ast.Node) bool {
		if spec, ok := n.(*ast.TypeSpec); ok && spec.Name.Name == "Process" {
			for _, f := range spec.Type.(*ast.StructType).Fields.List {
				fields = append(fields, f.Names[0].Name)
			}
		}
		return true
	})
	return options, fields
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
