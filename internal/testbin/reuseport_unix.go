//go:build unix && !solaris

package testbin

import "golang.org/x/sys/unix"

// reusePort lets the address of a socket be that of others, too.
func reusePort(fd int) error { return unix.SetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_REUSEPORT, 1) }
