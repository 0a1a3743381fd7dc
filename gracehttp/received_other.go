//go:build !linux

package gracehttp

import "net"

// receivedAfterSent is not known here. http.Server.Shutdown waits five seconds for
// the first request of a connection.
func receivedAfterSent(net.Conn) (received, known bool) { return false, false }

// unread is not known.
func unread(net.Conn) bool { return false }
