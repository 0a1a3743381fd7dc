//go:build unix

package gracetest

import (
	"bufio"
	"bytes"
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"strconv"
	"strings"
	"syscall"
	"time"
)

// Raw returns a client that knows no more than HTTP/1.1 asks for (RFC 9112). It keeps
// one connection until the server says or shows that it closes it. Before it
// makes a request it looks whether the server has done so, as good clients do; what it
// has begun to send is lost if no whole answer comes. It costs little, so that measurements see
// the server.
func Raw(r Request) Client {
	c := &rawClient{Request: r}
	u, err := url.Parse(r.URL)
	if err == nil && u.Scheme != "http" && u.Scheme != "https" {
		err = fmt.Errorf("the URL %q has neither the scheme http nor https", r.URL)
	}
	if err != nil {
		c.err = err
		return c
	}
	c.addr = u.Host
	if u.Port() == "" {
		c.addr = net.JoinHostPort(u.Hostname(), map[string]string{"http": "80", "https": "443"}[u.Scheme])
	}
	if u.Scheme == "https" {
		c.config = r.tls()
		c.config.NextProtos = []string{"http/1.1"}
		if c.config.ServerName == "" {
			c.config.ServerName = u.Hostname()
		}
	}
	var b bytes.Buffer
	fmt.Fprintf(&b, "%s %s HTTP/1.1\r\nHost: %s\r\n", r.method(), u.RequestURI(), u.Host)
	_ = r.Header.Write(&b) // a buffer takes all
	if r.Body != nil || r.method() != http.MethodGet && r.method() != http.MethodHead {
		fmt.Fprintf(&b, "Content-Length: %d\r\n", len(r.Body))
	}
	if r.Fresh {
		b.WriteString("Connection: close\r\n")
	}
	b.WriteString("\r\n")
	b.Write(r.Body)
	c.request = b.Bytes()
	return c
}

type rawClient struct {
	Request
	addr    string
	config  *tls.Config // nil without TLS
	request []byte
	err     error // why it can't ask at all

	conn   net.Conn
	socket syscall.RawConn
	r      *bufio.Reader
	opened time.Time
	nth    int
	closed bool // the server has closed a connection before

	deadline time.Time // of conn

	last string // the last answer, since many are the same
	head []byte
}

func (c *rawClient) String() string { return c.describe("raw") }

func (c *rawClient) Close() error {
	if c.conn == nil {
		return nil
	}
	err := c.conn.Close()
	c.conn = nil
	return err
}

// hangUp closes the connection because the server does.
func (c *rawClient) hangUp() {
	c.closed = true
	_ = c.Close()
}

func (c *rawClient) Do() (Exchange, error) {
	if c.err != nil {
		return Exchange{}, c.err
	}
	if c.conn != nil && hasClosed(c.socket, c.config == nil) {
		c.hangUp()
	}
	x := Exchange{Nth: 1}
	if c.conn == nil {
		c.opened = time.Now()
		x.Opened = c.opened
		x.Reconnected = c.closed && !c.Fresh
		if err := c.open(); err != nil {
			c.hangUp()
			return x, err
		}
		c.nth = 0
	}
	c.nth++
	x.Nth, x.Opened = c.nth, c.opened
	if now := time.Now(); c.nth == 1 || c.deadline.Sub(now) < Patience { // setting it costs something
		c.deadline = now.Add(2 * Patience)
		if err := c.conn.SetDeadline(c.deadline); err != nil {
			return x, err
		}
	}
	keep := false
	_, err := c.conn.Write(c.request)
	if err != nil {
		err = fmt.Errorf("send the request: %w", err)
	} else if keep, err = c.receive(); err != nil {
		err = fmt.Errorf("receive the answer: %w", err)
	}
	if err != nil || !keep {
		c.hangUp()
	}
	x.Answer = c.last
	return x, err
}

func (c *rawClient) open() error {
	conn, err := c.dial(context.Background(), c.addr)
	if err != nil {
		return err
	}
	c.conn = conn
	c.socket, err = conn.(syscall.Conn).SyscallConn()
	if err != nil {
		return err
	}
	if c.config != nil {
		encrypted := tls.Client(conn, c.config)
		c.conn = encrypted
		if err := conn.SetDeadline(time.Now().Add(Patience)); err != nil {
			return err
		}
		if err := encrypted.Handshake(); err != nil {
			return fmt.Errorf("handshake: %w", err)
		}
	}
	if c.r == nil {
		c.r = bufio.NewReaderSize(c.conn, 16<<10)
	} else {
		c.r.Reset(c.conn)
	}
	return nil
}

// hasClosed reports whether the server has ended a connection that is idle. Without TLS
// something to read is no better: nothing was asked.
func hasClosed(socket syscall.RawConn, plain bool) bool {
	ended := false
	err := socket.Read(func(fd uintptr) bool {
		var b [1]byte
		n, _, err := syscall.Recvfrom(int(fd), b[:], syscall.MSG_PEEK|syscall.MSG_DONTWAIT)
		switch {
		case errors.Is(err, syscall.EAGAIN), errors.Is(err, syscall.EINTR):
		case err != nil, n == 0:
			ended = true
		default:
			ended = plain
		}
		return true
	})
	return err != nil || ended
}

// receive reads one answer, and reports whether the connection may be used again.
func (c *rawClient) receive() (keep bool, err error) {
	if keep, length, ok := c.receiveHead(); ok {
		body, err := c.r.Peek(length)
		if err != nil {
			return false, fmt.Errorf("after %d bytes of the body: %w", len(body), noEOF(err))
		}
		if string(body) != c.last { // which does not allocate
			c.last = string(body)
		}
		_, err = c.r.Discard(length)
		return keep, err
	}
	resp, err := http.ReadResponse(c.r, &http.Request{Method: c.method()})
	if err != nil {
		return false, noEOF(err)
	}
	defer resp.Body.Close()
	b, err := io.ReadAll(resp.Body)
	if err != nil {
		return false, fmt.Errorf("after %d bytes of the body: %w", len(b), noEOF(err))
	}
	c.last = string(b)
	return !resp.Close, checkStatus(resp.StatusCode, b)
}

// noEOF makes an end that comes too early no end.
func noEOF(err error) error {
	if errors.Is(err, io.EOF) || errors.Is(err, io.ErrUnexpectedEOF) {
		return errors.New("the server has closed the connection")
	}
	return err
}

// receiveHead reads the head of a plain answer: status 200, with a length that fits the
// buffer. If it is another one it reads nothing.
func (c *rawClient) receiveHead() (keep bool, length int, ok bool) {
	if _, err := c.r.Peek(1); err != nil {
		return false, 0, false
	}
	b, _ := c.r.Peek(c.r.Buffered())
	end := bytes.Index(b, []byte("\r\n\r\n"))
	if end < 0 || !bytes.HasPrefix(b, []byte("HTTP/1.1 200 ")) || c.method() == http.MethodHead {
		return false, 0, false
	}
	keep, length = true, -1
	for line := range bytes.SplitSeq(b[:end], []byte("\r\n")) {
		name, value, _ := bytes.Cut(line, []byte(":"))
		switch {
		case len(name) == len("Connection") && strings.EqualFold(string(name), "Connection"):
			if !strings.EqualFold(string(bytes.TrimSpace(value)), "keep-alive") {
				keep = false
			}
		case len(name) == len("Content-Length") && strings.EqualFold(string(name), "Content-Length"):
			n, err := strconv.Atoi(string(bytes.TrimSpace(value)))
			if err != nil {
				return false, 0, false
			}
			length = n
		case len(name) == len("Transfer-Encoding") && strings.EqualFold(string(name), "Transfer-Encoding"):
			return false, 0, false
		}
	}
	if length < 0 || length > c.r.Size() {
		return false, 0, false
	}
	_, _ = c.r.Discard(end + 4) // which is buffered
	return keep, length, true
}
