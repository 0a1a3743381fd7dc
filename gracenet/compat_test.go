package gracenet_test

import (
	"net"

	"github.com/facebookgo/grace/gracenet"
)

// Programs written for facebookgo/grace must compile against this package: each
// name and type of its API, as the compiler sees them.
var (
	_ func(*gracenet.Net, string, string) (net.Listener, error)             = (*gracenet.Net).Listen
	_ func(*gracenet.Net, string, *net.TCPAddr) (*net.TCPListener, error)   = (*gracenet.Net).ListenTCP
	_ func(*gracenet.Net, string, *net.UnixAddr) (*net.UnixListener, error) = (*gracenet.Net).ListenUnix
	_ func(*gracenet.Net) (pid int, err error)                              = (*gracenet.Net).StartProcess
	_                                                                       = gracenet.Net{}
	_ interface {
		Listen(network, addr string) (net.Listener, error)
	} = new(gracenet.Net)
)
