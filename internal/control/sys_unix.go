//go:build unix

package control

import (
	"fmt"
	"net"
	"os"
	"syscall"

	"golang.org/x/sys/unix"
)

const supported = true

// makePrivate makes the file that bind creates accessible to its owner only, as
// far as the system lets the socket itself have a mode: Linux does.
func makePrivate(c syscall.RawConn) error {
	return c.Control(func(fd uintptr) { _ = unix.Fchmod(int(fd), 0o600) })
}

// mayAsk returns an error unless the client is root or runs as we do. Where the
// system does not tell, the mode of the file has to do.
func mayAsk(c *net.UnixConn) error {
	uid, known, err := peerUID(c)
	if err != nil {
		return fmt.Errorf("permission denied: who asks is not known: %w", err)
	}
	if known && uid != 0 && uid != os.Geteuid() {
		return fmt.Errorf("permission denied to user %d", uid)
	}
	return nil
}
