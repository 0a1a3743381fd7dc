//go:build !unix

package grace

import "net"

// unread is not known.
func unread(net.Conn) bool { return false }

// hangUp would not wake a Read.
func hangUp(net.Conn) bool { return false }
