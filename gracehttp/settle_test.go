//go:build unix

package gracehttp

import (
	"bufio"
	"fmt"
	"io"
	"net"
	"net/http"
	"path/filepath"
	"sync/atomic"
	"testing"
	"time"
)

// replies reads answers, and checks which of them says that the connection is closed.
func replies(t *testing.T, client net.Conn, closes ...bool) {
	t.Helper()
	r := bufio.NewReader(client)
	for i, want := range closes {
		resp, err := http.ReadResponse(r, nil)
		if err != nil {
			t.Errorf("answer %d: %v", i, err)
			return
		}
		body, err := io.ReadAll(resp.Body)
		if err != nil || string(body) != "served" || resp.Close != want {
			t.Errorf("answer %d: %q, %v, closes: %t, want %t", i, body, err, resp.Close, want)
		}
	}
}

// drain drains the app of s, and returns channels that are closed when Shutdown is
// called, and when Drain has returned.
func drain(t *testing.T, s *server) (shut, drained <-chan struct{}) {
	t.Helper()
	s.app.idleGrace = 0
	called, returned := make(chan struct{}), make(chan struct{})
	s.http.RegisterOnShutdown(func() { close(called) })
	go func() {
		defer close(returned)
		if err := s.app.Drain(); err != nil {
			t.Error(err)
		}
	}()
	return called, returned
}

// settling are the kinds of connections of which different things are known.
var settling = map[string]func(*app){
	"default":      func(*app) {},
	"WaitHijacked": func(a *app) { a.waitHijacked = true },
	"HandOverIdle": func(a *app) { a.handOverIdle = true },
}

// A request that the server has read, and not yet given to its handler, is answered.
func TestRequestBeforeItsHandlerIsNotCut(t *testing.T) {
	for name, set := range settling {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			active, release := make(chan struct{}), make(chan struct{})
			var first atomic.Bool
			s := serveApp(t, newListener(t), &http.Server{
				Handler: http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) { fmt.Fprint(w, "served") }),
				ConnState: func(_ net.Conn, state http.ConnState) {
					if state == http.StateActive && first.CompareAndSwap(false, true) {
						close(active)
						<-release
					}
				},
			}, set)
			s.app.tracker.closing.Store(true) // as on standby
			client := connect(t, s)
			write(t, client, aRequest)
			soon(t, active, "the request")
			shut, drained := drain(t, s)
			notYet(t, shut)
			close(release)
			replies(t, client, true)
			soon(t, drained, "the end")
		})
	}
}

// A request that has come, and that the server has not read yet, is answered.
func TestUnreadRequestIsNotCut(t *testing.T) {
	inner, err := net.Listen("unix", filepath.Join(t.TempDir(), "socket"))
	if err != nil {
		t.Fatal(err)
	}
	l := &lateListener{Listener: inner, reading: make(chan struct{}), release: make(chan struct{})}
	s := serveApp(t, l, &http.Server{
		Handler: http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) { fmt.Fprint(w, "served") }),
	}, settling["default"])
	s.app.tracker.closing.Store(true) // as on standby
	client := connect(t, s)
	write(t, client, aRequest)
	soon(t, l.reading, "the server to read")
	shut, drained := drain(t, s)
	notYet(t, shut)
	close(l.release)
	replies(t, client, true)
	soon(t, drained, "the end")
}

// lateListener has connections that are read late.
type lateListener struct {
	net.Listener
	reading chan struct{} // gets a value before a read
	release chan struct{} // closed when reads may go on
}

func (l *lateListener) Accept() (net.Conn, error) {
	c, err := l.Listener.Accept()
	if err != nil {
		return nil, err
	}
	return lateConn{c.(*net.UnixConn), l}, nil
}

type lateConn struct {
	*net.UnixConn
	l *lateListener
}

func (c lateConn) Read(p []byte) (int, error) {
	select {
	case c.l.reading <- struct{}{}:
	case <-c.l.release:
	}
	<-c.l.release
	return c.UnixConn.Read(p)
}

// Requests that the client has sent together are answered together, if that is known.
func TestPipelineIsNotCut(t *testing.T) {
	begun, release := make(chan struct{}, 3), make(chan struct{})
	s := serveApp(t, newListener(t), &http.Server{Handler: http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		begun <- struct{}{}
		<-release
		fmt.Fprint(w, "served")
	})}, settling["HandOverIdle"])
	client := connect(t, s)
	write(t, client, aRequest+aRequest+aRequest)
	soon(t, begun, "the request")
	shut, drained := drain(t, s)
	notYet(t, shut)
	close(release)
	replies(t, client, false, false, true)
	soon(t, drained, "the end")
}

// One that ends by itself does so also if another one holds up everything until its time
// is over.
func TestStragglerDoesNotLeaveOthersToShutdown(t *testing.T) {
	t.Parallel() // it waits most of the time
	s := serveApp(t, newListener(t), &http.Server{}, settling["HandOverIdle"])
	client, idle := dialed(t, s)
	request(t, client)
	eventually(t, func() bool { return idle.is(http.StateIdle) })
	client, straggler := dialed(t, s)
	write(t, client, "GET /")
	arrived(t, straggler)
	begin := time.Now()
	_, drained := drain(t, s)
	soon(t, drained, "the end")
	if d := time.Since(begin); d < settleTimeout {
		t.Errorf("half a header was waited for %v", d)
	}
	if !idle.moved() || straggler.moved() {
		t.Errorf("ended by itself: the idle one %t, the other %t", idle.moved(), straggler.moved())
	}
}

// notYet fails if Shutdown is called while there is a request.
func notYet(t *testing.T, shut <-chan struct{}) {
	t.Helper()
	select {
	case <-shut:
		t.Error("Shutdown is called")
	case <-time.After(200 * time.Millisecond):
	}
}

// connect is a client of s.
func connect(t *testing.T, s *server) net.Conn {
	t.Helper()
	client, err := net.Dial(s.listener.Addr().Network(), s.listener.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = client.Close() })
	_ = client.SetDeadline(time.Now().Add(testPatience))
	return client
}

// dialed is both sides of a new connection.
func dialed(t *testing.T, s *server) (client net.Conn, w *watch) {
	t.Helper()
	client = connect(t, s)
	eventually(t, func() bool {
		for c := range s.app.tracker.all {
			if c.conn.RemoteAddr().String() == client.LocalAddr().String() {
				w = c.watch
			}
		}
		return w != nil
	})
	return client, w
}

func (w *watch) is(state http.ConnState) bool {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.state == state
}
