//go:build !unix || solaris

package gracenet

import "errors"

func lockDir(string) (unlock func(), err error) { return nil, errors.ErrUnsupported }
