//go:build unix

package clients_test

import (
	"fmt"
	"io"
	"net/http"
	"os"
	"sync"
	"sync/atomic"
	"testing"

	"github.com/facebookgo/grace/internal/testbin"
	"github.com/facebookgo/grace/internal/testbin/play"
)

func TestMain(m *testing.M) {
	testbin.Main(m, testbin.Role{Name: "clients", Serve: serve})
}

// The addresses of listens.
const (
	plain = iota // HTTP/1.1
	secure
	h2
	h2c
)

// listens has an address for each way to speak HTTP.
var listens = []play.Listen{
	plain:  {Addr: "127.0.0.1:0"},
	secure: {Addr: "127.0.0.1:0", TLS: true},
	h2:     {Addr: "127.0.0.1:0", TLS: true, HTTP2: true},
	h2c:    {Addr: "127.0.0.1:0", HTTP2: true},
}

// config has no end to IdleGrace, as far as the tests can see: how soon a client
// makes its next request depends on the load of the machine. That costs no time,
// since every connection is closed as soon as a request was made on it.
func config() play.Config {
	return play.Config{Role: "clients", Listens: listens, IdleGrace: testbin.Patience}
}

// restarts is how many restarts a test makes: short, or many with GRACE_LONG=1.
func restarts(short int) int {
	if os.Getenv("GRACE_LONG") == "1" {
		return 50
	}
	return short
}

// restart restarts the newest process and waits until the old one has returned.
func restart(t *testing.T, s *testbin.Service) (old, new int) {
	t.Helper()
	old, new = s.Restart()
	waitReturned(t, s, old)
	return old, new
}

func waitReturned(t *testing.T, s *testbin.Service, pid int) {
	t.Helper()
	if e := s.WaitReturned(pid); e.Event != play.Returned || e.Text != "" {
		t.Fatalf("Serve of %d: %s %s", pid, e.Event, e.Text)
	}
}

// serve is the server of the tests. In the end it says how many requests there
// were for /counted.
//
//	/            the pid, and the body of the request
//	/tool/NAME   the pid, and the size of the body; the first one is reported
//	/counted     the pid; the 1000th request is reported
//	/ws/...      WebSockets, see websocket_test.go
//
// What comes as application/grpc goes to the server of grpc_test.go.
func serve(cfg play.Config) error {
	var counted atomic.Int64
	mux := http.NewServeMux()
	mux.HandleFunc("/", func(w http.ResponseWriter, r *http.Request) {
		body, err := io.ReadAll(r.Body)
		if err != nil {
			http.Error(w, err.Error(), http.StatusBadRequest)
			return
		}
		fmt.Fprintf(w, "%d\n%s", os.Getpid(), body)
	})
	var tools sync.Map // names that were reported
	mux.HandleFunc("/tool/{name}", func(w http.ResponseWriter, r *http.Request) {
		if _, known := tools.LoadOrStore(r.PathValue("name"), nil); !known {
			play.Emit(play.Event{Event: play.Asked, Text: r.PathValue("name")})
		}
		n, err := io.Copy(io.Discard, r.Body)
		if err != nil {
			http.Error(w, err.Error(), http.StatusBadRequest)
			return
		}
		fmt.Fprintf(w, "%d %d\n", os.Getpid(), n)
	})
	mux.HandleFunc("/counted", func(w http.ResponseWriter, _ *http.Request) {
		if counted.Add(1) == 1000 {
			play.Emit(play.Event{Event: play.Log, Text: "counts"})
		}
		fmt.Fprintln(w, os.Getpid())
	})
	mux.HandleFunc("/ws/echo", echo)
	mux.HandleFunc("/ws/feed", feed)
	mux.HandleFunc("/ws/deaf", deaf)
	rpc := grpcServer()
	err := testbin.ServeHTTP(cfg, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.ProtoMajor == 2 && r.Header.Get("Content-Type") == "application/grpc" {
			rpc.ServeHTTP(w, r)
			return
		}
		mux.ServeHTTP(w, r)
	}))
	play.Emit(play.Event{Event: play.Log, Text: fmt.Sprintf("counted %d", counted.Load())})
	return err
}

// patience is a deadline for one call.
const patience = testbin.Patience
