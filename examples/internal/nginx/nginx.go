//go:build unix

// Package nginx runs the reverse proxy of the examples in tests.
package nginx

import (
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
)

// Start starts nginx with the nginx.conf in the working directory, in which each old
// string is replaced by the new one that follows it. It ends with the test.
func Start(t testing.TB, oldnew ...string) {
	t.Helper()
	conf, err := os.ReadFile("nginx.conf")
	if err != nil {
		t.Fatal(err)
	}
	for i := 0; i < len(oldnew); i += 2 {
		if !strings.Contains(string(conf), oldnew[i]) {
			t.Fatalf("nginx.conf does not have %q", oldnew[i])
		}
	}
	dir := t.TempDir()
	text := strings.NewReplacer(oldnew...).Replace(string(conf))
	if err := os.WriteFile(filepath.Join(dir, "nginx.conf"), []byte(text), 0o644); err != nil {
		t.Fatal(err)
	}
	// Where the test is root its workers would be another user, who may not write to the
	// sockets of the test.
	cmd := exec.Command("nginx", "-p", dir, "-c", "nginx.conf", "-e", "nginx.log", "-g", "daemon off; user root;")
	if err := cmd.Start(); err != nil {
		t.Fatalf("%v; install nginx", err)
	}
	t.Cleanup(func() {
		_ = cmd.Process.Signal(syscall.SIGTERM)
		_ = cmd.Wait()
		if t.Failed() {
			b, _ := os.ReadFile(filepath.Join(dir, "nginx.log"))
			t.Logf("the log of nginx ends with:\n%s", b[max(0, len(b)-5000):])
		}
	})
}
