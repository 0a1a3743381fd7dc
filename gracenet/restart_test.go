//go:build unix

package gracenet_test

import (
	"testing"

	"github.com/facebookgo/grace/internal/testbin"
)

func TestRestartUnderLoad(t *testing.T) { testbin.RestartRaw(t, "net") }
func TestStandbyTakesBack(t *testing.T) { testbin.StandbyRaw(t, "net") }
