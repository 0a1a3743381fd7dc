package grace

import (
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"

	"github.com/facebookgo/grace/internal/handoff"
)

// pidFile is where the PID file of p is.
func (p *Process) pidFile() string { return handoff.This().Absolute(p.PIDFile) }

// writePIDFile puts the pid of this process in the PID file, in one step: a
// reader finds the old one or the new one, and an error leaves the old one there. It
// does nothing where another process is the one to name: the child that has taken
// over, or, in the interim, the parent that comes back.
func (p *Process) writePIDFile() error {
	if h := handoff.This(); p.PIDFile == "" || h.Interim() || h.Heir() != nil {
		return nil
	}
	path := p.pidFile()
	err := replaceFile(path, strconv.Itoa(os.Getpid())+"\n")
	if err != nil {
		return fmt.Errorf("grace: write PID file %s: %w", path, err)
	}
	return nil
}

// restorePIDFile writes the PID file if it does not name this process.
func (p *Process) restorePIDFile() error {
	if p.inPIDFile() {
		return nil
	}
	return p.writePIDFile()
}

// inPIDFile reports whether the PID file names this process.
func (p *Process) inPIDFile() bool {
	if p.PIDFile == "" {
		return false
	}
	b, err := os.ReadFile(p.pidFile())
	return err == nil && strings.TrimSpace(string(b)) == strconv.Itoa(os.Getpid())
}

func replaceFile(path, content string) (err error) {
	f, err := os.CreateTemp(filepath.Dir(path), "."+filepath.Base(path)+".*")
	if err != nil {
		return err
	}
	defer func() {
		if err != nil {
			_ = os.Remove(f.Name())
		}
	}()
	_, err = f.WriteString(content)
	if err == nil {
		err = f.Chmod(0o644)
	}
	if closeErr := f.Close(); err == nil {
		err = closeErr
	}
	if err != nil {
		return err
	}
	return os.Rename(f.Name(), path)
}

// removePIDFile removes the PID file if it names this process: nobody comes
// after it.
func (p *Process) removePIDFile() {
	if handoff.This().Heir() != nil || !p.inPIDFile() {
		return
	}
	if err := os.Remove(p.pidFile()); err != nil {
		p.log(stepExit).Warn("PID file is left behind", "error", err)
	}
}
