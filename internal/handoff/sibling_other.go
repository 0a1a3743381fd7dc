//go:build !linux

package handoff

import (
	"errors"
	"syscall"
)

// sibling is for systemd.
type sibling struct{}

func underManager() bool { return false }

func (s *sibling) wait()                       {}
func (s *sibling) signal(syscall.Signal) error { return errors.ErrUnsupported }
func (s *sibling) struck(syscall.Signal) bool  { return false }
func (s *sibling) close()                      {}
func (s *sibling) String() string              { return "" }
