package gracehttp_test

import (
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"math/big"
	"net"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/facebookgo/grace/gracehttp"
)

func TestServeCannotListen(t *testing.T) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	first := &http.Server{Addr: "127.0.0.1:0"}
	err = gracehttp.Serve(first, &http.Server{Addr: l.Addr().String()})
	if err == nil || !strings.Contains(err.Error(), "address already in use") && !strings.Contains(err.Error(), "Only one usage") {
		t.Errorf("Serve = %v, want that the address is in use", err)
	}
	if err := gracehttp.Serve(&http.Server{Addr: "no such address"}); err == nil {
		t.Error("Serve on a bad address = nil")
	}
}

// serve serves s and returns its address, and Serve's result.
func serve(t *testing.T, servers ...*http.Server) (addr string, result <-chan error) {
	t.Helper()
	addrs := make(chan string, len(servers))
	for _, s := range servers {
		s.Addr = "127.0.0.1:0"
		if s.BaseContext == nil {
			s.BaseContext = func(l net.Listener) context.Context {
				addrs <- l.Addr().String()
				return context.Background()
			}
		}
	}
	c := make(chan error, 1)
	go func() { c <- gracehttp.Serve(servers...) }()
	select {
	case addr = <-addrs:
	case err := <-c:
		t.Fatalf("Serve: %v", err)
	}
	return addr, c
}

// closeAndWait closes s and checks that Serve ends as it should.
func closeAndWait(t *testing.T, s *http.Server, result <-chan error) {
	t.Helper()
	if err := s.Close(); err != nil {
		t.Error(err)
	}
	select {
	case err := <-result:
		if err != http.ErrServerClosed {
			t.Errorf("Serve = %v, want http.ErrServerClosed", err)
		}
	case <-time.After(time.Minute):
		t.Fatal("Serve does not return")
	}
}

// A server that the program closes ends Serve, and the others are drained.
func TestServerIsClosedByProgram(t *testing.T) {
	begun, release := make(chan bool), make(chan bool)
	closed := &http.Server{BaseContext: func(net.Listener) context.Context { return context.Background() }}
	other := &http.Server{Handler: http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		begun <- true
		<-release
		fmt.Fprint(w, "done")
	})}
	addr, result := serve(t, closed, other)
	answer := make(chan error, 1)
	go func() {
		resp, err := http.Get("http://" + addr)
		if err == nil {
			resp.Body.Close()
		}
		answer <- err
	}()
	<-begun
	if err := closed.Close(); err != nil {
		t.Error(err)
	}
	select {
	case err := <-result:
		t.Fatalf("Serve returned %v before the request of the other server was answered", err)
	case release <- true:
	}
	if err := <-answer; err != nil {
		t.Errorf("request to the other server: %v", err)
	}
	if err := <-result; err != http.ErrServerClosed {
		t.Errorf("Serve = %v, want http.ErrServerClosed", err)
	}
}

func certificate(t *testing.T) tls.Certificate {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	template := &x509.Certificate{SerialNumber: big.NewInt(1), NotAfter: time.Now().Add(time.Hour)}
	der, err := x509.CreateCertificate(rand.Reader, template, template, &key.PublicKey, key)
	if err != nil {
		t.Fatal(err)
	}
	return tls.Certificate{Certificate: [][]byte{der}, PrivateKey: key}
}

// A server with TLSConfig speaks what its configuration names and nothing else.
func TestTLSProtocols(t *testing.T) {
	var both, only2 http.Protocols
	both.SetHTTP1(true)
	both.SetHTTP2(true)
	only2.SetHTTP2(true)
	cert := certificate(t)
	for _, test := range []struct {
		name      string
		protos    []string
		protocols *http.Protocols
		want      string // the protocol of a client that can do both
	}{
		{"nothing named", nil, nil, "HTTP/1.1"},
		{"NextProtos with h2", []string{"h2", "http/1.1"}, nil, "HTTP/2.0"},
		{"NextProtos without h2", []string{"http/1.1"}, nil, "HTTP/1.1"},
		{"Protocols with both", nil, &both, "HTTP/2.0"},
		{"Protocols with HTTP/2", nil, &only2, "HTTP/2.0"},
	} {
		t.Run(test.name, func(t *testing.T) {
			s := &http.Server{
				TLSConfig: &tls.Config{Certificates: []tls.Certificate{cert}, NextProtos: test.protos},
				Protocols: test.protocols,
				Handler:   http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) { fmt.Fprint(w, r.Proto) }),
			}
			addr, result := serve(t, s)
			transport := &http.Transport{TLSClientConfig: &tls.Config{InsecureSkipVerify: true}, ForceAttemptHTTP2: true}
			defer transport.CloseIdleConnections()
			resp, err := (&http.Client{Transport: transport}).Get("https://" + addr)
			if err != nil {
				t.Fatal(err)
			}
			resp.Body.Close()
			if resp.Proto != test.want {
				t.Errorf("answered with %s, want %s", resp.Proto, test.want)
			}
			closeAndWait(t, s, result)
		})
	}
}

// The functions of the program see what net/http would show them.
func TestConnectionsAreReal(t *testing.T) {
	for _, secure := range []bool{false, true} {
		t.Run(fmt.Sprintf("tls=%v", secure), func(t *testing.T) {
			check := func(where string, c net.Conn) {
				_, plain := c.(*net.TCPConn)
				_, encrypted := c.(*tls.Conn)
				if plain == secure || encrypted != secure {
					t.Errorf("%s gets a %T", where, c)
				}
			}
			states := make(chan http.ConnState, 100)
			addrs := make(chan string, 1)
			s := &http.Server{
				BaseContext: func(l net.Listener) context.Context {
					if _, ok := l.(*net.TCPListener); !ok {
						t.Errorf("BaseContext gets a %T", l)
					}
					addrs <- l.Addr().String()
					return context.Background()
				},
				ConnContext: func(ctx context.Context, c net.Conn) context.Context {
					check("ConnContext", c)
					return ctx
				},
				ConnState: func(c net.Conn, state http.ConnState) {
					check("ConnState", c)
					states <- state
				},
				Handler: http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
					c, rw, err := w.(http.Hijacker).Hijack()
					if err != nil {
						t.Error(err)
						return
					}
					check("Hijack", c)
					fmt.Fprint(rw, "HTTP/1.1 200 OK\r\nContent-Length: 0\r\nConnection: close\r\n\r\n")
					rw.Flush()
					c.Close()
				}),
			}
			scheme := "http"
			if secure {
				scheme = "https"
				s.TLSConfig = &tls.Config{Certificates: []tls.Certificate{certificate(t)}}
			}
			s.Addr = "127.0.0.1:0"
			result := make(chan error, 1)
			go func() { result <- gracehttp.Serve(s) }()
			client := &http.Client{Transport: &http.Transport{TLSClientConfig: &tls.Config{InsecureSkipVerify: true}}}
			resp, err := client.Get(scheme + "://" + <-addrs)
			if err != nil {
				t.Fatal(err)
			}
			resp.Body.Close()
			for _, want := range []http.ConnState{http.StateNew, http.StateActive, http.StateHijacked} {
				if got := <-states; got != want {
					t.Errorf("ConnState gets %v, want %v", got, want)
				}
			}
			closeAndWait(t, s, result)
		})
	}
}

// Without a handler the default one serves.
func TestDefaultHandler(t *testing.T) {
	s := &http.Server{}
	addr, result := serve(t, s)
	resp, err := http.Get("http://" + addr + "/nothing")
	if err != nil {
		t.Fatal(err)
	}
	resp.Body.Close()
	if resp.StatusCode != http.StatusNotFound {
		t.Errorf("status %d, want 404 of http.DefaultServeMux", resp.StatusCode)
	}
	closeAndWait(t, s, result)
}

// A server whose TLS can't work is never ready; Serve says why.
func TestServeTLSWithoutCertificate(t *testing.T) {
	var both http.Protocols
	both.SetHTTP1(true)
	both.SetHTTP2(true)
	err := gracehttp.Serve(&http.Server{Addr: "127.0.0.1:0", TLSConfig: &tls.Config{}, Protocols: &both})
	if err == nil || errors.Is(err, http.ErrServerClosed) {
		t.Errorf("Serve = %v, want the error of net/http", err)
	}
}
