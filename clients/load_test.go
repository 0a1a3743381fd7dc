//go:build unix

package clients_test

import (
	"bytes"
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"net/http"
	"net/http/httptrace"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/facebookgo/grace/internal/testbin"
	"github.com/facebookgo/grace/internal/testbin/play"
)

// row is one kind of client and of request.
type row struct {
	client string // "raw" or "Go"
	method string // GET, or POST with a body
	kept   bool   // connections are kept alive
	listen int    // of listens
	shared bool   // several requests at once on one connection
	idle   bool   // the client takes its time between two requests
}

func (r row) String() string {
	conns := "fresh connections"
	if r.kept {
		conns = "keep-alive"
	}
	if r.shared {
		conns = "one connection shared"
	}
	if r.idle {
		conns += " and idle times"
	}
	proto := []string{"HTTP/1.1", "HTTP/1.1 over TLS", "h2 over TLS", "h2c"}[r.listen]
	return fmt.Sprintf("%s %s %s, %s", r.client, r.method, proto, conns)
}

// rows is the table: every kind of client with every kind of request, protocol and
// connection.
func rows() []row {
	var rows []row
	for _, client := range []string{"raw", "Go"} {
		for _, method := range []string{"GET", "POST"} {
			for _, kept := range []bool{true, false} {
				for i := range listens {
					if client == "raw" && listens[i].HTTP2 {
						continue
					}
					rows = append(rows, row{client: client, method: method, kept: kept, listen: i})
				}
			}
		}
	}
	// A request that comes after GOAWAY was sent is for the client to send again,
	// as RFC 9113 (6.8) says. Go does, but not with a body that it can't read again.
	for _, i := range []int{h2, h2c} {
		rows = append(rows, row{client: "Go", method: "GET", kept: true, listen: i, shared: true})
	}
	// Those who ask all the time learn of the restart at once; others must be waited
	// for.
	for i := range listens {
		client := "raw"
		if listens[i].HTTP2 {
			client = "Go"
		}
		for range 4 {
			rows = append(rows, row{client: client, method: "POST", kept: true, listen: i, idle: true})
		}
	}
	return rows
}

// client makes the requests of a row.
type client interface {
	// ask sends one request, once, and returns the body of the answer.
	ask(body []byte) (string, error)
	// opened returns how many connections there were.
	opened() int64
	// ended returns how many of them the server has ended.
	ended() int64
	close()
}

func (r row) dial(addrs []string) client {
	if r.client == "raw" {
		return &rawClient{row: r, addr: addrs[r.listen]}
	}
	return newGoClient(r, addrs[r.listen])
}

// target checks the answers of a client, which are to hold the body of the request.
// They begin with the pid, which is the answer of the target.
func (r row) target(c client) testbin.Target {
	var n atomic.Int64
	return func(string) (string, error) {
		if r.idle {
			time.Sleep(rand.N(200 * time.Millisecond))
		}
		n := n.Add(1)
		var body []byte
		if r.method == "POST" {
			body = bytes.Repeat(fmt.Appendf(nil, "%8d", n), 2<<10)
		}
		answer, err := c.ask(body)
		if err != nil {
			return "", fmt.Errorf("%s: request %d: %w", r, n, err)
		}
		pid, echo, _ := strings.Cut(answer, "\n")
		if echo != string(body) {
			return "", fmt.Errorf("%s: request %d: %d bytes come back, which are not the %d that were sent", r, n, len(echo), len(body))
		}
		return pid, nil
	}
}

// rawClient knows no more than HTTP/1.1 asks for: it does not use a connection any
// more when an answer says so. Each request that it has begun to write counts. It is
// stricter than gracetest.Raw: it does not look whether the server has closed the
// connection, no two of its requests are the same, and some are chunked.
type rawClient struct {
	row
	addr  string
	wire  *testbin.Wire
	conns int64
	asked int
}

func (c *rawClient) ask(body []byte) (string, error) {
	if c.wire == nil {
		wire, err := testbin.TryDial(listens[c.listen], c.addr)
		if err != nil {
			return "", err
		}
		c.wire = wire
		c.conns++
	}
	if err := c.wire.SetDeadline(time.Now().Add(patience)); err != nil {
		return "", err
	}
	if _, err := c.wire.Write(c.request(body)); err != nil {
		c.close()
		return "", fmt.Errorf("write to connection %d: %w", c.conns, err)
	}
	reply, err := c.wire.TryReceive()
	if err != nil {
		c.close()
		return "", fmt.Errorf("no answer on connection %d: %w", c.conns, err)
	}
	if !c.kept || reply.Close {
		c.close()
	}
	if reply.Status != http.StatusOK {
		return "", fmt.Errorf("status %d: %s", reply.Status, reply.Body)
	}
	return reply.Body, nil
}

// request is the text of the next request. Every other body is chunked.
func (c *rawClient) request(body []byte) []byte {
	c.asked++
	b := fmt.Appendf(nil, "%s / HTTP/1.1\r\nHost: x\r\n", c.method)
	if !c.kept {
		b = append(b, "Connection: close\r\n"...)
	}
	switch {
	case body == nil:
		return append(b, "\r\n"...)
	case c.asked%2 == 0:
		b = fmt.Appendf(b, "Content-Length: %d\r\n\r\n", len(body))
		return append(b, body...)
	}
	half := len(body) / 2
	return fmt.Appendf(b, "Transfer-Encoding: chunked\r\n\r\n%x\r\n%s\r\n%x\r\n%s\r\n0\r\n\r\n",
		half, body[:half], len(body)-half, body[half:])
}

func (c *rawClient) opened() int64 { return c.conns }

// ended is of one that keeps its connections.
func (c *rawClient) ended() int64 { return c.conns - 1 }

func (c *rawClient) close() {
	if c.wire != nil {
		_ = c.wire.Close()
		c.wire = nil
	}
}

// goClient is net/http. Its Transport sends a request again, without a word, if the
// connection turns out to be closed; goClient finds that out.
type goClient struct {
	row
	url    string
	client *http.Client
	conns  atomic.Int64
	asked  atomic.Int64
	again  atomic.Int64
	over   atomic.Int64 // connections that the server has closed, or has said that it will
}

// goConn is a connection of a goClient. The Transport gives a connection up if it takes
// long to hear of its own writing, which is nothing that the server has done.
type goConn struct {
	net.Conn
	client *goClient
}

func (c *goConn) Read(p []byte) (int, error) {
	n, err := c.Conn.Read(p)
	if err != nil && !errors.Is(err, net.ErrClosed) {
		c.client.over.Add(1)
	}
	return n, err
}

func newGoClient(r row, addr string) *goClient {
	l := listens[r.listen]
	scheme := "http"
	if l.TLS {
		scheme = "https"
	}
	transport := &http.Transport{
		TLSClientConfig:   &tls.Config{InsecureSkipVerify: true},
		DisableKeepAlives: !r.kept,
		MaxConnsPerHost:   1,
		Protocols:         new(http.Protocols),
	}
	transport.Protocols.SetHTTP1(!l.HTTP2)
	transport.Protocols.SetHTTP2(l.HTTP2 && l.TLS)
	transport.Protocols.SetUnencryptedHTTP2(l.HTTP2 && !l.TLS)
	c := &goClient{row: r, url: scheme + "://" + addr, client: &http.Client{Timeout: patience, Transport: transport}}
	transport.DialContext = func(ctx context.Context, network, addr string) (net.Conn, error) {
		conn, err := new(net.Dialer).DialContext(ctx, network, addr)
		if err != nil {
			return nil, err
		}
		return &goConn{conn, c}, nil
	}
	return c
}

func (c *goClient) ask(body []byte) (string, error) {
	var reader io.Reader
	if body != nil {
		reader = io.MultiReader(bytes.NewReader(body)) // which can't be read again
	}
	req, err := http.NewRequest(c.method, c.url, reader)
	if err != nil {
		return "", err
	}
	if c.asked.Add(1)%2 == 0 { // else it is chunked
		req.ContentLength = int64(len(body))
	}
	var sent atomic.Int64
	req = req.WithContext(httptrace.WithClientTrace(req.Context(), &httptrace.ClientTrace{
		GotConn: func(i httptrace.GotConnInfo) {
			if !i.Reused {
				c.conns.Add(1)
			}
		},
		WroteHeaders: func() { sent.Add(1) },
	}))
	resp, err := c.client.Do(req)
	if err != nil {
		return "", err
	}
	defer resp.Body.Close()
	answer, err := io.ReadAll(resp.Body)
	if err != nil {
		return "", err
	}
	if resp.StatusCode != http.StatusOK {
		return "", fmt.Errorf("status %s: %s", resp.Status, answer)
	}
	if want := listens[c.listen].HTTP2; (resp.ProtoMajor == 2) != want {
		return "", fmt.Errorf("the protocol is %s", resp.Proto)
	}
	if resp.Close {
		c.over.Add(1)
	}
	if n := sent.Load(); n > 1 { // HTTP/2 may count the last one after the answer
		c.again.Add(1)
		if !c.shared {
			return "", fmt.Errorf("the request was sent %d times", n)
		}
	}
	return string(answer), nil
}

func (c *goClient) opened() int64 { return c.conns.Load() }
func (c *goClient) ended() int64  { return c.over.Load() }
func (c *goClient) close()        { c.client.CloseIdleConnections() }

// No request of any client fails, whatever it sends and how. All rows load one
// service at once; another one hands idle connections over.
func TestLoad(t *testing.T) {
	drained := config()
	handed := config()
	handed.Standby = 50 * time.Millisecond
	handed.HandOverIdle = true
	for name, cfg := range map[string]play.Config{
		"drained":     drained,
		"handed over": handed,
	} {
		t.Run(name, func(t *testing.T) { load(t, cfg) })
	}
}

func load(t *testing.T, cfg play.Config) {
	s := testbin.Start(t, cfg)
	first, addrs := s.Newest()
	rows := rows()
	var clients []client
	var loads []*testbin.Load
	for _, r := range rows {
		c := r.dial(addrs)
		targets := []testbin.Target{r.target(c)}
		if r.shared {
			for range 7 {
				targets = append(targets, targets[0])
			}
		}
		load := testbin.NewLoad(t, targets...)
		clients, loads = append(clients, c), append(loads, load)
	}
	for _, load := range loads {
		load.WaitPID(first)
	}
	begin := time.Now()
	n := restarts(5)
	for range n {
		_, new := restart(t, s)
		// Every client has used the connection that the next restart is to end.
		for _, load := range loads {
			load.WaitPID(new)
		}
	}
	t.Logf("%d restarts took %v", n, time.Since(begin))
	for i, load := range loads {
		load.Stop()
		c := clients[i]
		c.close()
		if g, ok := c.(*goClient); ok && g.shared {
			t.Logf("%s: %d requests were sent again", rows[i], g.again.Load())
		}
		t.Logf("%s: %d connections", rows[i], c.opened())
		if cfg.HandOverIdle && rows[i].kept && rows[i].listen == plain && c.ended() != 0 {
			t.Errorf("%s: the server has ended %d of %d connections, want one for all the processes", rows[i], c.ended(), c.opened())
		}
	}
	s.Stop()
}
