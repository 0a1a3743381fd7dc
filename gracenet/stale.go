package gracenet

import (
	"errors"
	"fmt"
	"io/fs"
	"net"
	"os"
	"path/filepath"
	"strings"
	"syscall"
)

// A process that crashes leaves the paths of its unix sockets behind, and nobody can
// listen there any more.

// errStale is added to the error of package net.
var errStale = errors.New("nobody listens there: a process that has crashed left it behind; remove it, or set ReplaceStale")

// onPath calls listen for a unix socket. If its path is in the way, it says so, or
// removes it when it is told to.
//
// One that is told to holds the lock from the beginning: for a moment, between bind
// and listen, a socket that will be served looks like one that was left behind.
func onPath[C any](n *Net, network, path string, listen func() (C, error)) (C, error) {
	replace := n.ReplaceStale && path != "" && !strings.HasPrefix(path, "@")
	var lockErr error
	if replace {
		var unlock func()
		if unlock, lockErr = lockDir(filepath.Dir(path)); lockErr == nil {
			defer unlock()
		}
	}
	c, err := listen()
	if !errors.Is(err, syscall.EADDRINUSE) || strings.HasPrefix(path, "@") {
		return c, err
	}
	info, stale := staleAt(network, path)
	switch {
	case !stale:
		return c, err
	case !replace:
		return c, fmt.Errorf("%w: %w", err, errStale)
	case lockErr != nil:
		return c, fmt.Errorf("%w: can't be replaced: %w", err, lockErr)
	}
	// Whoever does not know of the lock may have been quicker.
	if now, statErr := os.Lstat(path); statErr != nil || !os.SameFile(info, now) {
		return c, err
	}
	if removeErr := os.Remove(path); removeErr != nil {
		return c, fmt.Errorf("%w: can't be replaced: %w", err, removeErr)
	}
	return listen()
}

// staleAt reports whether there is a socket at path on which nobody listens.
func staleAt(network, path string) (info fs.FileInfo, stale bool) {
	info, err := os.Lstat(path)
	if err != nil || info.Mode().Type() != fs.ModeSocket {
		return nil, false
	}
	c, err := net.Dial(network, path)
	if err == nil {
		_ = c.Close()
		return nil, false
	}
	return info, errors.Is(err, syscall.ECONNREFUSED)
}
