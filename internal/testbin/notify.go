//go:build unix

package testbin

import (
	"net"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
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
	messages := make(chan string, 10_000) // who tells waits while it is full
	done := make(chan struct{})
	go func() {
		defer close(done)
		b, oob := make([]byte, 4096), make([]byte, 4096)
		for {
			n, oobn, _, _, err := socket.ReadMsgUnix(b, oob)
			if err != nil {
				return
			}
			message := string(b[:n])
			for range descriptors(oob[:oobn]) {
				message += "\na descriptor"
			}
			messages <- message
		}
	}()
	t.Cleanup(func() {
		socket.Close()
		<-done
	})
	return path, messages
}

// descriptors counts those that came with a message, and closes them.
func descriptors(oob []byte) (n int) {
	messages, _ := syscall.ParseSocketControlMessage(oob)
	for _, m := range messages {
		fds, _ := syscall.ParseUnixRights(&m)
		for _, fd := range fds {
			_ = syscall.Close(fd)
			n++
		}
	}
	return n
}

// ExpectTold fails the test unless the next message is want, but for what is only
// for people, times, and what asks for more time.
func ExpectTold(t *testing.T, told <-chan string, want string) {
	t.Helper()
	timeout := time.After(Patience)
	for {
		select {
		case got := <-told:
			if got = Essence(got); got == "" {
				continue
			}
			if got != want {
				t.Errorf("told %q, want %q", got, want)
			}
			return
		case <-timeout:
			t.Fatalf("not told %q", want)
		}
	}
}

// WaitTold waits for a message with a line, whatever comes before.
func WaitTold(t *testing.T, told <-chan string, line string) (message string) {
	t.Helper()
	timeout := time.After(Patience)
	for {
		select {
		case message := <-told:
			if slices.Contains(strings.Split(message, "\n"), line) {
				return message
			}
		case <-timeout:
			t.Fatalf("not told %q", line)
		}
	}
}

// Essence is a message without its lines STATUS, MONOTONIC_USEC and
// EXTEND_TIMEOUT_USEC.
func Essence(message string) string {
	lines := slices.DeleteFunc(strings.Split(message, "\n"), func(line string) bool {
		key, _, _ := strings.Cut(line, "=")
		return key == "STATUS" || key == "MONOTONIC_USEC" || key == "EXTEND_TIMEOUT_USEC"
	})
	return strings.Join(lines, "\n")
}
