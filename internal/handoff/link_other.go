//go:build !linux

package handoff

import (
	"errors"
	"fmt"
	"runtime"
)

var errNoLinks = fmt.Errorf("%w on %s", errors.ErrUnsupported, runtime.GOOS)

func packetPair() (ours, theirs int, err error) { return -1, -1, errNoLinks }
