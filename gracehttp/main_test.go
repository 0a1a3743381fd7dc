//go:build unix

package gracehttp_test

import (
	"testing"

	"github.com/facebookgo/grace/internal/testbin"
)

func TestMain(m *testing.M) { testbin.Main(m, roles...) }

// roles are the servers of this package.
var roles []testbin.Role

// shorter is n, or short with -short, for what is run again and again.
func shorter(n, short int) int {
	if testing.Short() {
		return short
	}
	return n
}
