//go:build unix

package handoff

import (
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"strconv"
	"syscall"

	"golang.org/x/sys/unix"
)

// identify returns the identity of what fd is open on.
func identify(fd int) (fileID, error) {
	var st unix.Stat_t
	if err := unix.Fstat(fd, &st); err != nil {
		return fileID{}, os.NewSyscallError("fstat", err)
	}
	return fileID{uint64(st.Dev), st.Ino}, nil
}

// socketAt returns the identity of the file at path, if that is a unix socket.
func socketAt(path string) (id fileID, ok bool) {
	var st unix.Stat_t
	if err := unix.Lstat(path, &st); err != nil || st.Mode&unix.S_IFMT != unix.S_IFSOCK {
		return fileID{}, false
	}
	return fileID{uint64(st.Dev), st.Ino}, true
}

// fdLimit is one more than the largest descriptor this process can have.
func fdLimit() uint64 {
	var rl unix.Rlimit
	if err := unix.Getrlimit(unix.RLIMIT_NOFILE, &rl); err != nil {
		return 1 << 20
	}
	return min(uint64(rl.Cur), 1<<20)
}

// passedTo reports whether fd was passed to this process when it was started.
// Descriptors that a Go program opens itself are close-on-exec.
func passedTo(fd int) bool {
	flags, err := unix.FcntlInt(uintptr(fd), unix.F_GETFD, 0)
	return err == nil && flags&unix.FD_CLOEXEC == 0
}

// sockType is SO_TYPE of a socket that listens, or is one for datagrams.
type sockType int

const (
	notSocket    sockType = 0
	streamSocket sockType = unix.SOCK_STREAM
)

func (t sockType) isDatagram() bool { return t == unix.SOCK_DGRAM }

// checkSocket returns an error unless fd is a socket that listens or one for
// datagrams. Both are what a service manager or a parent may pass.
func checkSocket(fd int) (sockType, error) {
	typ, err := unix.GetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_TYPE)
	if err != nil {
		return notSocket, os.NewSyscallError("getsockopt", err)
	}
	if typ == unix.SOCK_DGRAM {
		return sockType(typ), nil
	}
	listens, err := unix.GetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_ACCEPTCONN)
	if err != nil {
		return notSocket, os.NewSyscallError("getsockopt", err)
	}
	if listens == 0 {
		return notSocket, errors.New("socket does not listen, or is connected")
	}
	return sockType(typ), nil
}

// socketAddr returns the local address of the socket fd, as package net would name
// it. It is nil for one that package net can't serve.
func socketAddr(fd int, typ sockType) net.Addr {
	sa, err := unix.Getsockname(fd)
	if err != nil {
		return nil
	}
	inet := func(ip net.IP, port int, zone string) net.Addr {
		if typ.isDatagram() {
			return &net.UDPAddr{IP: ip, Port: port, Zone: zone}
		}
		return &net.TCPAddr{IP: ip, Port: port, Zone: zone}
	}
	switch sa := sa.(type) {
	case *unix.SockaddrInet4:
		return inet(sa.Addr[:], sa.Port, "")
	case *unix.SockaddrInet6:
		zone := ""
		if sa.ZoneId != 0 {
			zone = strconv.Itoa(int(sa.ZoneId))
			if ifi, err := net.InterfaceByIndex(int(sa.ZoneId)); err == nil {
				zone = ifi.Name
			}
		}
		return inet(sa.Addr[:], sa.Port, zone)
	case *unix.SockaddrUnix:
		network := "unix"
		switch typ {
		case unix.SOCK_SEQPACKET:
			network = "unixpacket"
		case unix.SOCK_DGRAM:
			network = "unixgram"
		}
		return &net.UnixAddr{Name: sa.Name, Net: network}
	}
	return nil
}

// nonblock makes fd non-blocking. The file description may be shared with a parent,
// which uses it so as well.
func nonblock(fd int) error {
	flags, err := unix.FcntlInt(uintptr(fd), unix.F_GETFL, 0)
	if err == nil && flags&unix.O_NONBLOCK == 0 {
		err = unix.SetNonblock(fd, true)
	}
	return os.NewSyscallError("fcntl", err)
}

func setCloseOnExec(fd int) { unix.CloseOnExec(fd) }

// maxTable bounds a table: it has some bytes for each descriptor of a process.
const maxTable = 256 << 20

// readTable returns what a parent has written to the table fd, if that is what fd is.
// It takes nothing away from what else fd might be.
func readTable(fd int, inode uint64) (string, error) {
	id, err := identify(fd)
	if err != nil {
		return "", err
	}
	if id.ino != inode || !passedTo(fd) {
		return "", errors.New("another descriptor is in the place of the table")
	}
	unix.CloseOnExec(fd)
	f := os.NewFile(uintptr(fd), "table")
	defer f.Close()
	b, err := io.ReadAll(io.NewSectionReader(f, 0, maxTable))
	return string(b), err
}

// writeTable makes a table. Its descriptor is close-on-exec.
func writeTable(text string) (fd int, inode uint64, err error) {
	f, err := anonymousFile()
	if err != nil {
		return -1, 0, fmt.Errorf("make the table of sockets: %w", err)
	}
	defer f.Close()
	if _, err := f.WriteString(text); err != nil {
		return -1, 0, fmt.Errorf("write the table of sockets: %w", err)
	}
	if fd, err = dup(f); err != nil {
		return -1, 0, fmt.Errorf("pass the table of sockets: %w", err)
	}
	id, err := identify(fd)
	if err != nil {
		closeFD(fd)
		return -1, 0, fmt.Errorf("pass the table of sockets: %w", err)
	}
	return fd, id.ino, nil
}

// temporaryFile is an anonymous file where there is nothing better.
func temporaryFile() (*os.File, error) {
	f, err := os.CreateTemp("", "grace")
	if err != nil {
		return nil, err
	}
	if err := os.Remove(f.Name()); err != nil {
		_ = f.Close()
		return nil, err
	}
	return f, nil
}

// dup returns a duplicate of c's descriptor that is close-on-exec. It leaves
// O_NONBLOCK of the file description alone, which File and Fd do not.
func dup(c syscall.Conn) (int, error) {
	raw, err := c.SyscallConn()
	if err != nil {
		return -1, err
	}
	fd := -1
	var dupErr error
	err = raw.Control(func(s uintptr) {
		fd, dupErr = unix.FcntlInt(s, unix.F_DUPFD_CLOEXEC, firstFD)
	})
	if err == nil {
		err = os.NewSyscallError("fcntl", dupErr)
	}
	if err != nil {
		return -1, err
	}
	return fd, nil
}

// open reports whether c is still open, and which socket it is.
func open(c syscall.Conn) (id fileID, ok bool) {
	raw, err := c.SyscallConn()
	if err != nil {
		return fileID{}, false
	}
	err = raw.Control(func(fd uintptr) { id, _ = identify(int(fd)) })
	return id, err == nil
}

// setNonblock makes c non-blocking if it is open, and reports whether it was not.
func setNonblock(c syscall.Conn) (changed bool) {
	raw, err := c.SyscallConn()
	if err != nil {
		return false
	}
	_ = raw.Control(func(fd uintptr) {
		flags, err := unix.FcntlInt(fd, unix.F_GETFL, 0)
		if err == nil && flags&unix.O_NONBLOCK == 0 {
			changed = unix.SetNonblock(int(fd), true) == nil
		}
	})
	return changed
}

// enter tells why a process could not be started in dir.
func enter(dir string) error {
	st, err := os.Stat(dir)
	if err == nil && !st.IsDir() {
		err = &os.PathError{Op: "chdir", Path: dir, Err: unix.ENOTDIR}
	}
	if err == nil {
		if accessErr := unix.Faccessat(unix.AT_FDCWD, dir, unix.X_OK, unix.AT_EACCESS); accessErr != nil {
			err = &os.PathError{Op: "chdir", Path: dir, Err: accessErr}
		}
	}
	return err
}

// awaitReadable waits until something was sent to c, or there is nothing to wait for.
func awaitReadable(c *net.UnixConn) {
	raw, err := c.SyscallConn()
	if err != nil {
		return
	}
	_ = raw.Read(func(fd uintptr) bool {
		n, err := unix.Poll([]unix.PollFd{{Fd: int32(fd), Events: unix.POLLIN}}, 0)
		return n > 0 || err != nil && err != unix.EINTR
	})
}

// peek returns what was sent to c, and leaves it there: the first that comes with
// descriptors is the last that it sees. gone is set if the other end is closed.
func peek(c *net.UnixConn) (b []byte, gone bool) {
	raw, err := c.SyscallConn()
	if err != nil {
		return nil, true
	}
	b = make([]byte, 4096)
	n := 0
	if err := raw.Control(func(fd uintptr) {
		poll := []unix.PollFd{{Fd: int32(fd), Events: unix.POLLIN}}
		_, _ = unix.Poll(poll, 0)
		var peekErr error
		n, _, peekErr = unix.Recvfrom(int(fd), b, unix.MSG_PEEK)
		gone = poll[0].Revents&(unix.POLLHUP|unix.POLLERR) != 0 || n == 0 && peekErr == nil
	}); err != nil {
		return nil, true
	}
	return b[:max(n, 0)], gone
}

// receive reads what has been sent to c. Descriptors that came along are
// returned if they are wanted, and closed if not. Fewer come than were sent when
// this process may not have so many.
func receive(c *net.UnixConn, p []byte, wanted bool) (n int, fds []int, err error) {
	if !wanted {
		n, err = c.Read(p)
		return n, nil, err
	}
	oob := make([]byte, unix.CmsgSpace(4*maxRights))
	n, oobn, _, _, err := c.ReadMsgUnix(p, oob) // which sets close-on-exec
	if err != nil {
		return 0, nil, err // n may be negative
	}
	messages, err := unix.ParseSocketControlMessage(oob[:oobn])
	if err != nil {
		return n, nil, nil // the message counts; descriptors that it lacks are missed
	}
	for _, m := range messages {
		if rights, err := unix.ParseUnixRights(&m); err == nil {
			fds = append(fds, rights...)
		}
	}
	return n, fds, nil
}

// sendRights sends text and fds to c in one message.
func sendRights(c *net.UnixConn, text string, fds []int) error {
	n, _, err := c.WriteMsgUnix([]byte(text), unix.UnixRights(fds...), nil)
	if err == nil && n < len(text) {
		_, err = c.Write([]byte(text[n:]))
	}
	return err
}

// connOf makes a connection of fd, which it takes over.
func connOf(fd int) (net.Conn, error) {
	f := os.NewFile(uintptr(fd), "connection")
	defer f.Close()
	return net.FileConn(f)
}

func closeFD(fd int) { _ = unix.Close(fd) }

// socketpair returns the two ends of a control socket, close-on-exec.
func socketpair() (ours, theirs int, err error) {
	syscall.ForkLock.RLock()
	defer syscall.ForkLock.RUnlock()
	fds, err := unix.Socketpair(unix.AF_UNIX, unix.SOCK_STREAM, 0)
	if err != nil {
		return -1, -1, os.NewSyscallError("socketpair", err)
	}
	unix.CloseOnExec(fds[0])
	unix.CloseOnExec(fds[1])
	return fds[0], fds[1], nil
}

// controlConn makes a connection of fd, which it takes over.
func controlConn(fd int) (*net.UnixConn, error) {
	f := os.NewFile(uintptr(fd), "control socket")
	defer f.Close()
	c, err := net.FileConn(f)
	if err != nil {
		return nil, err
	}
	u, ok := c.(*net.UnixConn)
	if !ok {
		c.Close()
		return nil, fmt.Errorf("control socket is a %s socket", c.LocalAddr().Network())
	}
	return u, nil
}

// forkExec starts argv0 with files as its descriptors 0 and up; a negative one
// is closed there. It returns the pid of the new process, which is a sibling of
// this one if that is asked for and possible.
func forkExec(argv0 string, argv []string, dir string, env []string, files []int, asSibling bool) (int, *sibling, error) {
	attr := &syscall.ProcAttr{Dir: dir, Env: env, Files: make([]uintptr, len(files))}
	for i, fd := range files {
		attr.Files[i] = uintptr(fd)
	}
	if asSibling {
		if pid, s, err := forkSibling(argv0, argv, attr); err != unix.EINVAL && err != unix.EPERM {
			return pid, s, err
		}
		attr.Sys = nil
	}
	pid, err := syscall.ForkExec(argv0, argv, attr)
	return pid, nil, err
}

// execute replaces the program of this process. The descriptors fds stay open.
func execute(argv0 string, args, env []string, fds []int) error {
	for _, fd := range fds {
		if _, err := unix.FcntlInt(uintptr(fd), unix.F_SETFD, 0); err != nil {
			return os.NewSyscallError("fcntl", err)
		}
	}
	err := syscall.Exec(argv0, args, env)
	for _, fd := range fds {
		unix.CloseOnExec(fd)
	}
	return err
}

// killParent is terminateParent where there are no pidfds.
func killParent(ppid int) error {
	if os.Getppid() != ppid {
		return nil
	}
	err := unix.Kill(ppid, unix.SIGTERM)
	if errors.Is(err, unix.ESRCH) {
		return nil
	}
	return os.NewSyscallError("kill", err)
}
