//go:build unix && !solaris

package gracenet

import (
	"os"

	"golang.org/x/sys/unix"
)

// lockDir keeps others that do the same out of a directory. The lock is on the
// directory itself, so that no file is left behind.
func lockDir(dir string) (unlock func(), err error) {
	f, err := os.Open(dir)
	if err != nil {
		return nil, err
	}
	raw, err := f.SyscallConn()
	if err == nil {
		controlErr := raw.Control(func(fd uintptr) {
			for {
				if err = unix.Flock(int(fd), unix.LOCK_EX); err != unix.EINTR {
					return
				}
			}
		})
		if err == nil {
			err = controlErr
		}
	}
	if err != nil {
		_ = f.Close()
		return nil, os.NewSyscallError("flock", err)
	}
	return func() { _ = f.Close() }, nil
}
