package control

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"net"
	"os"
	"path/filepath"
	"slices"
	"sync/atomic"
	"syscall"
	"time"
)

// Socket is a listening socket, and the file at its path.
type Socket struct {
	path     string
	listener *net.UnixListener
	info     fs.FileInfo // of the file
}

var sockets atomic.Int64 // made by this process, for their temporary names

// Listen makes a socket and puts it at path in one step: whoever connects there
// finds the one before or this one. Only its owner may connect, and root.
//
// A socket on which nobody listens any more is replaced, and so is that of one of
// the processes family, and of a process that drains and has no successor. One
// that is in use is an error, and so is a file that is no socket; they are left
// alone.
func Listen(path string, family ...int) (*Socket, error) {
	if !supported {
		return nil, fmt.Errorf("control socket: %w", errors.ErrUnsupported)
	}
	s, err := listen(path, family)
	if err != nil {
		return nil, fmt.Errorf("control socket %s: %w", path, err)
	}
	return s, nil
}

// maxPath is how long a path can be that a client connects to.
const maxPath = len(syscall.RawSockaddrUnix{}.Path) - 1

func listen(path string, family []int) (s *Socket, err error) {
	if len(path) > maxPath {
		return nil, fmt.Errorf("its path is longer than the %d bytes that an address has room for", maxPath)
	}
	if err := replaceable(path, family); err != nil {
		return nil, err
	}
	temp := filepath.Join(filepath.Dir(path), fmt.Sprintf(".%d.%d", os.Getpid(), sockets.Add(1)))
	_ = os.Remove(temp) // of a process that had our pid and died in here
	config := net.ListenConfig{Control: func(_, _ string, c syscall.RawConn) error { return makePrivate(c) }}
	l, err := config.Listen(context.Background(), "unix", temp)
	if err != nil {
		if len(temp) > maxPath {
			err = fmt.Errorf("its directory has too long a name: %w", err)
		}
		return nil, err
	}
	listener := l.(*net.UnixListener)
	listener.SetUnlinkOnClose(false) // by then the name may be another's
	defer func() {
		if err != nil {
			_ = listener.Close()
			_ = os.Remove(temp)
		}
	}()
	if err := os.Chmod(temp, 0o600); err != nil {
		return nil, err
	}
	info, err := os.Lstat(temp)
	if err != nil {
		return nil, err
	}
	if err := os.Rename(temp, path); err != nil {
		return nil, err
	}
	return &Socket{path: path, listener: listener, info: info}, nil
}

// replaceable returns an error unless path may be replaced.
func replaceable(path string, family []int) error {
	info, err := os.Lstat(path)
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return nil
	case err != nil:
		return err
	case info.Mode().Type() != fs.ModeSocket:
		return errors.New("there is a file that is no socket")
	}
	c, err := net.Dial("unix", path)
	if errors.Is(err, syscall.ECONNREFUSED) || errors.Is(err, fs.ErrNotExist) {
		return nil // nobody listens any more
	}
	if err != nil {
		return err
	}
	defer c.Close()
	pid, known := peerPID(c.(*net.UnixConn))
	if slices.Contains(family, pid) || !known && len(family) != 0 || leaves(path) {
		return nil
	}
	if pid == 0 {
		return errors.New("in use by another process")
	}
	return fmt.Errorf("in use by process %d", pid)
}

// Draining is the phase in the status of a process that serves nothing any more.
const Draining = "draining"

// statusTimeout is how long a process may take to say so. It may be busy.
const statusTimeout = 5 * time.Second

// leaves reports whether the process that listens says that it drains.
func leaves(path string) bool {
	ctx, cancel := context.WithTimeout(context.Background(), statusTimeout)
	defer cancel()
	a, c, err := Ask(ctx, path, Request{Command: Status})
	if err != nil {
		return false
	}
	_ = c.Close()
	var status struct {
		Phase string `json:"phase"`
	}
	return json.Unmarshal(a.Status, &status) == nil && status.Phase == Draining
}

// owns reports whether the file at the path is still this socket.
func (s *Socket) owns() bool {
	info, err := os.Lstat(s.path)
	return err == nil && os.SameFile(info, s.info)
}

// close removes the path if it is still this socket. The order matters: while the
// socket is open no other file can have its inode.
func (s *Socket) close() {
	if s.owns() {
		_ = os.Remove(s.path)
	}
	_ = s.listener.Close()
}
