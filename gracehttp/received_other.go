//go:build !linux

package gracehttp

import (
	"net"
	"time"
)

// receivedAfterSent is not known here. http.Server.Shutdown waits five seconds for
// the first request of a connection.
func receivedAfterSent(net.Conn) (received bool, ago time.Duration, known bool) {
	return false, 0, false
}
