package testbin

import "errors"

func reusePort(int) error { return errors.ErrUnsupported }
