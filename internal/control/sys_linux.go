package control

import (
	"net"

	"golang.org/x/sys/unix"
)

func peer(c *net.UnixConn) (cred *unix.Ucred, err error) {
	err = withFD(c, func(fd int) error {
		cred, err = unix.GetsockoptUcred(fd, unix.SOL_SOCKET, unix.SO_PEERCRED)
		return err
	})
	return cred, err
}

func peerUID(c *net.UnixConn) (uid int, known bool, err error) {
	cred, err := peer(c)
	if err != nil {
		return 0, false, err
	}
	return int(cred.Uid), true, nil
}

// peerPID is the pid of the process on the other side. It is 0 for one that this
// process can't see.
func peerPID(c *net.UnixConn) (pid int, known bool) {
	cred, err := peer(c)
	if err != nil {
		return 0, false
	}
	return int(cred.Pid), true
}
