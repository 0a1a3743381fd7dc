//go:build !unix

package accept

import "net"

// queued is not known here; the deadline of Accept must do.
func queued(net.Listener) bool { return false }
