//go:build !linux

package gracehttp

import "net"

// nothingReceived is not known here: half a request may have been received.
// http.Server.Shutdown waits five seconds for the rest of it.
func nothingReceived(*net.TCPConn) bool { return false }
