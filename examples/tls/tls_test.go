//go:build unix

package main

import (
	"crypto/tls"
	"crypto/x509"
	"encoding/pem"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"os"
	"os/exec"
	"path/filepath"
	"testing"
	"time"

	"github.com/facebookgo/grace/gracetest"
)

// certificate writes the one of httptest, and returns what trusts it.
func certificate(t *testing.T) (certFile, keyFile string, roots *x509.CertPool) {
	t.Helper()
	server := httptest.NewTLSServer(nil)
	defer server.Close()
	key, err := x509.MarshalPKCS8PrivateKey(server.TLS.Certificates[0].PrivateKey)
	if err != nil {
		t.Fatal(err)
	}
	dir := t.TempDir()
	write := func(name, kind string, der []byte) string {
		path := filepath.Join(dir, name)
		if err := os.WriteFile(path, pem.EncodeToMemory(&pem.Block{Type: kind, Bytes: der}), 0o600); err != nil {
			t.Fatal(err)
		}
		return path
	}
	roots = x509.NewCertPool()
	roots.AddCert(server.Certificate())
	return write("cert.pem", "CERTIFICATE", server.Certificate().Raw), write("key.pem", "PRIVATE KEY", key), roots
}

// No request is lost over HTTP/2 or HTTP/1.1, and a TLS session outlives every restart.
func TestRestarts(t *testing.T) {
	certFile, keyFile, roots := certificate(t)
	addr := gracetest.FreeAddr(t)
	url := "https://" + addr + "/"
	s := gracetest.Start(t, exec.Command(gracetest.Build(t, "."),
		"-addr", addr, "-cert", certFile, "-key", keyFile, "-standby", "200ms"))
	s.WaitAnswer(gracetest.Raw(gracetest.Request{URL: url}))

	config := &tls.Config{RootCAs: roots, ClientSessionCache: tls.NewLRUClientSessionCache(1)}
	client := &http.Client{
		Timeout:   gracetest.Patience,
		Transport: &http.Transport{TLSClientConfig: config, ForceAttemptHTTP2: true, DisableKeepAlives: true},
	}
	ask := func() (resumed bool) {
		t.Helper()
		resp, err := client.Get(url)
		if err != nil {
			t.Fatal(err)
		}
		defer resp.Body.Close()
		answer, err := io.ReadAll(resp.Body)
		if want := fmt.Sprintf("hello over HTTP/2.0 from process %d\n", s.PID()); err != nil || string(answer) != want {
			t.Errorf("answer %q, %v, want %q", answer, err, want)
		}
		return resp.TLS.DidResume
	}
	if ask() {
		t.Error("the first session was resumed")
	}
	for range 3 {
		t.Log(s.Prove(gracetest.Plan{Clients: gracetest.Mix(url), Restarts: 1, Standby: 200 * time.Millisecond}))
		if !ask() {
			t.Error("the session was not resumed with a new process")
		}
	}
	s.Stop()
}
