//go:build unix

package testbin

import (
	"bufio"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/facebookgo/grace/internal/testbin/play"
)

// Wire is an HTTP/1 client that sends what a test wants, when it wants it, and
// never tries again.
type Wire struct {
	net.Conn
	t *testing.T
	r *bufio.Reader
}

// Dial connects to an address of a service.
func Dial(t *testing.T, l play.Listen, addr string) *Wire {
	t.Helper()
	w, err := TryDial(l, addr)
	if err != nil {
		t.Fatal(err)
	}
	w.t = t
	t.Cleanup(func() { _ = w.Close() })
	return w
}

// TryDial is Dial for goroutines that are not the test's. Only the methods whose
// name begins with Try may be used.
func TryDial(l play.Listen, addr string) (*Wire, error) {
	network := l.Network
	if network == "" {
		network = "tcp"
	}
	c, err := net.DialTimeout(network, addr, Patience)
	if err != nil {
		return nil, err
	}
	if l.TLS {
		encrypted := tls.Client(c, &tls.Config{InsecureSkipVerify: true})
		if err := encrypted.Handshake(); err != nil {
			_ = c.Close()
			return nil, fmt.Errorf("handshake: %w", err)
		}
		c = encrypted
	}
	w := &Wire{Conn: c, r: bufio.NewReader(c)}
	if err := w.begin(); err != nil {
		_ = c.Close()
		return nil, err
	}
	return w, nil
}

// begin limits the time for what follows.
func (w *Wire) begin() error { return w.SetDeadline(time.Now().Add(2 * Patience)) }

// Send sends text as it is.
func (w *Wire) Send(text string) {
	w.t.Helper()
	if _, err := io.WriteString(w, text); err != nil {
		w.t.Fatalf("send %q: %v", text, err)
	}
}

// Reply is a response.
type Reply struct {
	Status int
	Body   string
	Close  bool // the server closes the connection
}

// Receive reads one response.
func (w *Wire) Receive() Reply {
	w.t.Helper()
	r, err := w.TryReceive()
	if err != nil {
		w.t.Fatalf("receive: %v", err)
	}
	return r
}

// TryReceive is Receive with an error, which is io.EOF if the server has closed
// the connection.
func (w *Wire) TryReceive() (Reply, error) {
	if _, err := w.r.Peek(1); err != nil {
		return Reply{}, err
	}
	resp, err := http.ReadResponse(w.r, nil)
	if err != nil {
		return Reply{}, fmt.Errorf("half a response: %w", err)
	}
	defer resp.Body.Close()
	body, err := io.ReadAll(resp.Body)
	if err != nil {
		return Reply{}, fmt.Errorf("half a response: %w", err)
	}
	return Reply{resp.StatusCode, string(body), resp.Close}, nil
}

// Ask sends a question as a request, and returns the body of the answer.
func (w *Wire) Ask(question string) string {
	w.t.Helper()
	if err := w.begin(); err != nil { // it may be long since Dial
		w.t.Fatal(err)
	}
	w.Send(Request(question))
	r := w.Receive()
	if r.Status != http.StatusOK {
		w.t.Fatalf("ask %q: status %d, %q", question, r.Status, r.Body)
	}
	return r.Body
}

// Request is the text of a request that asks a question.
func Request(question string) string {
	return "GET /" + strings.ReplaceAll(question, " ", "%20") + " HTTP/1.1\r\nHost: x\r\n\r\n"
}

// Line reads a line, for what is no HTTP.
func (w *Wire) Line() string {
	w.t.Helper()
	line, err := w.TryLine()
	if err != nil {
		w.t.Fatalf("read a line: %q, %v", line, err)
	}
	return line
}

// TryLine is Line with an error.
func (w *Wire) TryLine() (string, error) {
	line, err := w.r.ReadString('\n')
	return strings.TrimRight(line, "\r\n"), err
}

// Drain counts the bytes that come until the server closes the connection.
func (w *Wire) Drain() (n int64, err error) { return io.Copy(io.Discard, w.r) }

// WaitClosed waits until the server closes the connection, and fails the test if
// something else comes.
func (w *Wire) WaitClosed() {
	w.t.Helper()
	b, err := w.r.ReadByte()
	var timeout net.Error
	switch {
	case err == nil:
		w.t.Fatalf("received %q, want the end", b)
	case errors.As(err, &timeout) && timeout.Timeout():
		w.t.Fatal("waited in vain for the server to close the connection")
	}
}

// StaysOpen fails the test if the server sends something or closes the connection
// within d.
func (w *Wire) StaysOpen(d time.Duration) {
	w.t.Helper()
	if err := w.SetReadDeadline(time.Now().Add(d)); err != nil {
		w.t.Fatal(err)
	}
	b, err := w.r.ReadByte()
	var timeout net.Error
	if err == nil || !errors.As(err, &timeout) || !timeout.Timeout() {
		w.t.Fatalf("received %q, %v, want nothing", b, err)
	}
	if err := w.begin(); err != nil {
		w.t.Fatal(err)
	}
}
