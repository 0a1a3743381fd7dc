//go:build unix

package gracehttp_test

import (
	"testing"

	"github.com/facebookgo/grace/internal/testbin"
)

func TestMain(m *testing.M) { testbin.Main(m) }
