//go:build unix

package gracenet_test

import (
	"testing"

	"github.com/facebookgo/grace/gracenet"
	"github.com/facebookgo/grace/internal/testbin"
)

func TestMain(m *testing.M) { testbin.Main(m, roles...) }

// roles are the servers of this package.
var roles = []testbin.Role{
	{Name: "files", Serve: roleFiles},
	{Name: "group", Serve: roleGroup},
	{Name: "later", Serve: roleLater},
	{Name: "web", Serve: roleWeb},
	{Name: "takes", Serve: roleTakes},
	{Name: "closes", Serve: roleCloses},
}

// net1 is the Net of the servers of this package.
var net1 gracenet.Net
