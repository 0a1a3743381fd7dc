package grace

import (
	"encoding/binary"
	"os"
	"os/signal"
	"syscall"
	"time"
	"unsafe"

	"golang.org/x/sys/unix"
)

// orphanAge is how long a process that has ended is left to whoever has started it
// and will want to know how it ended.
const orphanAge = 2 * time.Second

// reapOrphans does what the first process of a system or a container must do, until
// quit is closed: processes whose parents have died become its children, and
// nobody waits for them. It reaps one in orphanAge at most: how long another one has
// been there, whose exit status somebody may still want, is not known.
func reapOrphans(quit <-chan struct{}) {
	ended := make(chan os.Signal, 1)
	signal.Notify(ended, syscall.SIGCHLD)
	defer signal.Stop(ended)
	for {
		pid := zombie()
		if pid == 0 {
			select {
			case <-ended:
				continue
			case <-quit:
				return
			}
		}
		select {
		case <-time.After(orphanAge):
		case <-quit:
			return
		}
		if zombie() == pid {
			_, _ = unix.Wait4(pid, nil, unix.WNOHANG, nil)
		}
	}
}

// zombie returns the pid of a child that has ended and is not reaped, or 0.
func zombie() int {
	var info unix.Siginfo
	err := unix.Waitid(unix.P_ALL, 0, &info, unix.WEXITED|unix.WNOHANG|unix.WNOWAIT, nil)
	if err != nil || info.Signo == 0 {
		return 0
	}
	// The pid follows three numbers, aligned for what else may stand there.
	b := (*[unsafe.Sizeof(info)]byte)(unsafe.Pointer(&info))
	offset := 12
	if unsafe.Sizeof(uintptr(0)) == 8 {
		offset = 16
	}
	return int(binary.NativeEndian.Uint32(b[offset:]))
}
