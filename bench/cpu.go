//go:build linux

package main

import (
	"fmt"
	"path/filepath"
	"runtime"
	"strconv"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

// cpuTime returns how much time of processors a process has used, all its threads
// together. It is this one for 0.
func cpuTime(t *scope, pid int) time.Duration {
	t.Helper()
	id := int32(unix.CLOCK_PROCESS_CPUTIME_ID)
	if pid != 0 {
		const cpuClockSched = 2 // see clock_getcpuclockid(3): the precise one of a process
		id = int32(^pid)<<3 | cpuClockSched
	}
	var ts unix.Timespec
	if err := unix.ClockGettime(id, &ts); err != nil {
		t.Fatalf("processor time of process %d: %v", pid, err)
	}
	return time.Duration(ts.Nano())
}

// cpuTimeOfChildren returns how much time of processors those have used that this process
// has started and waited for.
func cpuTimeOfChildren(t *scope) time.Duration {
	t.Helper()
	var u syscall.Rusage
	if err := syscall.Getrusage(syscall.RUSAGE_CHILDREN, &u); err != nil {
		t.Fatalf("processor time of children: %v", err)
	}
	return time.Duration(u.Utime.Nano() + u.Stime.Nano())
}

// settledCPUTime waits until a process does next to nothing any more, and returns its
// processor time then. Nothing announces that. A machine that is busy with something else may
// never let it rest, so it does not wait for long.
func settledCPUTime(t *scope, pid int) time.Duration {
	t.Helper()
	const (
		look  = 30 * time.Millisecond
		still = 300 * time.Microsecond // what there always is: the runtime of Go looks around
		times = 2
		most  = 20
	)
	last := cpuTime(t, pid)
	for n, looks := 0, 0; n < times && looks < most; looks++ {
		t.sleep(look)
		now := cpuTime(t, pid)
		if n++; now-last > still {
			n = 0
		}
		last = now
	}
	return last
}

// onCPUs runs start on a thread that may run on some processors only. What start starts
// inherits that.
func onCPUs(t *scope, cpus []int, start func()) {
	t.Helper()
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	var before unix.CPUSet
	err := unix.SchedGetaffinity(0, &before)
	if err == nil {
		err = setAffinity(0, cpus)
	}
	if err != nil {
		t.Fatalf("choose processors: %v", err)
	}
	defer func() { _ = unix.SchedSetaffinity(0, &before) }()
	start()
}

// pin lets this process run on some processors only, until the end of the part.
func pin(t *scope, cpus []int) {
	t.Helper()
	all, err := availableCPUs()
	if err != nil {
		t.Fatalf("choose processors: %v", err)
	}
	before := runtime.GOMAXPROCS(len(cpus))
	t.Cleanup(func() {
		runtime.GOMAXPROCS(before)
		_ = setAllAffinities(all)
	})
	if err := setAllAffinities(cpus); err != nil {
		t.Fatalf("choose processors: %v", err)
	}
}

// setAllAffinities does so for the threads that there are. Later ones inherit it.
func setAllAffinities(cpus []int) error {
	tasks, _ := filepath.Glob("/proc/self/task/*")
	for _, task := range tasks {
		id, err := strconv.Atoi(filepath.Base(task))
		if err != nil {
			return err
		}
		if err := setAffinity(id, cpus); err != nil && err != unix.ESRCH {
			return err
		}
	}
	return nil
}

func setAffinity(thread int, cpus []int) error {
	var set unix.CPUSet
	for _, cpu := range cpus {
		set.Set(cpu)
	}
	return unix.SchedSetaffinity(thread, &set)
}

// availableCPUs returns the processors that this process may run on.
func availableCPUs() ([]int, error) {
	var set unix.CPUSet
	if err := unix.SchedGetaffinity(0, &set); err != nil {
		return nil, fmt.Errorf("processors of this process: %w", err)
	}
	var cpus []int
	for cpu := range 64 * len(set) {
		if set.IsSet(cpu) {
			cpus = append(cpus, cpu)
		}
	}
	return cpus, nil
}

// raiseLimit lets this process have as many descriptors as it may. Go does so by itself, but
// gives what it starts the limit of before.
func raiseLimit() (limit int, err error) {
	var l syscall.Rlimit
	if err := syscall.Getrlimit(syscall.RLIMIT_NOFILE, &l); err != nil {
		return 0, fmt.Errorf("limit of descriptors: %w", err)
	}
	l.Cur = l.Max
	if err := syscall.Setrlimit(syscall.RLIMIT_NOFILE, &l); err != nil {
		return 0, fmt.Errorf("limit of descriptors: %w", err)
	}
	return int(min(l.Cur, 1<<30)), nil
}
