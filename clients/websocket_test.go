//go:build unix

package clients_test

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"net/http"
	"os"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/coder/websocket"

	"github.com/facebookgo/grace/gracehttp"
	"github.com/facebookgo/grace/internal/testbin"
	"github.com/facebookgo/grace/internal/testbin/play"
)

// echo answers each message with the pid and the message. A server that sends a
// close frame can answer nothing any more, so, told to drain, it says "bye" first,
// and closes when the client has answered "done": all that came before has its echo
// then.
func echo(w http.ResponseWriter, r *http.Request) {
	c, err := websocket.Accept(w, r, nil)
	if err != nil {
		return
	}
	defer c.CloseNow()
	ctx := r.Context() // ends when this function returns
	go func() {
		select {
		case <-gracehttp.Draining(ctx):
			_ = c.Write(ctx, websocket.MessageText, []byte("bye"))
		case <-ctx.Done():
		}
	}()
	for {
		_, message, err := c.Read(ctx)
		if err != nil {
			return
		}
		if string(message) == "done" {
			_ = c.Close(websocket.StatusGoingAway, "restart")
			return
		}
		if err := c.Write(ctx, websocket.MessageText, fmt.Appendf(nil, "%d %s", os.Getpid(), message)); err != nil {
			return
		}
	}
}

// feed sends the pid and a number again and again until it is told to drain. Then
// it closes, and gives the number of messages as the reason.
func feed(w http.ResponseWriter, r *http.Request) {
	c, err := websocket.Accept(w, r, nil)
	if err != nil {
		return
	}
	defer c.CloseNow()
	ctx := c.CloseRead(r.Context())
	tick := time.NewTicker(time.Millisecond)
	defer tick.Stop()
	for n := 0; ; n++ {
		select {
		case <-gracehttp.Draining(ctx):
			_ = c.Close(websocket.StatusGoingAway, strconv.Itoa(n))
			return
		case <-tick.C:
		}
		if err := c.Write(ctx, websocket.MessageText, fmt.Appendf(nil, "%d %d", os.Getpid(), n)); err != nil {
			return
		}
	}
}

// deaf is echo that listens to nobody but its client.
func deaf(w http.ResponseWriter, r *http.Request) {
	c, err := websocket.Accept(w, r, nil)
	if err != nil {
		return
	}
	defer c.CloseNow()
	for {
		_, message, err := c.Read(r.Context())
		if err != nil {
			return
		}
		if err := c.Write(r.Context(), websocket.MessageText, fmt.Appendf(nil, "%d %s", os.Getpid(), message)); err != nil {
			return
		}
	}
}

var insecure = &http.Client{Transport: &http.Transport{
	TLSClientConfig:   &tls.Config{InsecureSkipVerify: true},
	DisableKeepAlives: true, // so that nothing is waited for but WebSockets
}}

// dialWebSocket opens a WebSocket on an address of a service.
func dialWebSocket(t *testing.T, addrs []string, i int, path string) *websocket.Conn {
	t.Helper()
	scheme := "ws"
	if listens[i].TLS {
		scheme = "wss"
	}
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	c, _, err := websocket.Dial(ctx, scheme+"://"+addrs[i]+path, &websocket.DialOptions{HTTPClient: insecure})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = c.CloseNow() })
	return c
}

// wsRead reads one message in time.
func wsRead(ctx context.Context, c *websocket.Conn) (string, error) {
	ctx, cancel := context.WithTimeout(ctx, patience)
	defer cancel()
	_, b, err := c.Read(ctx)
	return string(b), err
}

// wsPID asks for the pid of the process at the other end.
func wsPID(t *testing.T, c *websocket.Conn) int {
	t.Helper()
	pid, err := tryPID(t, c)
	if err != nil {
		t.Fatalf("ask a WebSocket: %v", err)
	}
	return pid
}

// tryPID is wsPID for a connection that may be closed.
func tryPID(t *testing.T, c *websocket.Conn) (pid int, err error) {
	t.Helper()
	if err := c.Write(t.Context(), websocket.MessageText, []byte("pid")); err != nil {
		return 0, err
	}
	for {
		answer, err := wsRead(t.Context(), c)
		if err != nil {
			return 0, err
		}
		if answer == "bye" {
			continue // the test answers it when it likes
		}
		if _, err := fmt.Sscanf(answer, "%d pid", &pid); err != nil {
			t.Fatalf("answer %q: %v", answer, err)
		}
		return pid, nil
	}
}

// closedWith fails the test unless err tells of a close frame with status.
func closedWith(err error, status websocket.StatusCode) (reason string, _ error) {
	var e websocket.CloseError
	if !errors.As(err, &e) || e.Code != status {
		return "", fmt.Errorf("closed with %w, want status %d", err, status)
	}
	return e.Reason, nil
}

// talk sends messages without waiting for their echoes, several at a time, until
// the server says "bye". It returns an error unless each of them had its echo
// before a clean end. begun is closed at the first echo.
func talk(ctx context.Context, c *websocket.Conn, pid int, begun chan<- struct{}) error {
	underway := make(chan struct{}, 16)
	bye := make(chan struct{})
	sent := make(chan int, 1)
	failed := make(chan error, 1)
	go func() {
		n := 0
		defer func() { sent <- n }()
		for {
			message := []byte("done")
			select {
			case <-bye:
			case underway <- struct{}{}:
				select {
				case <-bye:
				default:
					message = fmt.Appendf(nil, "message %d", n)
				}
			}
			if err := c.Write(ctx, websocket.MessageText, message); err != nil {
				failed <- fmt.Errorf("send: %w", err)
				return
			}
			if string(message) == "done" {
				return
			}
			n++
		}
	}()
	for n := 0; ; {
		answer, err := wsRead(ctx, c)
		if err != nil {
			select {
			case err := <-failed:
				return err
			default:
			}
			if _, err := closedWith(err, websocket.StatusGoingAway); err != nil {
				return err
			}
			if sent := <-sent; sent != n {
				return fmt.Errorf("%d messages were sent, %d had an echo", sent, n)
			}
			return nil
		}
		if answer == "bye" {
			close(bye)
			continue
		}
		if want := fmt.Sprintf("%d message %d", pid, n); answer != want {
			return fmt.Errorf("echo %q, want %q", answer, want)
		}
		if n++; n == 1 {
			close(begun)
		}
		<-underway
	}
}

// listen reads what feed sends, and returns an error unless all of it comes before
// a clean end. begun is closed at the first message.
func listen(ctx context.Context, c *websocket.Conn, pid int, begun chan<- struct{}) error {
	for n := 0; ; n++ {
		message, err := wsRead(ctx, c)
		if err != nil {
			reason, err := closedWith(err, websocket.StatusGoingAway)
			if err == nil && reason != strconv.Itoa(n) {
				err = fmt.Errorf("%d messages came, %s were sent", n, reason)
			}
			return err
		}
		if want := fmt.Sprintf("%d %d", pid, n); message != want {
			return fmt.Errorf("message %q, want %q", message, want)
		}
		if n == 0 {
			close(begun)
		}
	}
}

// WebSockets are told of the drain and come to a clean end, with nothing lost. The
// old process lives for as long as there is one of them, and no longer.
func TestWebSocketsEndCleanly(t *testing.T) {
	cfg := config()
	cfg.WaitHijacked = true
	cfg.IdleGrace = 0 // the default: an open WebSocket needs all of it
	s := testbin.Start(t, cfg)
	for range restarts(2) {
		pid, addrs := s.Newest()
		results := make(chan error)
		clients := 0
		var held []*websocket.Conn
		for _, i := range []int{plain, secure, h2, h2c} { // they speak HTTP/1.1 too
			for range 2 {
				for path, client := range map[string]func(context.Context, *websocket.Conn, int, chan<- struct{}) error{
					"/ws/echo": talk,
					"/ws/feed": listen,
				} {
					c := dialWebSocket(t, addrs, i, path)
					begun := make(chan struct{})
					clients++
					go func() {
						err := client(t.Context(), c, pid, begun)
						if err != nil {
							err = fmt.Errorf("%s at %s: %w", path, addrs[i], err)
						}
						select {
						case results <- err:
						case <-t.Context().Done():
						}
					}()
					select {
					case <-begun:
					case err := <-results:
						t.Fatalf("ended before the restart: %v", err)
					}
				}
			}
			held = append(held, dialWebSocket(t, addrs, i, "/ws/echo"))
		}
		for _, c := range held {
			if got := wsPID(t, c); got != pid {
				t.Fatalf("answered by %d, want %d", got, pid)
			}
		}
		_, new := s.Restart()
		for range clients {
			if err := <-results; err != nil {
				t.Error(err)
			}
		}
		s.WaitLog(pid, "requests in flight are waited for")
		for i, c := range held {
			if got := wsPID(t, c); got != pid {
				t.Errorf("a WebSocket that was open before is served by %d, want %d", got, pid)
			}
			next := dialWebSocket(t, addrs, i, "/ws/echo")
			if got := wsPID(t, next); got != new {
				t.Errorf("a new WebSocket is served by %d, want %d", got, new)
			}
			_ = next.CloseNow()
		}
		for _, c := range held {
			if err := c.Write(t.Context(), websocket.MessageText, []byte("done")); err != nil {
				t.Error(err)
			}
			answer, err := wsRead(t.Context(), c)
			if err == nil && answer == "bye" { // if wsPID has not met it
				_, err = wsRead(t.Context(), c)
			}
			if _, err := closedWith(err, websocket.StatusGoingAway); err != nil {
				t.Error(err)
			}
		}
		waitReturned(t, s, pid)
		s.WaitExit(pid)
		never(t, s, "requests take too long") // the StopTimeout is a minute
	}
	s.Stop()
}

// never fails the test if a process has logged a line with text.
func never(t *testing.T, s *testbin.Service, text string) {
	t.Helper()
	for _, e := range s.Events() {
		if e.Event == play.Log && strings.Contains(e.Text, text) {
			t.Errorf("%d has logged %q", e.PID, e.Text)
		}
	}
}

// A WebSocket whose handler does not listen is served until StopTimeout, and closed
// then.
func TestWebSocketIsClosedAtStopTimeout(t *testing.T) {
	t.Parallel() // it waits most of the time
	cfg := config()
	cfg.WaitHijacked = true
	cfg.IdleGrace = 0
	cfg.StopTimeout = 3 * time.Second
	for !closedAtStopTimeout(t, cfg) {
		cfg.StopTimeout *= 2
		t.Logf("the machine is slow: again with a StopTimeout of %v", cfg.StopTimeout)
	}
}

// closedAtStopTimeout reports whether the machine was quick enough to see that WebSockets
// are served until then.
func closedAtStopTimeout(t *testing.T, cfg play.Config) bool {
	t.Helper()
	s := testbin.Start(t, cfg)
	pid, addrs := s.Newest()
	var all []*websocket.Conn
	for _, i := range []int{plain, secure} {
		c := dialWebSocket(t, addrs, i, "/ws/deaf")
		wsPID(t, c)
		all = append(all, c)
	}
	begin := time.Now()
	s.Restart()
	s.WaitLog(pid, "requests in flight are waited for")
	var served []*websocket.Conn
	for _, c := range all {
		got, err := tryPID(t, c)
		if err == nil && got != pid {
			t.Errorf("served by %d, want %d", got, pid)
		}
		if err == nil {
			served = append(served, c)
		} else if d := time.Since(begin); d < cfg.StopTimeout || cfg.StopTimeout > patience {
			t.Fatalf("not served after %v: %v", d, err)
		}
	}
	for _, c := range served {
		answer, err := wsRead(t.Context(), c)
		if status := websocket.CloseStatus(err); err == nil || status != -1 || errors.Is(err, context.DeadlineExceeded) {
			t.Errorf("got %q, %v, want the connection to be cut", answer, err)
		}
	}
	if d := time.Since(begin); d < cfg.StopTimeout {
		t.Errorf("closed after %v, want %v", d, cfg.StopTimeout)
	}
	s.WaitLog(pid, "requests take too long, their connections are closed")
	waitReturned(t, s, pid)
	s.WaitExit(pid)
	s.Stop()
	return len(served) == len(all)
}

// Without WaitHijacked nobody waits for a WebSocket.
func TestWebSocketIsNotWaitedFor(t *testing.T) {
	t.Parallel()
	cfg := config()
	cfg.IdleGrace = 0
	s := testbin.Start(t, cfg)
	pid, addrs := s.Newest()
	var all []*websocket.Conn
	for _, i := range []int{plain, secure} {
		c := dialWebSocket(t, addrs, i, "/ws/deaf")
		wsPID(t, c)
		all = append(all, c)
	}
	restart(t, s)
	s.WaitExit(pid)
	for _, c := range all {
		answer, err := wsRead(t.Context(), c)
		if status := websocket.CloseStatus(err); err == nil || status != -1 || errors.Is(err, context.DeadlineExceeded) {
			t.Errorf("got %q, %v, want the connection to have ended with its process", answer, err)
		}
	}
	never(t, s, "are waited for")
	s.Stop()
}
