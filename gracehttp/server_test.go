//go:build unix

package gracehttp

// Servers in the process of the test.

import (
	"io"
	"net"
	"net/http"
	"path/filepath"
	"runtime"
	"testing"
	"time"

	"github.com/facebookgo/grace/internal/accept"
	"github.com/facebookgo/grace/internal/testbin/script"
)

// startServer is a server of an app that hands connections over.
func startServer(t testing.TB, network string) *server {
	t.Helper()
	return prepareServer(t, network, func(s *http.Server) { s.Handler = http.HandlerFunc(script.Handler) })
}

// prepareServer is startServer with a server as configure makes it.
func prepareServer(t testing.TB, network string, configure func(*http.Server)) *server {
	t.Helper()
	addr := "127.0.0.1:0"
	if network == "unix" {
		addr = filepath.Join(t.TempDir(), "s")
	}
	l, err := net.Listen(network, addr)
	if err != nil {
		t.Fatal(err)
	}
	h := &http.Server{}
	configure(h)
	return serveApp(t, l, h, func(a *app) { a.handOverIdle = true })
}

// serveApp serves one server on l, with the options that set sets.
func serveApp(t testing.TB, l net.Listener, h *http.Server, set func(*app)) *server {
	t.Helper()
	a := newApp([]*http.Server{h})
	set(a)
	a.process.Logger = newLogger(nil, nil)
	s := a.servers[0]
	s.listener = accept.New(l, net.Listener.Close)
	s.prepare()
	go func() { _ = s.serve() }()
	t.Cleanup(func() {
		_ = s.http.Close()
		<-s.served
		s.handed.finish()
	})
	return s
}

// startPlain is a server that nothing disturbs.
func startPlain(t testing.TB) net.Addr {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	s := &http.Server{Handler: http.HandlerFunc(script.Handler)}
	served := make(chan struct{})
	go func() { defer close(served); _ = s.Serve(l) }()
	t.Cleanup(func() {
		_ = s.Close()
		<-served
	})
	return l.Addr()
}

func write(t *testing.T, c io.Writer, s string) {
	t.Helper()
	if _, err := io.WriteString(c, s); err != nil {
		t.Fatal(err)
	}
}

// read reads want.
func read(t *testing.T, c net.Conn, want string) {
	t.Helper()
	got := make([]byte, len(want))
	if _, err := io.ReadFull(c, got); err != nil || string(got) != want {
		t.Errorf("read %q, %v, want %q", got, err, want)
	}
}

// eventually waits until it is so.
func eventually(t *testing.T, so func() bool) {
	t.Helper()
	for end := time.Now().Add(testPatience); !so(); runtime.Gosched() {
		if time.Now().After(end) {
			t.Fatal("waited in vain")
		}
	}
}
