//go:build unix

package main

import (
	"testing"

	"github.com/facebookgo/grace/examples/internal/framework"
)

func TestRestarts(t *testing.T) {
	framework.TestRestarts(t, "event: end\ndata: connect again\n\n")
}
