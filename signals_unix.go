//go:build unix

package grace

import (
	"os"
	"syscall"
)

var restartSignals = []os.Signal{syscall.SIGUSR2}
