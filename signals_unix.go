//go:build unix

package grace

import (
	"os"
	"syscall"
)

var restartSignals = []os.Signal{syscall.SIGUSR2}

// raise sends ourselves a signal that is no longer caught.
func raise(sig os.Signal) {
	if s, ok := sig.(syscall.Signal); ok {
		_ = syscall.Kill(os.Getpid(), s)
	}
}
