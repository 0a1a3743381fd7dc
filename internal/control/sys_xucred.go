//go:build darwin || freebsd

package control

import (
	"net"

	"golang.org/x/sys/unix"
)

func peerUID(c *net.UnixConn) (uid int, known bool, err error) {
	err = withFD(c, func(fd int) error {
		cred, err := unix.GetsockoptXucred(fd, unix.SOL_LOCAL, unix.LOCAL_PEERCRED)
		if err == nil {
			uid, known = int(cred.Uid), true
		}
		return err
	})
	return uid, known, err
}

func peerPID(*net.UnixConn) (pid int, known bool) { return 0, false }
