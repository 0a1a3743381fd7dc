package grace_test

import (
	"encoding/json"
	"errors"
	"go/ast"
	"go/parser"
	"go/token"
	"io"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
)

const module = "github.com/facebookgo/grace"

// imports is policy: which packages of this module each one may import. They run
// one way, no package knows the one above.
var imports = map[string][]string{
	"internal/accept":  {},
	"internal/control": {},
	"internal/framing": {},
	"internal/handoff": {},
	"internal/tee":     {},
	"gracectl":         {"internal/control"},
	"cmd/gracectl":     {"gracectl"},
	"":                 {"gracectl", "internal/accept", "internal/control", "internal/handoff", "internal/tee"},
	"gracenet":         {"", "internal/accept", "internal/handoff"},
	"gracehttp":        {"gracenet", "", "internal/accept", "internal/framing", "internal/handoff", "internal/tee"},
	"gracedemo":        {"", "gracehttp"},

	"internal/proc": {},
	"gracetest":     {"internal/proc"},

	// What only tests import may import what it tests.
	"internal/testbin":          {"gracetest", "internal/proc", "internal/testbin/play", "internal/testbin/script", "gracectl", "gracehttp", "gracenet", ""},
	"internal/testbin/compare":  {},
	"internal/testbin/play":     {},
	"internal/testbin/oldgrace": {"internal/testbin/play"},
	"internal/testbin/script":   {},
}

// requirements are the modules that ours may require. What needs more is a
// module of its own.
var requirements = []string{"github.com/coreos/go-systemd/v22", "golang.org/x/sys"}

func goCommand(t *testing.T, args ...string) []byte {
	t.Helper()
	cmd := exec.Command("go", args...)
	var stderr strings.Builder
	cmd.Stderr = &stderr
	out, err := cmd.Output()
	if err != nil {
		t.Fatalf("go %s: %v\n%s", strings.Join(args, " "), err, stderr.String())
	}
	return out
}

// ownTests are the packages of which the tests, too, know nothing above: they import
// what the package may, and forTests.
const ownTests = "internal/"

var forTests = []string{"gracetest", "internal/testbin/compare"}

func TestImports(t *testing.T) {
	seen := make(map[string]bool)
	for _, system := range []string{"linux", "freebsd", "windows"} {
		t.Run(system, func(t *testing.T) {
			t.Setenv("GOOS", system)
			checkImports(t, seen)
		})
	}
	for name := range imports {
		if !seen[name] {
			t.Errorf("there is no package %q any more", name)
		}
	}
}

func checkImports(t *testing.T, seen map[string]bool) {
	list := json.NewDecoder(strings.NewReader(string(goCommand(t, "list", "-json=ImportPath,Imports,TestImports,XTestImports", "./..."))))
	for {
		var p struct {
			ImportPath                         string
			Imports, TestImports, XTestImports []string
		}
		err := list.Decode(&p)
		if errors.Is(err, io.EOF) {
			return
		}
		if err != nil {
			t.Fatal(err)
		}
		name := inModule(p.ImportPath)
		seen[name] = true
		allowed, ok := imports[name]
		if !ok {
			t.Errorf("%s is a new package: say in this test what it may import", p.ImportPath)
		}
		checkAllowed(t, name, p.Imports, allowed)
		if strings.HasPrefix(name, ownTests) {
			checkAllowed(t, "the test of "+name, append(p.TestImports, p.XTestImports...), slices.Concat(allowed, forTests, []string{name}))
		}
	}
}

func checkAllowed(t *testing.T, who string, paths, allowed []string) {
	t.Helper()
	for _, path := range paths {
		if path != module && !strings.HasPrefix(path, module+"/") {
			continue
		}
		if !slices.Contains(allowed, inModule(path)) {
			t.Errorf("%q must not import %s", who, path)
		}
	}
}

// inModule is the path of a package within this module; the root is empty.
func inModule(path string) string { return strings.TrimPrefix(strings.TrimPrefix(path, module), "/") }

func TestRequirements(t *testing.T) {
	var mod struct {
		Module  struct{ Path string }
		Require []struct{ Path string }
		Replace []struct{ Old, New struct{ Path string } }
	}
	if err := json.Unmarshal(goCommand(t, "mod", "edit", "-json"), &mod); err != nil {
		t.Fatal(err)
	}
	var got []string
	for _, r := range mod.Require {
		got = append(got, r.Path)
	}
	slices.Sort(got)
	if !slices.Equal(got, requirements) {
		t.Errorf("go.mod requires %q, want %q", got, requirements)
	}
	if mod.Module.Path != module || len(mod.Replace) != 0 {
		t.Errorf("go.mod: module %s, replace %v", mod.Module.Path, mod.Replace)
	}
}

// Fd makes the file description blocking, that of the live listener with it: see
// TestDup of internal/handoff.
func TestNoFd(t *testing.T) {
	files := 0
	err := filepath.WalkDir(".", func(path string, d fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		if d.IsDir() {
			_, err := os.Stat(filepath.Join(path, "go.mod"))
			if path != "." && (err == nil || strings.HasPrefix(d.Name(), ".") || path == "internal/testbin") {
				return filepath.SkipDir // other modules, and what only tests import
			}
			return nil
		}
		if !strings.HasSuffix(path, ".go") || strings.HasSuffix(path, "_test.go") {
			return nil
		}
		files++
		set := token.NewFileSet()
		f, err := parser.ParseFile(set, path, nil, parser.SkipObjectResolution)
		if err != nil {
			return err
		}
		ast.Inspect(f, func(n ast.Node) bool {
			call, ok := n.(*ast.CallExpr)
			if !ok {
				return true
			}
			if s, ok := call.Fun.(*ast.SelectorExpr); ok && s.Sel.Name == "Fd" {
				t.Errorf("%v: Fd is called", set.Position(s.Pos()))
			}
			return true
		})
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	if files < 10 {
		t.Errorf("only %d files were found", files)
	}
}
