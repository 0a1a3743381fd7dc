//go:build unix

package gracetest_test

import (
	"testing"

	"github.com/facebookgo/grace/internal/testbin"
)

func TestMain(m *testing.M) {
	testbin.Main(m, testbin.Role{Name: "by hand", Serve: serveByHand})
}
