//go:build !unix || solaris

package gracenet

import "errors"

// lockDir is for systems that can lock a directory.
func lockDir(string) (unlock func(), err error) { return nil, errors.ErrUnsupported }
