//go:build unix

package gracehttp_test

import (
	"testing"

	"github.com/facebookgo/grace/internal/testbin"
)

func TestMain(m *testing.M) { testbin.Main(m, roles...) }

// roles are the servers of this package.
var roles []testbin.Role
