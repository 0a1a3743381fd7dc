//go:build unix

package gracehttp

import (
	"bytes"
	"crypto/tls"
	"io"
	"net"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/facebookgo/grace/internal/handoff"
	"github.com/facebookgo/grace/internal/testbin/compare"
)

// What the library adds to a request.

const greeting = "hello, world\n"

func greet(w http.ResponseWriter, r *http.Request) {
	_, _ = io.Copy(io.Discard, r.Body)
	_, _ = io.WriteString(w, greeting)
}

// setup is how a server is compared with one of net/http.
type setup struct {
	name   string
	secure bool
	set    func(*app)
	then   func(*app) // when it has its connections; may be nil
}

var setups = []setup{
	{name: "default", set: func(*app) {}},
	{name: "TLS", secure: true, set: func(*app) {}},
	{name: "WaitHijacked", set: func(a *app) { a.waitHijacked = true }},
	{name: "WaitHijacked and TLS", secure: true, set: func(a *app) { a.waitHijacked = true }},
	{name: "HandOverIdle", set: func(a *app) { a.handOverIdle = true }},
	{name: "HandOverIdle in standby", set: func(a *app) { a.handOverIdle = true }, then: func(a *app) {
		a.servers[0].heir.Store(&handoff.Child{})
		a.tracker.closing.Store(true)
	}},
}

// connect serves with net/http, and with ours, and returns connections to each.
func (s setup) connect(tb testing.TB, n int) (plain, ours []net.Conn) {
	tb.Helper()
	newServer := func() *http.Server {
		server := &http.Server{Handler: http.HandlerFunc(greet)}
		if s.secure {
			server.TLSConfig = serverConfig(tb)
		}
		return server
	}
	dial := func(l net.Listener) (conns []net.Conn) {
		for range n {
			c, err := net.Dial("tcp", l.Addr().String())
			if err != nil {
				tb.Fatal(err)
			}
			tb.Cleanup(func() { _ = c.Close() })
			if s.secure {
				c = tls.Client(c, tlsClient(tls.VersionTLS13))
			}
			ask(tb, c, aRequest)(1) // or it has no state yet
			conns = append(conns, c)
		}
		return conns
	}

	l := newListener(tb)
	server, served := newServer(), make(chan struct{})
	go func() {
		defer close(served)
		if s.secure {
			_ = server.Serve(tls.NewListener(l, server.TLSConfig))
		} else {
			_ = server.Serve(l)
		}
	}()
	tb.Cleanup(func() { _ = server.Close(); <-served })
	plain = dial(l)

	l = newListener(tb)
	a := serveApp(tb, l, newServer(), s.set).app
	ours = dial(l)
	if s.then != nil {
		s.then(a)
	}
	return plain, ours
}

// ask returns a function that makes n requests, one after the other, and allocates
// nothing.
func ask(tb testing.TB, c net.Conn, request string) func(n int) {
	question, end, answer := []byte(request), []byte(greeting), make([]byte, 4096)
	return func(n int) {
		_ = c.SetDeadline(time.Now().Add(testPatience))
		for range n {
			if _, err := c.Write(question); err != nil {
				tb.Error(err)
				return
			}
			for got := 0; !bytes.HasSuffix(answer[:got], end); {
				n, err := c.Read(answer[got:])
				if err != nil {
					tb.Error(err)
					return
				}
				got += n
			}
		}
	}
}

// No request costs an allocation more than it does with net/http alone.
func TestRequestsAllocateNothing(t *testing.T) {
	post := strings.Replace(aRequest, "GET", "POST", 1)
	requests := []struct{ name, text string }{
		{"GET", aRequest},
		{"body", withField(post, "Content-Length: 5") + "hello"},
		{"chunks", withField(post, "Transfer-Encoding: chunked") + "5\r\nhello\r\n0\r\n\r\n"},
		// Which does not fit in the buffer of net/http.
		{"cookie", withField(aRequest, "Cookie: "+strings.Repeat("x", 5000))},
		{"path", strings.Replace(aRequest, "/", "/"+strings.Repeat("x", 5000), 1)},
	}
	for _, s := range setups {
		t.Run(s.name, func(t *testing.T) {
			plain, ours := s.connect(t, 1)
			for _, r := range requests {
				if n := compare.Allocations(100, ask(t, plain[0], r.text), ask(t, ours[0], r.text)); n > 0 {
					t.Errorf("%s: %d allocations more", r.name, n)
				}
			}
		})
	}
}

// withField adds a field to the header of a request.
func withField(request, field string) string {
	return strings.Replace(request, "\r\n", "\r\n"+field+"\r\n", 1)
}
