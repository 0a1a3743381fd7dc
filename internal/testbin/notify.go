//go:build unix

package testbin

import (
	"net"
	"path/filepath"
	"testing"
	"time"
)

// NotifySocket is the socket of a service manager, and what it is told.
func NotifySocket(t *testing.T) (path string, told <-chan string) {
	t.Helper()
	path = filepath.Join(t.TempDir(), "notify")
	socket, err := net.ListenUnixgram("unixgram", &net.UnixAddr{Net: "unixgram", Name: path})
	if err != nil {
		t.Fatal(err)
	}
	messages := make(chan string, 100)
	done := make(chan struct{})
	go func() {
		defer close(done)
		b := make([]byte, 4096)
		for {
			n, err := socket.Read(b)
			if err != nil {
				return
			}
			messages <- string(b[:n])
		}
	}()
	t.Cleanup(func() {
		socket.Close()
		<-done
	})
	return path, messages
}

// ExpectTold fails the test unless the next message is want.
func ExpectTold(t *testing.T, told <-chan string, want string) {
	t.Helper()
	select {
	case got := <-told:
		if got != want {
			t.Errorf("told %q, want %q", got, want)
		}
	case <-time.After(Patience):
		t.Fatalf("not told %q", want)
	}
}
