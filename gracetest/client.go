//go:build unix

package gracetest

import (
	"bytes"
	"context"
	"crypto/tls"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"net/http"
	"net/http/httptrace"
	"time"
)

// Client makes requests, one at a time and none a second time. Each goroutine needs
// one of its own.
type Client interface {
	// Do makes one request. An error means that it was lost. For the clients of this
	// package an answer with the status 400, 408 or 5xx is one.
	Do() (Exchange, error)
	// Close closes the connection that the client keeps, if there is one.
	Close() error
	// String says what the client does, for reports.
	String() string
}

// Exchange is a request and its answer. A client fills in what it knows.
type Exchange struct {
	// Answer is the body of the answer.
	Answer string
	// Status is that of an answer over HTTP.
	Status int
	// Due is when the request was to be made, if that is not when Do was called.
	Due time.Time
	// Opened is when the client began to open the connection. What is lost on a
	// connection that is older than a kill was killed.
	Opened time.Time
	// Nth is the number of the request on its connection, beginning with 1.
	Nth int
	// Reconnected says that the client keeps its connection and had to open another
	// one, since the server did not keep it.
	Reconnected bool
}

// Request is what a client asks for.
type Request struct {
	// URL has the scheme http or https.
	URL string
	// Method is GET if it is empty.
	Method string
	// Header is sent as it is. It must not say who the host is, how the body is
	// framed, or what becomes of the connection.
	Header http.Header
	// Body is the body: none if it is nil.
	Body []byte
	// Fresh asks for a connection of its own for each request.
	Fresh bool
	// Unix is the path of a socket to connect to, instead of the host of the URL.
	Unix string
	// TLS is how to connect to a server with the scheme https. By default any
	// certificate will do.
	TLS *tls.Config
}

func (r Request) method() string {
	if r.Method == "" {
		return http.MethodGet
	}
	return r.Method
}

func (r Request) describe(client string) string {
	conns := "kept connection"
	if r.Fresh {
		conns = "fresh connections"
	}
	return fmt.Sprintf("%s %s (%s, %s)", r.method(), r.URL, client, conns)
}

func (r Request) tls() *tls.Config {
	if r.TLS == nil {
		return &tls.Config{InsecureSkipVerify: true}
	}
	return r.TLS.Clone()
}

// dial opens a connection, without TLS.
func (r Request) dial(ctx context.Context, addr string) (net.Conn, error) {
	network := "tcp"
	if r.Unix != "" {
		network, addr = "unix", r.Unix
	}
	return (&net.Dialer{Timeout: Patience}).DialContext(ctx, network, addr)
}

// HTTP returns a client that is net/http's: with HTTP/2 where a server with TLS offers it. It keeps
// one connection, or none if the request is to be Fresh. net/http sends some requests a
// second time when a connection fails; this client makes it impossible. A request that takes
// longer than [Patience] is lost.
func HTTP(r Request) Client {
	c := &goClient{Request: r}
	c.client = &http.Client{
		Timeout: Patience,
		// A redirection is an answer.
		CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
		Transport: &http.Transport{
			DialContext:       func(ctx context.Context, _, addr string) (net.Conn, error) { return r.dial(ctx, addr) },
			TLSClientConfig:   r.tls(),
			ForceAttemptHTTP2: true,
			DisableKeepAlives: r.Fresh,
			MaxConnsPerHost:   1,
		},
	}
	return c
}

type goClient struct {
	Request
	client *http.Client
	opened time.Time
	nth    int
}

func (c *goClient) String() string { return c.describe("net/http") }

func (c *goClient) Close() error {
	c.client.CloseIdleConnections()
	return nil
}

func (c *goClient) Do() (Exchange, error) {
	before := c.nth
	begun := time.Now()
	reused := false
	ctx := httptrace.WithClientTrace(context.Background(), &httptrace.ClientTrace{
		GotConn: func(i httptrace.GotConnInfo) { reused = i.Reused },
	})
	// What can't be read again is not sent again.
	req, err := http.NewRequestWithContext(ctx, c.method(), c.URL, io.MultiReader(bytes.NewReader(c.Body)))
	if err != nil {
		return Exchange{Opened: begun, Nth: 1}, err
	}
	if c.Body != nil {
		req.ContentLength = int64(len(c.Body))
	}
	for name, values := range c.Header {
		req.Header[name] = values
	}
	a, err := c.receive(req)
	if !reused {
		c.opened, c.nth = begun, 0
	}
	c.nth++
	return Exchange{
		Answer: a.body, Status: a.status, Opened: c.opened, Nth: c.nth,
		Reconnected: c.nth == 1 && before > 0 && !c.Fresh,
	}, err
}

func (c *goClient) receive(req *http.Request) (answer, error) {
	resp, err := c.client.Do(req)
	if err != nil {
		return answer{}, err
	}
	defer resp.Body.Close()
	b, err := io.ReadAll(resp.Body)
	if err != nil {
		return answer{}, fmt.Errorf("after %d bytes of the body: %w", len(b), noEOF(err))
	}
	a := answer{resp.StatusCode, string(b)}
	return a, checkStatus(a.status, a.body)
}

// checkStatus takes for a loss what a server says that can't answer: also what it says
// to a good request that it has not read to the end.
func checkStatus(status int, body string) error {
	if status >= 500 || status == http.StatusBadRequest || status == http.StatusRequestTimeout {
		return fmt.Errorf("status %d: %.200s", status, body)
	}
	return nil
}

// Mix returns what a service should be proved with: raw and Go clients, GET and POST,
// with kept and with fresh connections, and some that let time pass between two
// requests. A URL answers POST too, if only with 405; an answer with the status 400, 408 or
// 5xx is a loss.
func Mix(urls ...string) []Client {
	var mix []Client
	for _, url := range urls {
		for _, method := range []string{http.MethodGet, http.MethodPost} {
			for _, fresh := range []bool{false, true} {
				r := Request{URL: url, Method: method, Fresh: fresh}
				if method == http.MethodPost {
					r.Body = []byte("gracetest")
				}
				mix = append(mix, Raw(r), HTTP(r), Paced(Raw(r), 50*time.Millisecond))
			}
		}
	}
	return mix
}

// Func returns a client of any protocol: do makes one request. Since nobody knows what
// connections it has, each request counts as one on a connection of its own.
func Func(name string, do func() (answer string, err error)) Client { return funcClient{name, do} }

type funcClient struct {
	name string
	do   func() (string, error)
}

func (c funcClient) String() string { return c.name }
func (c funcClient) Close() error   { return nil }
func (c funcClient) Do() (Exchange, error) {
	begun := time.Now()
	answer, err := c.do()
	return Exchange{Answer: answer, Opened: begun, Nth: 1}, err
}

// Paced returns a client that makes a request at each interval, however long the one
// before has taken: one that comes late because of that is counted from when it was
// due. The first one comes at some moment of the first interval, so that several clients
// do not make theirs all at once. Without an interval it is c.
func Paced(c Client, interval time.Duration) Client {
	if interval <= 0 {
		return c
	}
	return &paced{Client: c, interval: interval}
}

type paced struct {
	Client
	interval time.Duration
	due      time.Time
}

func (c *paced) String() string { return fmt.Sprintf("%s every %v", c.Client, c.interval) }

// untilDue returns how long it is until the next request is due.
func (c *paced) untilDue() time.Duration {
	if c.due.IsZero() {
		c.due = time.Now().Add(rand.N(c.interval))
	}
	return time.Until(c.due)
}

func (c *paced) Do() (Exchange, error) {
	time.Sleep(c.untilDue())
	due := c.due
	c.due = due.Add(c.interval)
	x, err := c.Client.Do()
	x.Due = due
	return x, err
}
