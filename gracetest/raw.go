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
	"os"
	"strconv"
	"strings"
	"syscall"
	"time"
)

// Raw returns a client that knows no more than HTTP/1.1 asks for (RFC 9112). It keeps
// one connection until the server says or shows that it closes it. Before it
// makes a request it looks whether the server has done so, as good clients do; what it
// has begun to send is lost if no whole answer comes, for as long as [Patience] at least, and
// twice that at most. It costs little, so that measurements see the server.
func Raw(r Request) Client {
	c := &rawClient{Request: r}
	u, err := url.Parse(r.URL)
	switch {
	case err != nil:
	case u.Scheme != "http" && u.Scheme != "https":
		err = fmt.Errorf("the URL %q has neither the scheme http nor https", r.URL)
	case u.Host == "":
		err = fmt.Errorf("the URL %q has no host", r.URL)
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
	socket *socket // below conn
	r      *bufio.Reader
	opened time.Time
	nth    int
	closed bool // the server has closed a connection before

	deadline time.Time // of conn

	last string // the last body, since many are the same
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
	now := time.Now()
	if c.err != nil {
		return Exchange{Opened: now, Nth: 1}, c.err
	}
	if c.conn != nil && c.hasClosed(now) {
		c.hangUp()
	}
	x := Exchange{Nth: 1}
	if c.conn == nil {
		c.opened, c.nth = now, 0
		x.Opened = c.opened
		x.Reconnected = c.closed && !c.Fresh
		if err := c.open(now); err != nil {
			c.hangUp()
			return x, err
		}
	}
	c.nth++
	x.Nth, x.Opened = c.nth, c.opened
	if _, err := c.conn.Write(c.request); err != nil {
		c.hangUp()
		return x, fmt.Errorf("send the request: %w", err)
	}
	a, keep, err := c.receive()
	if err != nil {
		c.hangUp()
		return x, fmt.Errorf("receive the answer: %w", err)
	}
	if !keep || c.Fresh {
		c.hangUp()
	}
	x.Status, x.Answer = a.status, a.body
	return x, checkStatus(a.status, a.body)
}

// extend moves the deadline of the connection, now and then: that costs something.
func (c *rawClient) extend(now time.Time) error {
	if c.deadline.Sub(now) >= Patience {
		return nil
	}
	c.deadline = now.Add(2 * Patience)
	return c.socket.SetDeadline(c.deadline)
}

func (c *rawClient) open(now time.Time) error {
	conn, err := c.dial(context.Background(), c.addr)
	if err != nil {
		return err
	}
	c.socket = &socket{Conn: conn}
	c.conn = c.socket
	if c.socket.raw, err = conn.(syscall.Conn).SyscallConn(); err != nil {
		return err
	}
	c.deadline = time.Time{}
	if err := c.extend(now); err != nil {
		return err
	}
	if c.config != nil {
		encrypted := tls.Client(c.socket, c.config)
		c.conn = encrypted
		if err := encrypted.Handshake(); err != nil {
			return fmt.Errorf("handshake: %w", noEOF(err))
		}
	}
	if c.r == nil {
		c.r = bufio.NewReaderSize(c.conn, 16<<10)
	} else {
		c.r.Reset(c.conn)
	}
	return nil
}

// hasClosed reports whether the server has ended the connection, which is idle. With
// something to read it is no better: nothing was asked.
func (c *rawClient) hasClosed(now time.Time) bool {
	if err := c.extend(now); err != nil {
		return true
	}
	c.socket.only = true
	_, err := c.r.Peek(1)
	c.socket.only = false
	return !errors.Is(err, os.ErrDeadlineExceeded)
}

// socket can be asked for only what has come.
type socket struct {
	net.Conn
	raw  syscall.RawConn
	only bool
}

func (s *socket) Read(b []byte) (n int, err error) {
	if !s.only {
		return s.Conn.Read(b)
	}
	if rawErr := s.raw.Read(func(fd uintptr) bool {
		n, err = syscall.Read(int(fd), b)
		return true
	}); rawErr != nil {
		return 0, rawErr
	}
	switch {
	case errors.Is(err, syscall.EAGAIN), errors.Is(err, syscall.EINTR):
		return 0, os.ErrDeadlineExceeded // after which TLS can be read again
	case err != nil:
		return 0, err
	case n == 0:
		return 0, io.EOF
	}
	return n, nil
}

// answer is what the server says.
type answer struct {
	status int
	body   string
}

// receive reads one answer, and reports whether the connection may be used again.
func (c *rawClient) receive() (a answer, keep bool, err error) {
	if keep, length, ok := c.receiveHead(); ok {
		body, err := c.r.Peek(length)
		if err != nil {
			return a, false, fmt.Errorf("after %d bytes of the body: %w", len(body), noEOF(err))
		}
		if string(body) != c.last { // which does not allocate
			c.last = string(body)
		}
		_, err = c.r.Discard(length)
		return answer{http.StatusOK, c.last}, keep, err
	}
	resp, err := http.ReadResponse(c.r, &http.Request{Method: c.method()})
	for err == nil && resp.StatusCode < 200 && resp.StatusCode != http.StatusSwitchingProtocols { // the answer is still to come
		resp, err = http.ReadResponse(c.r, &http.Request{Method: c.method()})
	}
	if err != nil {
		return a, false, noEOF(err)
	}
	defer resp.Body.Close()
	b, err := io.ReadAll(resp.Body)
	if err != nil {
		return a, false, fmt.Errorf("after %d bytes of the body: %w", len(b), noEOF(err))
	}
	return answer{resp.StatusCode, string(b)}, !resp.Close, nil
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
