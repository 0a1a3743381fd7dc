//go:build unix

package gracetest_test

import (
	"bufio"
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"log"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/facebookgo/grace/gracetest"
)

// both are the clients that speak HTTP.
var both = map[string]func(gracetest.Request) gracetest.Client{"raw": gracetest.Raw, "net/http": gracetest.HTTP}

// each runs a test with both clients, one after the other.
func each(t *testing.T, test func(t *testing.T, client func(gracetest.Request) gracetest.Client)) {
	for name, client := range both {
		t.Run(name, func(t *testing.T) {
			test(t, func(r gracetest.Request) gracetest.Client {
				c := client(r)
				t.Cleanup(func() { _ = c.Close() })
				return c
			})
		})
	}
}

// do makes a request that must be answered.
func do(t *testing.T, c gracetest.Client) gracetest.Exchange {
	t.Helper()
	x, err := c.Do()
	if err != nil {
		t.Fatalf("%s: %v", c, err)
	}
	return x
}

// scripted is a server that does with each connection what a test says, and then
// closes it. Its end of a connection is closed for the client when Close returns: it
// is a unix socket.
type scripted struct {
	path     string
	conns    atomic.Int32
	closed   chan struct{} // gets a value for each connection that was closed
	requests atomic.Int32
}

func script(t *testing.T, config *tls.Config, serve func(s *scripted, n int, c net.Conn, r *bufio.Reader)) *scripted {
	t.Helper()
	dir, err := os.MkdirTemp("", "grace") // the directory of the test may be too long
	if err != nil {
		t.Fatal(err)
	}
	s := &scripted{path: filepath.Join(dir, "s"), closed: make(chan struct{}, 100)}
	l, err := net.Listen("unix", s.path)
	if err != nil {
		t.Fatal(err)
	}
	var running sync.WaitGroup
	ctx, cancel := context.WithCancel(context.Background())
	running.Add(1)
	go func() {
		defer running.Done()
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			if config != nil {
				c = tls.Server(c, config)
			}
			n := int(s.conns.Add(1))
			stop := context.AfterFunc(ctx, func() { _ = c.Close() })
			running.Add(1)
			go func() {
				defer running.Done()
				serve(s, n, c, bufio.NewReader(c))
				stop()
				_ = c.Close()
				s.closed <- struct{}{}
			}()
		}
	}()
	t.Cleanup(func() {
		_ = l.Close()
		cancel()
		running.Wait()
		_ = os.RemoveAll(dir)
	})
	return s
}

// read reads a request, and counts it.
func (s *scripted) read(r *bufio.Reader) (string, error) {
	req, err := http.ReadRequest(r)
	if err != nil {
		return "", err
	}
	b, err := io.ReadAll(req.Body)
	s.requests.Add(1)
	return req.Method + " " + string(b), err
}

// certificate is one that httptest has.
func certificate(t *testing.T) *tls.Config {
	s := httptest.NewTLSServer(nil)
	defer s.Close()
	return &tls.Config{Certificates: s.TLS.Certificates}
}

// A connection is kept until the server says that it is not.
func TestConnections(t *testing.T) {
	each(t, func(t *testing.T, client func(gracetest.Request) gracetest.Client) {
		var n atomic.Int32
		s := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			if n.Add(1) == 3 {
				w.Header().Set("Connection", "close")
			}
			fmt.Fprint(w, r.RemoteAddr)
		}))
		defer s.Close()
		c := client(gracetest.Request{URL: s.URL})
		var all []gracetest.Exchange
		for i, want := range []struct {
			nth   int
			again bool
		}{{1, false}, {2, false}, {3, false}, {1, true}, {2, false}} {
			x := do(t, c)
			all = append(all, x)
			if x.Nth != want.nth || x.Reconnected != want.again || x.Status != http.StatusOK {
				t.Errorf("request %d: %+v, want it to be number %d, reconnected: %t", i+1, x, want.nth, want.again)
			}
		}
		for i := range len(all) - 1 {
			same := i != 2
			if (all[i].Answer == all[i+1].Answer) != same || all[i].Opened.Equal(all[i+1].Opened) != same {
				t.Errorf("requests %d and %d: %+v and %+v, want one connection: %t", i+1, i+2, all[i], all[i+1], same)
			}
		}

		fresh := client(gracetest.Request{URL: s.URL, Fresh: true})
		first, second := do(t, fresh), do(t, fresh)
		for _, x := range []gracetest.Exchange{first, second} {
			if x.Nth != 1 || x.Reconnected {
				t.Errorf("with fresh connections: %+v", x)
			}
		}
		if first.Answer == second.Answer {
			t.Errorf("with fresh connections both requests come from %s", first.Answer)
		}
	})
}

// A server that does not close connections that it is asked to close does not make
// them last.
func TestFreshOfStubbornServer(t *testing.T) {
	s := script(t, nil, func(s *scripted, n int, c net.Conn, r *bufio.Reader) {
		for {
			if _, err := s.read(r); err != nil {
				return
			}
			fmt.Fprintf(c, "HTTP/1.1 200 OK\r\nContent-Length: 1\r\n\r\n%d", n)
		}
	})
	each(t, func(t *testing.T, client func(gracetest.Request) gracetest.Client) {
		c := client(gracetest.Request{URL: "http://localhost/", Unix: s.path, Fresh: true})
		if first, second := do(t, c), do(t, c); first.Answer == second.Answer {
			t.Errorf("both requests come from connection %s", first.Answer)
		}
	})
}

// Answers of all kinds are read to their end and no further, so that the next one is
// found.
func TestAnswers(t *testing.T) {
	long := strings.Repeat("0123456789", 10_000)
	handlers := []struct {
		answer func(http.ResponseWriter)
		want   string
	}{
		{func(w http.ResponseWriter) { fmt.Fprint(w, "short") }, "short"},
		{func(w http.ResponseWriter) {}, ""},
		{func(w http.ResponseWriter) {
			w.Header().Set("Content-Length", fmt.Sprint(len(long)))
			fmt.Fprint(w, long)
		}, long},
		{func(w http.ResponseWriter) { fmt.Fprint(w, long) }, long}, // chunked
		{func(w http.ResponseWriter) {
			fmt.Fprint(w, "chunk")
			w.(http.Flusher).Flush()
			fmt.Fprint(w, "chunk")
		}, "chunkchunk"},
		{func(w http.ResponseWriter) { w.WriteHeader(http.StatusNoContent) }, ""},
		{func(w http.ResponseWriter) {
			w.WriteHeader(http.StatusEarlyHints)
			fmt.Fprint(w, "later")
		}, "later"},
		{func(w http.ResponseWriter) { fmt.Fprint(w, "last") }, "last"},
	}
	for _, method := range []string{http.MethodGet, http.MethodPost, http.MethodHead} {
		t.Run(method, func(t *testing.T) {
			each(t, func(t *testing.T, client func(gracetest.Request) gracetest.Client) {
				var n atomic.Int32
				s := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
					if b, _ := io.ReadAll(r.Body); r.Method != method || string(b) != "body"[:len(b)] || (method == http.MethodPost) != (len(b) != 0) || r.Header.Get("X-Test") != "yes" {
						t.Errorf("%s with %q and %v", r.Method, b, r.Header)
					}
					handlers[n.Add(1)-1].answer(w)
				}))
				defer s.Close()
				r := gracetest.Request{URL: s.URL, Method: method, Header: http.Header{"X-Test": {"yes"}}}
				if method == http.MethodPost {
					r.Body = []byte("body")
				}
				c := client(r)
				for i, h := range handlers {
					want := h.want
					if method == http.MethodHead {
						want = ""
					}
					if x := do(t, c); x.Answer != want || x.Nth != i+1 {
						t.Errorf("answer %d is %.20q with %d bytes, number %d on its connection; want %.20q with %d", i+1, x.Answer, len(x.Answer), x.Nth, want, len(want))
					}
				}
			})
		})
	}
}

// Half an answer is a loss, and so is none.
func TestHalfAnswers(t *testing.T) {
	const closed = "the server has closed the connection"
	for _, test := range []struct{ sent, want string }{
		{"", "receive the answer: " + closed},
		{"HTTP/1.1 200 OK\r\nContent-Length: 10\r\n", "receive the answer: " + closed},
		{"HTTP/1.1 200 OK\r\nContent-", `receive the answer: malformed MIME header: missing colon: "Content-"`},
		{"HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\nabc", "receive the answer: after 3 bytes of the body: " + closed},
		{"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n", "receive the answer: after 3 bytes of the body: " + closed},
		{"HTTP/1.1 100 Continue\r\n\r\n", "receive the answer: " + closed},
		{"rubbish\r\n\r\n", "malformed HTTP"},
	} {
		t.Run(fmt.Sprintf("%.50q", test.sent), func(t *testing.T) {
			s := script(t, nil, func(s *scripted, n int, c net.Conn, r *bufio.Reader) {
				if _, err := s.read(r); err != nil {
					return
				}
				text := test.sent
				if n%2 == 0 {
					text = "HTTP/1.1 200 OK\r\nContent-Length: 4\r\nConnection: close\r\n\r\ngood"
				}
				_, _ = io.WriteString(c, text)
			})
			each(t, func(t *testing.T, client func(gracetest.Request) gracetest.Client) {
				c := client(gracetest.Request{URL: "http://localhost/", Unix: s.path})
				x, err := c.Do()
				if err == nil || strings.Contains(c.String(), "raw") && !strings.Contains(err.Error(), test.want) {
					t.Errorf("error %v, want %q", err, test.want)
				}
				if x.Answer != "" || x.Nth != 1 || x.Opened.IsZero() {
					t.Errorf("a request that was lost: %+v", x)
				}
				if x := do(t, c); x.Answer != "good" || x.Nth != 1 || !x.Reconnected {
					t.Errorf("after a loss: %+v", x)
				}
			})
		})
	}
}

// What a server says that can't answer is a loss.
func TestStatus(t *testing.T) {
	var status atomic.Int32
	s := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Location", "/elsewhere")
		w.WriteHeader(int(status.Load()))
		fmt.Fprint(w, "busy")
	}))
	defer s.Close()
	each(t, func(t *testing.T, client func(gracetest.Request) gracetest.Client) {
		c := client(gracetest.Request{URL: s.URL})
		for code, lost := range map[int]bool{200: false, 201: false, 302: false, 404: false, 405: false, 400: true, 408: true, 500: true, 503: true} {
			status.Store(int32(code))
			x, err := c.Do()
			if x.Status != code || (err != nil) != lost {
				t.Errorf("status %d: %+v, %v; want a loss: %t", code, x, err, lost)
			}
			if want := fmt.Sprintf("status %d: busy", code); lost && (err == nil || err.Error() != want) {
				t.Errorf("error %v, want %q", err, want)
			}
		}
	})
}

// A good client looks whether the server has closed a connection that is idle.
func TestIdleConnectionClosed(t *testing.T) {
	for name, config := range map[string]*tls.Config{"http": nil, "https": certificate(t)} {
		t.Run(name, func(t *testing.T) {
			s := script(t, config, func(s *scripted, n int, c net.Conn, r *bufio.Reader) {
				for range 2 {
					if _, err := s.read(r); err != nil {
						return
					}
					fmt.Fprintf(c, "HTTP/1.1 200 OK\r\nContent-Length: 1\r\n\r\n%d", n)
				}
			})
			c := gracetest.Raw(gracetest.Request{URL: name + "://localhost/", Unix: s.path})
			defer c.Close()
			for n := 1; n <= 3; n++ {
				for nth := 1; nth <= 2; nth++ {
					if x := do(t, c); x.Answer != fmt.Sprint(n) || x.Nth != nth || x.Reconnected != (n > 1 && nth == 1) {
						t.Errorf("request %d on connection %d: %+v", nth, n, x)
					}
				}
				<-s.closed
			}
		})
	}
}

// What nobody has asked for is no answer, whether it comes with the one before or
// later.
func TestUnaskedAnswer(t *testing.T) {
	const unasked = "HTTP/1.1 200 OK\r\nContent-Length: 7\r\n\r\nunasked"
	for _, later := range []bool{false, true} {
		t.Run(fmt.Sprintf("later %t", later), func(t *testing.T) {
			sent := make(chan struct{}, 100)
			s := script(t, nil, func(s *scripted, n int, c net.Conn, r *bufio.Reader) {
				if _, err := s.read(r); err != nil {
					return
				}
				good := fmt.Sprintf("HTTP/1.1 200 OK\r\nContent-Length: 1\r\n\r\n%d", n)
				if later {
					_, _ = io.WriteString(c, good)
					_, _ = io.WriteString(c, unasked)
				} else {
					_, _ = io.WriteString(c, good+unasked)
				}
				sent <- struct{}{}
				_, _ = s.read(r) // the end
			})
			c := gracetest.Raw(gracetest.Request{URL: "http://localhost/", Unix: s.path})
			defer c.Close()
			for n := 1; n <= 3; n++ {
				if x := do(t, c); x.Answer != fmt.Sprint(n) {
					t.Errorf("request %d: %+v", n, x)
				}
				<-sent
			}
		})
	}
}

func TestBadRequests(t *testing.T) {
	each(t, func(t *testing.T, client func(gracetest.Request) gracetest.Client) {
		for url, want := range map[string]string{
			"ftp://localhost/": "scheme",
			"localhost:80":     "scheme",
			"http://":          "no ",
			"http://%zz/":      "invalid URL escape",
		} {
			c := client(gracetest.Request{URL: url})
			if x, err := c.Do(); err == nil || !strings.Contains(err.Error(), want) || x.Opened.IsZero() || x.Nth != 1 {
				t.Errorf("%s: %+v, %v, want %q", url, x, err, want)
			}
		}
		c := client(gracetest.Request{URL: "http://" + gracetest.FreeAddr(t)})
		for range 2 {
			if x, err := c.Do(); err == nil || !strings.Contains(err.Error(), "connection refused") || x.Nth != 1 {
				t.Errorf("where nobody listens: %+v, %v", x, err)
			}
		}
	})
}

// A connection that could not be opened is not the one before.
func TestRefusedAfterAnswer(t *testing.T) {
	each(t, func(t *testing.T, client func(gracetest.Request) gracetest.Client) {
		s := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			w.Header().Set("Connection", "close")
		}))
		c := client(gracetest.Request{URL: s.URL})
		first := do(t, c)
		s.Close()
		if x, err := c.Do(); err == nil || x.Nth != 1 || !x.Opened.After(first.Opened) {
			t.Errorf("refused: %+v, %v, want a connection that is younger than that of %+v", x, err, first)
		}
	})
}

// No request is sent twice, whatever net/http would like to do.
func TestNeverTwice(t *testing.T) {
	for _, r := range []gracetest.Request{
		{},
		{Method: http.MethodPost},
		{Method: http.MethodPost, Body: []byte("body")},
		{Header: http.Header{"Idempotency-Key": {"1"}}},
	} {
		t.Run(fmt.Sprintf("%s %s %v", r.Method, r.Body, r.Header), func(t *testing.T) {
			each(t, func(t *testing.T, client func(gracetest.Request) gracetest.Client) {
				s := script(t, nil, func(s *scripted, n int, c net.Conn, r *bufio.Reader) {
					if _, err := s.read(r); err != nil {
						return
					}
					_, _ = io.WriteString(c, "HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n")
					_, _ = s.read(r)
				})
				r := r
				r.URL, r.Unix = "http://localhost/", s.path
				c := client(r)
				do(t, c)
				if x, err := c.Do(); err == nil || x.Nth != 2 {
					t.Errorf("a request on a connection that is cut: %+v, %v, want it lost", x, err)
				}
				if got := s.requests.Load(); got != 2 {
					t.Errorf("the server got %d requests, want 2", got)
				}
			})
		})
	}
}

// Over TLS net/http speaks HTTP/2 where the server does, and sends nothing twice
// then either.
func TestHTTP2(t *testing.T) {
	type connKey struct{}
	for _, method := range []string{http.MethodGet, http.MethodPost} {
		each(t, func(t *testing.T, client func(gracetest.Request) gracetest.Client) {
			var n atomic.Int32
			s := httptest.NewUnstartedServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
				if n.Add(1) == 3 {
					_ = r.Context().Value(connKey{}).(net.Conn).Close()
					return
				}
				fmt.Fprint(w, r.Proto)
			}))
			s.Config.ConnContext = func(ctx context.Context, c net.Conn) context.Context {
				return context.WithValue(ctx, connKey{}, c.(*tls.Conn).NetConn())
			}
			s.EnableHTTP2 = true
			s.StartTLS()
			defer s.Close()
			c := client(gracetest.Request{URL: s.URL, Method: method})
			want := "HTTP/1.1"
			if strings.Contains(c.String(), "net/http") {
				want = "HTTP/2.0"
			}
			for nth := 1; nth <= 2; nth++ {
				if x := do(t, c); x.Answer != want || x.Nth != nth {
					t.Errorf("request %d: %+v, want %s", nth, x, want)
				}
			}
			if x, err := c.Do(); err == nil || x.Nth != 3 {
				t.Errorf("a request on a connection that is cut: %+v, %v, want it lost", x, err)
			}
			if x := do(t, c); x.Nth != 1 || !x.Reconnected {
				t.Errorf("after that: %+v", x)
			}
			if got := n.Load(); got != 4 {
				t.Errorf("the server got %d requests, want 4", got)
			}
		})
	}
}

// The configuration that a test gives for TLS counts.
func TestTLSConfig(t *testing.T) {
	s := httptest.NewUnstartedServer(http.HandlerFunc(func(http.ResponseWriter, *http.Request) {}))
	s.Config.ErrorLog = log.New(io.Discard, "", 0)
	s.StartTLS()
	defer s.Close()
	trusting := s.Client().Transport.(*http.Transport).TLSClientConfig
	each(t, func(t *testing.T, client func(gracetest.Request) gracetest.Client) {
		do(t, client(gracetest.Request{URL: s.URL, TLS: trusting}))
		if x, err := client(gracetest.Request{URL: s.URL, TLS: &tls.Config{}}).Do(); err == nil || !strings.Contains(err.Error(), "certificate") {
			t.Errorf("a certificate that nobody knows: %+v, %v", x, err)
		}
	})
}

// A request that comes late is counted from when it was due, one after the other.
func TestPaced(t *testing.T) {
	const interval = 10 * time.Millisecond
	n := 0
	c := gracetest.Paced(gracetest.Func("slow", func() (string, error) {
		if n++; n == 1 {
			<-time.After(5 * interval) // a slow one
		}
		return "", nil
	}), interval)
	if got, want := c.String(), "slow every 10ms"; got != want {
		t.Errorf("it is called %q, want %q", got, want)
	}
	before := time.Now()
	first := do(t, c)
	if first.Due.Before(before) {
		t.Errorf("the first request was due %v before it was made", before.Sub(first.Due))
	}
	for i := 1; i <= 6; i++ {
		x := do(t, c)
		if late := x.Due.Sub(first.Due); late != time.Duration(i)*interval {
			t.Errorf("request %d was due %v after the first one, want %v", i, late, time.Duration(i)*interval)
		}
		if time.Now().Before(x.Due) {
			t.Errorf("request %d was made before it was due", i)
		}
	}
	if x := do(t, gracetest.Paced(c, 0)); x.Due.Sub(first.Due) != 7*interval {
		t.Errorf("without an interval a request is due %v after the first one, want %v", x.Due.Sub(first.Due), 7*interval)
	}
}

func TestFunc(t *testing.T) {
	failed := errors.New("on purpose")
	before := time.Now()
	c := gracetest.Func("mine", func() (string, error) { return "answer", failed })
	x, err := c.Do()
	if err != failed || x.Answer != "answer" || x.Opened.Before(before) || x.Nth != 1 || x.Reconnected {
		t.Errorf("got %+v, %v", x, err)
	}
	if c.String() != "mine" || c.Close() != nil {
		t.Errorf("it is called %q, and closed with %v", c, c.Close())
	}
}

// The mix has every client with every kind of request and connection.
func TestMix(t *testing.T) {
	s := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		b, _ := io.ReadAll(r.Body)
		fmt.Fprintf(w, "%s %s%s", r.Method, r.URL, b)
	}))
	defer s.Close()
	var got []string
	for _, c := range gracetest.Mix(s.URL+"/1", s.URL+"/2") {
		x := do(t, c)
		do(t, c)
		got = append(got, strings.ReplaceAll(fmt.Sprintf("%s: %s", c, x.Answer), s.URL, ""))
		_ = c.Close()
	}
	slices.Sort(got)
	var want []string
	for _, path := range []string{"/1", "/2"} {
		for _, method := range []string{"GET", "POST"} {
			answer := method + " " + path
			if method == "POST" {
				answer += "gracetest"
			}
			for _, conns := range []string{"kept connection", "fresh connections"} {
				for _, client := range []string{"net/http, " + conns + ")", "raw, " + conns + ")", "raw, " + conns + ") every 50ms"} {
					want = append(want, fmt.Sprintf("%s %s (%s: %s", method, path, client, answer))
				}
			}
		}
	}
	slices.Sort(want)
	if !slices.Equal(got, want) {
		t.Errorf("got:\n%s\nwant:\n%s", strings.Join(got, "\n"), strings.Join(want, "\n"))
	}
}
