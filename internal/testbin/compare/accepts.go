package compare

import (
	"net"
	"testing"
)

// Accepts returns a function that makes n connections, one after the other, accepts them
// with l and closes them.
func Accepts(tb testing.TB, l net.Listener) func(n int) {
	return func(n int) {
		for range n {
			client, err := net.Dial(l.Addr().Network(), l.Addr().String())
			if err != nil {
				tb.Fatal(err)
			}
			server, err := l.Accept()
			if err != nil {
				tb.Fatal(err)
			}
			// The client has no port in TIME-WAIT then, of which there are but so many.
			if tcp, ok := client.(*net.TCPConn); ok {
				_ = tcp.SetLinger(0)
			}
			_ = client.Close()
			_ = server.Close()
		}
	}
}
