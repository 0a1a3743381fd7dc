//go:build unix

package proc_test

import (
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"syscall"
	"testing"

	"github.com/facebookgo/grace/gracetest"
	"github.com/facebookgo/grace/internal/proc"
)

// sleeper is a process that does nothing, with these files.
func sleeper(t *testing.T, path string, attr *syscall.SysProcAttr, files ...*os.File) *exec.Cmd {
	t.Helper()
	cmd := exec.Command(path, "1000")
	cmd.ExtraFiles, cmd.SysProcAttr = files, attr
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		_ = cmd.Process.Kill()
		_ = cmd.Wait()
	})
	return cmd
}

// Without /proc the processes of a service are found by their group.
func TestInGroup(t *testing.T) {
	leader := sleeper(t, "/bin/sleep", &syscall.SysProcAttr{Setpgid: true}).Process.Pid
	second := sleeper(t, "/bin/sleep", &syscall.SysProcAttr{Setpgid: true, Pgid: leader})
	sleeper(t, "/bin/sleep", &syscall.SysProcAttr{Setpgid: true}) // has another one
	found := func() (pids []int) {
		for _, p := range proc.InGroup(leader) {
			pids = append(pids, p.PID)
		}
		slices.Sort(pids)
		return pids
	}
	want := []int{leader, second.Process.Pid}
	slices.Sort(want)
	if got := found(); !slices.Equal(got, want) {
		t.Errorf("the group has %v, want %v", got, want)
	}
	// One that has exited is none, whether or not anyone has waited for it.
	if err := second.Process.Kill(); err != nil {
		t.Fatal(err)
	}
	gracetest.Poll(t, "the group to have one process", func() bool { return slices.Equal(found(), []int{leader}) })
	_ = second.Wait()
	if got := found(); !slices.Equal(got, []int{leader}) {
		t.Errorf("the group has %v, want %d", got, leader)
	}
}

// The name of a process may hold anything.
func TestReadStat(t *testing.T) {
	name := filepath.Join(t.TempDir(), "a) Z (b")
	if err := os.Symlink("/bin/sleep", name); err != nil {
		t.Fatal(err)
	}
	cmd := sleeper(t, name, nil)
	s, err := proc.ReadStat(cmd.Process.Pid)
	if err != nil || s.Parent != os.Getpid() || s.Exited() || s.Threads != 1 || s.Start == 0 {
		t.Errorf("got %+v, %v", s, err)
	}
	if err := cmd.Process.Kill(); err != nil {
		t.Fatal(err)
	}
	gracetest.Poll(t, "the process to be a zombie", func() bool {
		s, err := proc.ReadStat(cmd.Process.Pid)
		return err == nil && s.Exited()
	})
}

func TestChildren(t *testing.T) {
	child := sleeper(t, "/bin/sleep", nil)
	children := func() []int {
		t.Helper()
		children, err := proc.Children(os.Getpid())
		if err != nil {
			t.Fatal(err)
		}
		return children
	}
	if got := children(); !slices.Contains(got, child.Process.Pid) {
		t.Errorf("the children are %v, want %d among them", got, child.Process.Pid)
	}
	if err := child.Process.Kill(); err != nil {
		t.Fatal(err)
	}
	gracetest.Poll(t, "the process to be a zombie", func() bool {
		s, err := proc.ReadStat(child.Process.Pid)
		return err == nil && s.Exited()
	})
	if got := children(); !slices.Contains(got, child.Process.Pid) {
		t.Errorf("the children are %v, want the zombie %d among them", got, child.Process.Pid)
	}
	_ = child.Wait()
	if got := children(); slices.Contains(got, child.Process.Pid) {
		t.Errorf("the children are %v, also when %d was waited for", got, child.Process.Pid)
	}
}

func TestResidentKB(t *testing.T) {
	if kb, err := proc.ResidentKB(os.Getpid()); err != nil || kb < 1<<10 || kb > 1<<22 {
		t.Errorf("this process has %d KiB, %v", kb, err)
	}
	if kb, err := proc.ResidentKB(-1); err == nil {
		t.Errorf("no process has %d KiB", kb)
	}
}
