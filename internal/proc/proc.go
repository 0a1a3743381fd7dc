//go:build unix

// Package proc says what a test wants to know of processes that are not its own. It
// reads /proc, which Linux has, but for [InGroup].
package proc

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
)

// Process tells a process from another one that gets its pid later.
type Process struct {
	PID   int
	Start uint64 // when it was started, where that is known
}

// Stat is what /proc/PID/stat says, see proc_pid_stat(5).
type Stat struct {
	Process
	Parent  int
	State   byte
	Threads int
}

// Exited reports whether the process has. While a thread executes a program anew the
// first one is a zombie, too.
func (s Stat) Exited() bool { return (s.State == 'Z' || s.State == 'X') && s.Threads <= 1 }

// ReadStat fails for a process that has gone, and where there is no /proc.
func ReadStat(pid int) (Stat, error) {
	b, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
	if err != nil {
		return Stat{}, err
	}
	// pid (name) state parent; field 20 is the number of threads and 22 the start. The
	// name may hold anything.
	end := strings.LastIndexByte(string(b), ')')
	fields := strings.Fields(string(b[end+1:]))
	if end < 0 || len(fields) < 20 {
		return Stat{}, fmt.Errorf("/proc/%d/stat: %q", pid, b)
	}
	s := Stat{Process: Process{PID: pid}, State: fields[0][0]}
	if _, err := fmt.Sscan(fields[1], &s.Parent); err != nil {
		return Stat{}, err
	}
	_, err = fmt.Sscan(fields[17]+" "+fields[19], &s.Threads, &s.Start)
	return s, err
}

// PIDs returns those that /proc has: none where there is no /proc.
func PIDs() []int {
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

// Family returns the processes that have a variable in their environment, which is
// theirs and that of what they start, those that are known, and the children of all these:
// some servers write over their environment, to have a title in its place. This process
// is none of them.
func Family(variable string, known map[Process]bool) []Process {
	var found, others []Stat
	isOurs := make(map[int]bool)
	for _, pid := range PIDs() {
		s, err := ReadStat(pid)
		if err != nil || pid == os.Getpid() || s.Exited() {
			continue
		}
		if known[s.Process] {
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
		others = slices.DeleteFunc(others, func(s Stat) bool {
			if !isOurs[s.Parent] {
				return false
			}
			found, isOurs[s.PID], more = append(found, s), true, true
			return true
		})
	}
	family := make([]Process, len(found))
	for i, s := range found {
		family[i] = s.Process
	}
	return family
}

// InGroup returns the processes of a process group, without their starts: what there is
// where there is no /proc.
func InGroup(group int) []Process {
	out, err := exec.Command("ps", "-A", "-o", "pid=", "-o", "pgid=", "-o", "stat=").Output()
	if err != nil {
		return nil
	}
	var found []Process
	for line := range strings.Lines(string(out)) {
		var p Process
		var of int
		var state string
		if _, err := fmt.Sscan(line, &p.PID, &of, &state); err == nil && of == group && !strings.HasPrefix(state, "Z") {
			found = append(found, p)
		}
	}
	return found
}

// Children returns the pids of the children of a process, zombies too.
func Children(pid int) ([]int, error) {
	all := PIDs()
	if len(all) == 0 {
		return nil, errors.New("children of a process: there is no /proc")
	}
	var children []int
	for _, p := range all {
		// One that can't be read has gone since.
		if s, err := ReadStat(p); err == nil && s.Parent == pid {
			children = append(children, p)
		}
	}
	return children, nil
}

// ResidentKB is the memory of a process in KiB.
func ResidentKB(pid int) (int, error) {
	b, err := os.ReadFile(fmt.Sprintf("/proc/%d/statm", pid))
	var size, pages int
	if err == nil {
		_, err = fmt.Sscan(string(b), &size, &pages)
	}
	if err != nil {
		return 0, fmt.Errorf("memory of process %d: %w", pid, err)
	}
	return pages * os.Getpagesize() / 1024, nil
}
