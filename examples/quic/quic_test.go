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
	"strings"
	"testing"
	"time"

	"github.com/quic-go/quic-go"
	"github.com/quic-go/quic-go/http3"

	"github.com/facebookgo/grace/examples/internal/service"
	"github.com/facebookgo/grace/gracetest"
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
	transport := &http3.Transport{
		TLSClientConfig: &tls.Config{InsecureSkipVerify: true},
		QUICConfig:      &quic.Config{HandshakeIdleTimeout: gracetest.Patience, KeepAlivePeriod: 10 * time.Second}, // instead of 5 s for the first
	}
	t.Cleanup(func() { _ = transport.Close() })
	return &client{http.Client{Transport: transport, Timeout: gracetest.Patience}, "https://" + addr}
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

func (c *client) request() (pid string, err error) {
	n, err := c.ask()
	return strconv.Itoa(n), err
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
	addr := s.Addr()
	lasting := func() *gracetest.Load {
		var clients []gracetest.Client
		for range 4 {
			clients = append(clients, gracetest.Func("a client with a lasting connection", newClient(t, addr).request))
		}
		return gracetest.NewLoad(t, clients...)
	}
	fresh := func() *gracetest.Load {
		c := gracetest.Func("a client with a fresh connection", func() (string, error) {
			c := newClient(t, addr)
			defer c.http.CloseIdleConnections()
			defer c.http.Transport.(*http3.Transport).Close()
			return c.request()
		})
		return gracetest.NewLoad(t, c, c)
	}

	requests, connections := lasting(), fresh()
	for range restarts {
		requests.WaitMore(200)
		connections.WaitMore(20)
	}
	steadyRequests, steadyConnections := requests.Stop(), connections.Stop()

	requests, connections = lasting(), fresh()
	var outlived []gracetest.Sample // exchanges in streams that outlived a restart, after it
	exchange := func(do func() error) {
		begun := time.Now()
		if err := do(); err != nil {
			t.Errorf("a stream that outlived a restart: %v", err)
		}
		outlived = append(outlived, gracetest.Sample{Took: time.Since(begun)})
	}
	for range restarts {
		requests.WaitMore(200)
		connections.WaitMore(20)
		var held []*stream
		for range 3 {
			held = append(held, newStream(t, addr))
		}
		during := gracetest.NewLoad(t, gracetest.Func("a stream", func() (string, error) { return "", held[0].exchange() }))
		old, new := s.Handover()
		for range 5 {
			if pid, err := newClient(t, addr).ask(); err != nil || pid != new {
				t.Errorf("a new connection is answered by %d, %v, want %d", pid, err, new)
			}
		}
		for _, h := range held[1:] {
			for range 20 {
				exchange(h.exchange)
			}
		}
		during.WaitMore(20)
		during.Stop()
		for _, h := range held {
			if h.pid != old {
				t.Errorf("a stream is with process %d, want %d", h.pid, old)
			}
			exchange(h.end)
		}
		s.WaitPID(old, " drained ")
	}
	requests.WaitMore(200)
	connections.WaitMore(20)
	t.Logf("lasting connections, %d restarts: %s", restarts, service.Against(requests.Stop(), steadyRequests))
	t.Logf("fresh connections, %d restarts: %s", restarts, service.Against(connections.Stop(), steadyConnections))
	t.Logf("exchanges in streams that outlived a restart, after it: %d, median %v", len(outlived), gracetest.Latency(outlived, 0.5))
	s.Stop()
	foreign := 0
	for _, l := range s.Lines() {
		if strings.Contains(l.Text, " done ") {
			n, _ := strconv.Atoi(service.Value(l, "foreign"))
			foreign += n
		}
	}
	if foreign == 0 {
		t.Error("no packet was passed on")
	}
	t.Logf("%d packets were passed on", foreign)
}
