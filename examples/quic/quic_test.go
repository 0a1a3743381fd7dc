//go:build linux

package main

import (
	"bytes"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"encoding/pem"
	"fmt"
	"io"
	"math/big"
	"net/http"
	"os"
	"path/filepath"
	"strconv"
	"testing"
	"time"

	"github.com/quic-go/quic-go/http3"

	"github.com/facebookgo/grace/examples/internal/service"
)

func start(t *testing.T, args ...string) *service.Service {
	t.Helper()
	dir := t.TempDir()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	template := &x509.Certificate{SerialNumber: big.NewInt(1), NotAfter: time.Now().Add(time.Hour), DNSNames: []string{"localhost"}}
	cert, err := x509.CreateCertificate(rand.Reader, template, template, &key.PublicKey, key)
	if err != nil {
		t.Fatal(err)
	}
	der, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		t.Fatal(err)
	}
	write := func(name, kind string, der []byte) string {
		path := filepath.Join(dir, name)
		if err := os.WriteFile(path, pem.EncodeToMemory(&pem.Block{Type: kind, Bytes: der}), 0o600); err != nil {
			t.Fatal(err)
		}
		return path
	}
	return service.Start(t, append([]string{
		"-addr", "127.0.0.1:0",
		"-cert", write("cert.pem", "CERTIFICATE", cert),
		"-key", write("key.pem", "PRIVATE KEY", der),
	}, args...)...)
}

// client makes requests on one connection, as long as that can be used.
type client struct {
	http http.Client
	url  string
}

func newClient(t *testing.T, addr string) *client {
	transport := &http3.Transport{TLSClientConfig: &tls.Config{InsecureSkipVerify: true}}
	t.Cleanup(func() { _ = transport.Close() })
	return &client{http.Client{Transport: transport, Timeout: service.Patience}, "https://" + addr}
}

// ask makes one request, and returns who has answered.
func (c *client) ask() (pid int, err error) {
	question := bytes.Repeat([]byte("question "), 1000)
	response, err := c.http.Post(c.url, "text/plain", bytes.NewReader(question))
	if err != nil {
		return 0, err
	}
	defer response.Body.Close()
	answer, err := io.ReadAll(response.Body)
	if err == nil && !bytes.Equal(answer, question) {
		err = fmt.Errorf("%d bytes come back, which are not the %d that were sent", len(answer), len(question))
	}
	if err != nil {
		return 0, err
	}
	return strconv.Atoi(response.Header.Get("Server-PID"))
}

func (c *client) request() error {
	_, err := c.ask()
	return err
}

// stream is a request that has not ended.
type stream struct {
	pid    int
	body   *io.PipeWriter
	answer io.ReadCloser
}

func newStream(t *testing.T, addr string) *stream {
	t.Helper()
	c := newClient(t, addr)
	c.http.Timeout = 0
	r, w := io.Pipe()
	response, err := c.http.Post(c.url, "text/plain", r)
	if err != nil {
		t.Fatal(err)
	}
	pid, err := strconv.Atoi(response.Header.Get("Server-PID"))
	if err != nil {
		t.Fatal(err)
	}
	return &stream{pid, w, response.Body}
}

// exchange sends some bytes and waits until they come back.
func (s *stream) exchange() error {
	b := make([]byte, 1000)
	_, _ = rand.Read(b)
	if _, err := s.body.Write(b); err != nil {
		return err
	}
	answer := make([]byte, len(b))
	if _, err := io.ReadFull(s.answer, answer); err != nil {
		return err
	}
	if !bytes.Equal(answer, b) {
		return fmt.Errorf("%q comes back for %q", answer, b)
	}
	return nil
}

func (s *stream) end() error {
	_ = s.body.Close()
	rest, err := io.ReadAll(s.answer)
	if err == nil && len(rest) != 0 {
		err = fmt.Errorf("%d bytes too many", len(rest))
	}
	return err
}

// No request fails over 10 restarts: on connections that last, on those that are made
// for one request, or in streams that last longer than a restart, which go on in the
// process that began them.
func TestRestarts(t *testing.T) { testRestarts(t, 10, "-1ns") }

// On standby, the old process has its connections, too.
func TestRestartsWithStandby(t *testing.T) { testRestarts(t, 2, "200ms") }

func testRestarts(t *testing.T, restarts int, standby string) {
	s := start(t, "-standby", standby)
	_, addr := s.Newest()
	lasting := func() *service.Load {
		var requests []func() error
		for range 4 {
			requests = append(requests, newClient(t, addr).request)
		}
		return service.NewLoad(t, requests...)
	}
	fresh := func() *service.Load {
		request := func() error {
			c := newClient(t, addr)
			defer c.http.CloseIdleConnections()
			defer c.http.Transport.(*http3.Transport).Close()
			return c.request()
		}
		return service.NewLoad(t, request, request)
	}

	requests, connections := lasting(), fresh()
	requests.WaitMore(200 * restarts)
	connections.WaitMore(20 * restarts)
	steadyRequests, steadyConnections := requests.Stop(), connections.Stop()

	requests, connections = lasting(), fresh()
	streams := service.NewLoad(t) // exchanges
	for range restarts {
		requests.WaitMore(200)
		connections.WaitMore(20)
		var held []*stream
		for range 3 {
			held = append(held, newStream(t, addr))
		}
		during := service.NewLoad(t, held[0].exchange)
		old, new := s.Restart()
		for range 5 {
			if pid, err := newClient(t, addr).ask(); err != nil || pid != new {
				t.Errorf("a new connection is answered by %d, %v, want %d", pid, err, new)
			}
		}
		for _, h := range held[1:] {
			for range 20 {
				streams.Do(h.exchange)
			}
		}
		during.WaitMore(20)
		during.Stop()
		for _, h := range held {
			if h.pid != old {
				t.Errorf("a stream is with process %d, want %d", h.pid, old)
			}
			streams.Do(h.end)
		}
		s.WaitPID(old, " drained ")
	}
	requests.WaitMore(200)
	connections.WaitMore(20)
	t.Logf("lasting connections, %d restarts: %s", restarts, requests.Stop().Against(steadyRequests))
	t.Logf("fresh connections, %d restarts: %s", restarts, connections.Stop().Against(steadyConnections))
	ended := streams.Stop()
	t.Logf("exchanges in streams that outlived a restart, after it: %d, %d failed, median %v", ended.Requests, ended.Failures, ended.Share(0.5))
	s.Stop()
	foreign := 0
	for _, l := range s.Lines(" done ") {
		n, _ := strconv.Atoi(l.Value("foreign"))
		foreign += n
	}
	if foreign == 0 {
		t.Error("no packet was passed on")
	}
	t.Logf("%d packets were passed on", foreign)
}
