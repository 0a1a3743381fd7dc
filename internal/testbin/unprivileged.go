//go:build unix

package testbin

import (
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"syscall"
	"testing"
)

// nobody is the user that unprivileged processes get.
const nobody = 65534

// Shared is a temporary directory that other users can use.
func Shared(t *testing.T) string {
	t.Helper()
	dir := t.TempDir()
	share(t, dir)
	return dir
}

// share lets everybody into dir, which TempDir has made.
func share(t testing.TB, dir string) {
	t.Helper()
	for _, d := range []string{dir, filepath.Dir(dir)} {
		if err := os.Chmod(d, 0o777); err != nil {
			t.Fatal(err)
		}
	}
}

// Unprivileged starts the service without root's exemption from limits and
// permissions. Where the tests do not run as root it does nothing.
func Unprivileged() Option {
	return func(s *Service, cmd *exec.Cmd) {
		if os.Getuid() != 0 {
			return
		}
		share(s.t, s.Dir())
		program := filepath.Join(s.Dir(), "program")
		if err := copyFile(program, s.Path()); err != nil {
			s.t.Fatal(err)
		}
		s.Install(program)
		if err := os.Chmod(filepath.Join(s.Dir(), "config"), 0o644); err != nil {
			s.t.Fatal(err)
		}
		cmd.SysProcAttr = &syscall.SysProcAttr{Credential: &syscall.Credential{Uid: nobody, Gid: nobody}}
	}
}

func copyFile(to, from string) error {
	r, err := os.Open(from)
	if err != nil {
		return err
	}
	defer r.Close()
	w, err := os.OpenFile(to, os.O_CREATE|os.O_WRONLY, 0o755)
	if err != nil {
		return err
	}
	defer w.Close()
	if _, err := io.Copy(w, r); err != nil {
		return err
	}
	return w.Close()
}
