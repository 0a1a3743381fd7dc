package gracehttp

// Both ends of a connection in the process of the test.

import (
	"bufio"
	"io"
	"net"
	"net/http"
	"testing"
	"time"
)

// testPatience is how long a test waits for what must happen.
const testPatience = 30 * time.Second

// soon waits for c to be closed, or to have a value.
func soon[T any](t *testing.T, c <-chan T, what string) (v T) {
	t.Helper()
	select {
	case v = <-c:
	case <-time.After(testPatience):
		t.Fatalf("waited too long for %s", what)
	}
	return v
}

func newListener(t testing.TB) net.Listener {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = l.Close() })
	return l
}

// pair returns both ends of a connection of l.
func pair(t testing.TB, l net.Listener) (client, server net.Conn) {
	t.Helper()
	client, err := net.Dial(l.Addr().Network(), l.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = client.Close() })
	_ = client.SetDeadline(time.Now().Add(testPatience))
	if server, err = l.Accept(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = server.Close() })
	return client, server
}

func tcpPair(t testing.TB) (client net.Conn, server *net.TCPConn) {
	t.Helper()
	client, c := pair(t, newListener(t))
	return client, c.(*net.TCPConn)
}

const aRequest = "GET / HTTP/1.1\r\nHost: x\r\n\r\n"

// request sends a request and returns the body of the answer.
func request(t *testing.T, client net.Conn) string {
	t.Helper()
	if _, err := io.WriteString(client, aRequest); err != nil {
		t.Fatal(err)
	}
	resp, err := http.ReadResponse(bufio.NewReader(client), nil)
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	body, err := io.ReadAll(resp.Body)
	if err != nil {
		t.Fatal(err)
	}
	return string(body)
}
