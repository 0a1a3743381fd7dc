//go:build unix

package gracetest

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
)

// process tells a process from another one that gets its pid later.
type process struct {
	pid   int
	start uint64 // when it was started, where that is known
}

// stat is what /proc/PID/stat says, see proc_pid_stat(5).
type stat struct {
	process
	parent  int
	state   byte
	threads int
}

// exited reports whether the process has. While a thread executes a program anew the
// first one is a zombie, too.
func (s stat) exited() bool { return (s.state == 'Z' || s.state == 'X') && s.threads <= 1 }

// readStat fails for a process that has gone, and where there is no /proc.
func readStat(pid int) (stat, error) {
	b, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
	if err != nil {
		return stat{}, err
	}
	// pid (name) state parent; field 20 is the number of threads and 22 the start. The
	// name may hold anything.
	end := strings.LastIndexByte(string(b), ')')
	fields := strings.Fields(string(b[end+1:]))
	if end < 0 || len(fields) < 20 {
		return stat{}, fmt.Errorf("/proc/%d/stat: %q", pid, b)
	}
	s := stat{process: process{pid: pid}, state: fields[0][0]}
	if _, err := fmt.Sscan(fields[1], &s.parent); err != nil {
		return stat{}, err
	}
	_, err = fmt.Sscan(fields[17]+" "+fields[19], &s.threads, &s.start)
	return s, err
}

// pids returns those that /proc has.
func pids() []int {
	names, _ := filepath.Glob("/proc/[0-9]*")
	var pids []int
	for _, name := range names {
		var pid int
		if _, err := fmt.Sscanf(name, "/proc/%d", &pid); err == nil {
			pids = append(pids, pid)
		}
	}
	return pids
}

// family returns the processes that have a variable in their environment, which is
// theirs and that of what they start, those that are known, and the children of all these:
// some servers write over their environment, to have a title in its place.
func family(variable string, known map[process]bool) []process {
	var found, others []stat
	isOurs := make(map[int]bool)
	for _, pid := range pids() {
		s, err := readStat(pid)
		if err != nil || pid == os.Getpid() || s.exited() {
			continue
		}
		if known[s.process] {
			found, isOurs[pid] = append(found, s), true
			continue
		}
		b, _ := os.ReadFile(fmt.Sprintf("/proc/%d/environ", pid))
		if strings.Contains("\x00"+string(b)+"\x00", "\x00"+variable+"\x00") {
			found, isOurs[pid] = append(found, s), true
		} else {
			others = append(others, s)
		}
	}
	for more := true; more; {
		more = false
		others = slices.DeleteFunc(others, func(s stat) bool {
			if !isOurs[s.parent] {
				return false
			}
			found, isOurs[s.pid], more = append(found, s), true, true
			return true
		})
	}
	family := make([]process, len(found))
	for i, s := range found {
		family[i] = s.process
	}
	return family
}

// inGroup returns the processes of a process group: what there is without /proc.
func inGroup(group int) []process {
	out, err := exec.Command("ps", "-A", "-o", "pid=", "-o", "pgid=", "-o", "stat=").Output()
	if err != nil {
		return nil
	}
	var found []process
	for line := range strings.Lines(string(out)) {
		var p process
		var of int
		var state string
		if _, err := fmt.Sscan(line, &p.pid, &of, &state); err == nil && of == group && !strings.HasPrefix(state, "Z") {
			found = append(found, p)
		}
	}
	return found
}

// Children returns the pids of the children of a process, zombies too. It needs /proc.
func Children(t TB, pid int) []int {
	t.Helper()
	all := pids()
	if len(all) == 0 {
		t.Fatalf("no /proc")
	}
	var children []int
	for _, p := range all {
		// One that can't be read has gone since.
		if s, err := readStat(p); err == nil && s.parent == pid {
			children = append(children, p)
		}
	}
	return children
}

// ResidentKB is the memory of a process in KiB. It needs /proc.
func ResidentKB(t TB, pid int) int {
	t.Helper()
	b, err := os.ReadFile(fmt.Sprintf("/proc/%d/statm", pid))
	var size, pages int
	if err == nil {
		_, err = fmt.Sscan(string(b), &size, &pages)
	}
	if err != nil {
		t.Fatalf("memory of process %d: %v", pid, err)
	}
	return pages * os.Getpagesize() / 1024
}
