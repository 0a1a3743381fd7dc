//go:build unix

package grace_test

import (
	"testing"

	"github.com/facebookgo/grace/internal/testbin"
)

func TestMain(m *testing.M) {
	testbin.Main(m, testbin.Role{Name: "asks", Serve: serveAsking})
}
