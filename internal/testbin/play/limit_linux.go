package play

import (
	"runtime"
	"sync"
	"syscall"

	"golang.org/x/sys/unix"
)

// limit sets a resource limit of this process, as setrlimit(2) does. The hard
// limit stays.
func limit(resource int, value uint64) string {
	var l syscall.Rlimit
	if err := syscall.Getrlimit(resource, &l); err != nil {
		return err.Error()
	}
	if resource == unix.RLIMIT_NPROC && value < l.Cur { // afterwards none can be made
		makeThreads(64)
	}
	l.Cur = min(value, l.Max)
	if err := syscall.Setrlimit(resource, &l); err != nil {
		return err.Error()
	}
	return "limited"
}

// makeThreads makes n threads for the runtime to use later: it dies if it wants
// one that the limit forbids.
func makeThreads(n int) {
	var begun, ended sync.WaitGroup
	all := make(chan struct{})
	begun.Add(n)
	for range n {
		ended.Add(1)
		go func() {
			defer ended.Done()
			runtime.LockOSThread()
			defer runtime.UnlockOSThread()
			begun.Done()
			<-all
		}()
	}
	begun.Wait()
	close(all)
	ended.Wait()
}
