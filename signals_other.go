//go:build !unix

package grace

import "os"

// No signal restarts where sockets can't be passed on.
var restartSignals []os.Signal

// raise ends the process as a signal does.
func raise(os.Signal) { os.Exit(2) }
