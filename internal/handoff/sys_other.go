//go:build !unix

package handoff

import (
	"errors"
	"fmt"
	"net"
	"runtime"
	"syscall"
)

// Without fork, exec and descriptors that survive them there is no handover.
// Sockets are served, nothing is inherited or passed on.

var errNoHandover = fmt.Errorf("sockets can't be passed to a new process on %s: %w", runtime.GOOS, errors.ErrUnsupported)

type sockType int

const (
	notSocket    sockType = 0
	streamSocket sockType = 1
)

func (sockType) isDatagram() bool { return false }

func identify(int) (fileID, error)                    { return fileID{}, errNoHandover }
func socketAt(string) (fileID, bool)                  { return fileID{}, false }
func fdLimit() uint64                                 { return 0 }
func passedTo(int) bool                               { return false }
func checkSocket(int) (sockType, error)               { return notSocket, errNoHandover }
func socketAddr(int, sockType) net.Addr               { return nil }
func nonblock(int) error                              { return errNoHandover }
func setCloseOnExec(int)                              {}
func readTable(int, uint64) (string, error)           { return "", errNoHandover }
func writeTable(string) (int, uint64, error)          { return -1, 0, errNoHandover }
func dup(syscall.Conn) (int, error)                   { return -1, errNoHandover }
func closeFD(int)                                     {}
func setNonblock(syscall.Conn) bool                   { return false }
func interruptThreads()                               {}
func awaitReadable(*net.UnixConn)                     {}
func peek(*net.UnixConn) ([]byte, bool)               { return nil, false }
func enter(string) error                              { return nil }
func socketpair() (int, int, error)                   { return -1, -1, errNoHandover }
func controlConn(int) (*net.UnixConn, error)          { return nil, errNoHandover }
func isGrace(int) bool                                { return false }
func awaitExit(int)                                   {}
func execute(string, []string, []string, []int) error { return errNoHandover }
func terminateParent(int) error                       { return errNoHandover }

func receive(c *net.UnixConn, p []byte, _ bool) (int, []int, error) {
	n, err := c.Read(p)
	return n, nil, err
}

func sendRights(*net.UnixConn, string, []int) error { return errNoHandover }
func connOf(int) (net.Conn, error)                  { return nil, errNoHandover }

func open(c syscall.Conn) (fileID, bool) {
	raw, err := c.SyscallConn()
	if err != nil {
		return fileID{}, false
	}
	return fileID{}, raw.Control(func(uintptr) {}) == nil
}

func forkExec(string, []string, string, []string, []int, bool) (int, *sibling, error) {
	return 0, nil, errNoHandover
}
