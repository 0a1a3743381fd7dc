//go:build unix

package grace_test

import (
	"testing"

	"github.com/facebookgo/grace/internal/testbin"
)

func TestRestartUnderLoad(t *testing.T) { testbin.RestartRaw(t, "grace") }
func TestStandbyTakesBack(t *testing.T) { testbin.StandbyRaw(t, "grace") }
