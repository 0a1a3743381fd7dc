//go:build unix

package gracehttp_test

import (
	"crypto/tls"
	"fmt"
	"io"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/facebookgo/grace/internal/testbin"
	"github.com/facebookgo/grace/internal/testbin/play"
)

// kinds are the kinds of connections that are drained with care.
var kinds = map[string]play.Config{
	"tcp":                {Listens: []play.Listen{{Addr: "127.0.0.1:0"}}},
	"tcp or h2c":         {Listens: []play.Listen{{Addr: "127.0.0.1:0", HTTP2: true}}},
	"tls":                {Listens: []play.Listen{{Addr: "127.0.0.1:0", TLS: true}}},
	"unix":               {Listens: []play.Listen{{Network: "unix"}}},
	"tcp, WaitHijacked":  {Listens: []play.Listen{{Addr: "127.0.0.1:0"}}, WaitHijacked: true},
	"tcp, HandOverIdle":  {Listens: []play.Listen{{Addr: "127.0.0.1:0"}}, HandOverIdle: true},
	"tls, HandOverIdle":  {Listens: []play.Listen{{Addr: "127.0.0.1:0", TLS: true}}, HandOverIdle: true},
	"unix, HandOverIdle": {Listens: []play.Listen{{Network: "unix"}}, HandOverIdle: true},
}

// startKind starts a service whose unix socket is in a directory of the test.
func startKind(t *testing.T, cfg play.Config) (s *testbin.Service, pid int, addr string) {
	t.Helper()
	cfg.Role = "http"
	cfg.Listens = slices.Clone(cfg.Listens)
	if cfg.Listens[0].Network == "unix" {
		dir, err := os.MkdirTemp("", "grace") // that of TempDir may be too long
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { _ = os.RemoveAll(dir) })
		cfg.Listens[0].Addr = filepath.Join(dir, "socket")
	}
	s = testbin.Start(t, cfg)
	pid, addrs := s.Newest()
	return s, pid, addrs[0]
}

// draining signals pid and waits until it drains.
func draining(s *testbin.Service, pid int, sig syscall.Signal) {
	s.Signal(pid, sig)
	s.WaitLog(pid, "draining")
}

// askToTheEnd makes requests until an answer says that the connection is closed. The
// log says that the drain begins some time before that is so.
func askToTheEnd(c *testbin.Wire, request string) (r testbin.Reply) {
	for end := time.Now().Add(testbin.Patience); !r.Close && time.Now().Before(end); {
		c.Send(request)
		r = c.Receive()
	}
	return r
}

// waitIdle waits until n connections wait for another request: for the server, that begins
// after the client has its answer.
func waitIdle(t *testing.T, l play.Listen, addr string, n int) {
	t.Helper()
	testbin.Poll(t, fmt.Sprintf("%d idle connections", n), func() bool {
		c := testbin.Dial(t, l, addr)
		defer c.Close()
		c.Send("GET /idle HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n")
		return c.Receive().Body == strconv.Itoa(n)
	})
}

// Whatever a client has sent or not when the server drains, it gets its answer,
// and that says that the connection is closed. If the handler has begun before the
// drain, the next one says so.
func TestDrainLosesNothing(t *testing.T) {
	request := "POST /echo HTTP/1.1\r\nHost: x\r\nContent-Length: 4\r\n\r\nbody"
	for name, cfg := range kinds {
		for _, sig := range []syscall.Signal{syscall.SIGTERM, syscall.SIGUSR2} {
			t.Run(fmt.Sprintf("%s, %v", name, sig), func(t *testing.T) {
				cfg.IdleGrace = testbin.Patience // for those that have sent nothing
				s, pid, addr := startKind(t, cfg)
				var clients []*testbin.Wire
				var rest []string
				for _, used := range []bool{false, true} {
					for _, sent := range []int{0, 1, len("POST /echo HTTP/1.1\r\n"), len(request) - len("\r\nbody"), len(request) - len("body"), len(request) - 1} {
						if sent == 0 && used && cfg.HandOverIdle && sig == syscall.SIGUSR2 {
							continue // goes to the new process
						}
						c := testbin.Dial(t, cfg.Listens[0], addr)
						if used {
							c.Ask("")
						}
						c.Send(request[:sent])
						clients, rest = append(clients, c), append(rest, request[sent:])
					}
				}
				draining(s, pid, sig)
				for i, c := range clients {
					c.Send(rest[i])
					got := c.Receive()
					moved := !got.Close && cfg.HandOverIdle && !cfg.Listens[0].TLS && sig == syscall.SIGUSR2
					if !got.Close && !moved {
						got = askToTheEnd(c, request)
					}
					if want := `POST /echo "body" <nil> map[]` + "\n"; got.Status != 200 || got.Body != want || !got.Close && !moved {
						t.Errorf("%q was sent after the drain had begun: got %+v, want %q and the end", rest[i], got, want)
					}
					if !moved {
						c.WaitClosed()
					}
				}
				if e := s.WaitReturned(pid); e.Event != play.Returned || e.Text != "" {
					t.Errorf("pid %d: %s %s", pid, e.Event, e.Text)
				}
			})
		}
	}
}

// Connections over which nothing is on its way stay for the time of grace.
func TestIdleConnectionsHaveTheirGrace(t *testing.T) {
	for name, cfg := range kinds {
		t.Run(name, func(t *testing.T) {
			t.Parallel() // it waits most of the time
			cfg.IdleGrace = testbin.Patience
			s, pid, addr := startKind(t, cfg)
			used, fresh := testbin.Dial(t, cfg.Listens[0], addr), testbin.Dial(t, cfg.Listens[0], addr)
			used.Ask("")
			draining(s, pid, syscall.SIGTERM)
			for _, c := range []*testbin.Wire{used, fresh} {
				c.StaysOpen(700 * time.Millisecond) // longer than by default
				c.Send(testbin.Request(""))
				if got, want := c.Receive(), (testbin.Reply{Status: 200, Body: strconv.Itoa(pid), Close: true}); got != want {
					t.Errorf("got %+v, want %+v", got, want)
				}
			}
			s.WaitGone()
		})
	}
}

// The time of grace is half a second unless the program says otherwise.
func TestIdleGraceIsShort(t *testing.T) {
	cfg := play.Config{Role: "http", Listens: []play.Listen{{Addr: "127.0.0.1:0"}, {Addr: "127.0.0.1:0", TLS: true}}}
	fastest := time.Hour
	// Any one of them may be slow on a busy machine.
	for n := 0; n < 3 || fastest > time.Second && n < 20; n++ {
		s := testbin.Start(t, cfg)
		pid, addrs := s.Newest()
		var clients []*testbin.Wire
		for i, l := range cfg.Listens {
			used := testbin.Dial(t, l, addrs[i])
			used.Ask("")
			clients = append(clients, used, testbin.Dial(t, play.Listen{}, addrs[i])) // one without a handshake
		}
		begin := time.Now()
		s.Signal(pid, syscall.SIGTERM)
		for _, c := range clients {
			c.WaitClosed()
			if d := time.Since(begin); d < 500*time.Millisecond {
				t.Errorf("closed after %v", d)
			}
		}
		fastest = min(fastest, time.Since(begin))
		s.WaitGone()
	}
	if fastest > time.Second {
		t.Errorf("idle connections are closed within %v at best, want less than a second", fastest)
	}
}

// The end of a TLS handshake looks like half a header, but not for long.
func TestHandshakeIsNoRequest(t *testing.T) {
	t.Parallel() // it waits most of the time
	l := play.Listen{Addr: "127.0.0.1:0", TLS: true}
	fastest := time.Hour
	// Half a header is waited for five seconds. On a busy machine a stop may take that
	// long without one.
	for n := 0; n < 5 && fastest > 4*time.Second; n++ {
		s := testbin.Start(t, play.Config{Role: "http", Listens: []play.Listen{l}})
		pid, addrs := s.Newest()
		var clients []*testbin.Wire
		for range 50 { // of which some need more than a tick of the kernel's clock
			clients = append(clients, testbin.Dial(t, l, addrs[0]))
		}
		clients[len(clients)-1].StaysOpen(6 * time.Second)
		begin := time.Now()
		s.Signal(pid, syscall.SIGTERM)
		s.WaitGone()
		fastest = min(fastest, time.Since(begin))
	}
	if fastest > 4*time.Second {
		t.Errorf("the stop took %v at best", fastest)
	}
}

// Clients that offer h2c with every request are told as others are. What asks for
// another protocol is left to the handler.
func TestDrainAnswersOffers(t *testing.T) {
	cfg := play.Config{Role: "http", Listens: []play.Listen{{Addr: "127.0.0.1:0"}}, StopDelay: time.Hour, IdleGrace: testbin.Patience}
	for _, sig := range []syscall.Signal{syscall.SIGTERM, syscall.SIGUSR2} {
		s := testbin.Start(t, cfg)
		pid, addrs := s.Newest()
		offers := func(protocol string) string {
			return "GET / HTTP/1.1\r\nHost: x\r\nConnection: Upgrade\r\nUpgrade: " + protocol + "\r\n\r\n"
		}
		var clients []*testbin.Wire
		protocols := []string{"h2c", "H2C", "websocket"}
		for _, protocol := range protocols {
			c := testbin.Dial(t, cfg.Listens[0], addrs[0])
			c.Send(offers(protocol))
			if got, want := c.Receive(), (testbin.Reply{Status: 200, Body: strconv.Itoa(pid)}); got != want {
				t.Errorf("%s: got %+v, want %+v", protocol, got, want)
			}
			clients = append(clients, c)
		}
		s.Signal(pid, sig)
		s.WaitLog(pid, map[syscall.Signal]string{syscall.SIGTERM: "stopping soon", syscall.SIGUSR2: "draining"}[sig])
		for i, c := range clients {
			c.Send(offers(protocols[i]))
			want := testbin.Reply{Status: 200, Body: strconv.Itoa(pid), Close: protocols[i] != "websocket"}
			if got := c.Receive(); got != want {
				t.Errorf("%v, %s: got %+v, want %+v", sig, protocols[i], got, want)
			}
		}
	}
}

// A header that is half-way is waited for also when idle connections are not.
func TestStopWaitsForHalfAHeader(t *testing.T) {
	for name, cfg := range kinds {
		if name == "unix" {
			continue // only with a type of ours is it known
		}
		for _, used := range []bool{false, true} {
			if used && name == "tcp or h2c" {
				continue // half a header can't be told from frames that have been answered
			}
			t.Run(fmt.Sprintf("%s, used=%v", name, used), func(t *testing.T) {
				t.Parallel() // it waits most of the time
				cfg := cfg
				cfg.IdleGrace = -1
				s, pid, addr := startKind(t, cfg)
				idle, c := testbin.Dial(t, cfg.Listens[0], addr), testbin.Dial(t, cfg.Listens[0], addr)
				idle.Ask("")
				if used {
					c.Ask("")
				}
				waitIdle(t, cfg.Listens[0], addr, map[bool]int{false: 1, true: 2}[used])
				// What comes in the same tick of the kernel as an answer goes out is
				// not known to come after it.
				idle.StaysOpen(50 * time.Millisecond)
				c.Send("GET / HTTP/1.1\r\n")
				draining(s, pid, syscall.SIGTERM)
				// Nothing is closed as long as that takes; less than the five seconds
				// that it may.
				idle.StaysOpen(200 * time.Millisecond)
				c.Send("Host: x\r\n\r\n")
				if got, want := c.Receive(), (testbin.Reply{Status: 200, Body: strconv.Itoa(pid), Close: true}); got != want {
					t.Errorf("got %+v, want %+v", got, want)
				}
				idle.WaitClosed()
				s.WaitGone()
			})
		}
	}
}

// One that never ends has five seconds and does not hold up a stop for longer, nor
// do connections over which nothing came.
func TestStopDoesNotWaitForStragglers(t *testing.T) {
	for _, name := range []string{"tcp", "tls", "unix", "unix, HandOverIdle"} {
		cfg := kinds[name]
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			s, pid, addr := startKind(t, cfg)
			for _, text := range []string{"", "G", "GET / HTTP/1.1\r\n"} {
				testbin.Dial(t, cfg.Listens[0], addr).Send(text)
			}
			used := testbin.Dial(t, cfg.Listens[0], addr)
			used.Ask("")
			waitIdle(t, cfg.Listens[0], addr, 1)
			used.StaysOpen(50 * time.Millisecond) // see TestStopWaitsForHalfAHeader
			used.Send("GET / HTTP/1.1\r\n")
			begin := time.Now()
			s.Signal(pid, syscall.SIGTERM)
			used.WaitClosed()
			if d := time.Since(begin); name != "unix" && d < 5*time.Second {
				t.Errorf("half a header was waited for %v", d)
			}
			s.WaitReturned(pid) // before StopTimeout, which is as long as our patience
		})
	}
}

// Requests that wait in the queue of the kernel when the last process is told to
// stop are answered.
func TestStopAnswersTheQueue(t *testing.T) {
	for _, name := range []string{"tcp", "tcp or h2c", "unix", "tcp, HandOverIdle", "unix, HandOverIdle"} {
		t.Run(name, func(t *testing.T) {
			cfg := kinds[name]
			s, pid, addr := startKind(t, cfg)
			s.Freeze(pid)
			var clients []*testbin.Wire
			for range 200 {
				c := testbin.Dial(t, cfg.Listens[0], addr)
				c.Send(testbin.Request(""))
				clients = append(clients, c)
			}
			s.Signal(pid, syscall.SIGTERM)
			s.Signal(pid, syscall.SIGCONT)
			for i, c := range clients {
				if got := c.Receive(); got.Status != 200 || got.Body != strconv.Itoa(pid) {
					t.Fatalf("client %d: got %+v, want an answer of %d", i, got, pid)
				}
			}
			s.WaitGone()
		})
	}
}

// HTTP/2 connections get a GOAWAY, in use or not, and delay nothing.
func TestDrainOfHTTP2(t *testing.T) {
	for _, secure := range []bool{true, false} {
		t.Run(fmt.Sprintf("tls=%v", secure), func(t *testing.T) {
			cfg := play.Config{Role: "http", Listens: []play.Listen{{Addr: "127.0.0.1:0", TLS: secure, HTTP2: true}}}
			s := testbin.Start(t, cfg)
			first, addrs := s.Newest()
			ask := http2Client(t, secure, addrs[0])
			if got := testbin.Ask(t, ask, ""); got != strconv.Itoa(first) {
				t.Fatalf("answered by %s, want %d", got, first)
			}
			idle := http2Client(t, secure, addrs[0])
			testbin.Ask(t, idle, "")
			slow := filepath.Join(t.TempDir(), "slow")
			answer := make(chan string, 1)
			go func() {
				got, err := ask("until " + slow)
				answer <- fmt.Sprintln(got, err)
			}()
			s.Wait("the slow request", asked("until "+slow))
			_, child := s.Restart()
			s.WaitLog(first, "draining")
			testbin.Poll(t, "the next request to be answered by the child", func() bool {
				got, err := ask("")
				// One that crosses the GOAWAY was not served, says the protocol.
				if err != nil && !strings.Contains(err.Error(), "GOAWAY") {
					t.Fatal(err)
				}
				return got == strconv.Itoa(child)
			})
			touch(t, slow)
			if got, want := <-answer, fmt.Sprintln(first, error(nil)); got != want {
				t.Errorf("got %s, want %s", got, want)
			}
			s.WaitReturned(first)
			if got := testbin.Ask(t, idle, ""); got != strconv.Itoa(child) {
				t.Errorf("answered by %s, want %d", got, child)
			}
			s.Stop()
		})
	}
}

// http2Client asks over one HTTP/2 connection for as long as the server keeps it.
func http2Client(t *testing.T, secure bool, addr string) testbin.Target {
	transport := &http.Transport{
		TLSClientConfig: &tls.Config{InsecureSkipVerify: true},
		Protocols:       new(http.Protocols),
	}
	transport.Protocols.SetHTTP2(secure)
	transport.Protocols.SetUnencryptedHTTP2(!secure)
	t.Cleanup(transport.CloseIdleConnections)
	client := &http.Client{Transport: transport, Timeout: testbin.Patience}
	scheme := "http"
	if secure {
		scheme = "https"
	}
	return func(question string) (string, error) {
		// The body keeps net/http from trying again.
		resp, err := client.Post(scheme+"://"+addr+"/"+question, "", io.MultiReader())
		if err != nil {
			return "", err
		}
		defer resp.Body.Close()
		b, err := io.ReadAll(resp.Body)
		if resp.ProtoMajor != 2 {
			return "", fmt.Errorf("answered with %s", resp.Proto)
		}
		return string(b), err
	}
}

// The process goes when its last connection does. net/http looks for that after ever
// longer times: 511 to 562 ms after Shutdown, and again after 1011 at the earliest. What is
// measured is the time between an answer that comes between the two and the return of Serve.
func TestDrainEndsWithTheLastConnection(t *testing.T) {
	const soon = 150 * time.Millisecond
	quick := 0
	var times []time.Duration
	// Any one of them may be slow on a busy machine, or quick by chance.
	for end := time.Now().Add(testbin.Patience); quick < 2 && len(times) < 9 && time.Now().Before(end); {
		s := testbin.Start(t, play.Config{Role: "http", Listens: []play.Listen{{Addr: "127.0.0.1:0"}}, IdleGrace: -1})
		pid, addrs := s.Newest()
		c := testbin.Dial(t, play.Listen{}, addrs[0])
		release := filepath.Join(t.TempDir(), "release")
		c.Send(testbin.Request("until " + release))
		s.Wait("the request to begin", asked("until "+release))
		told := time.Now()
		s.Signal(pid, syscall.SIGTERM)
		s.WaitLog(pid, "requests in flight are waited for")
		c.StaysOpen(750 * time.Millisecond)
		touch(t, release)
		c.Receive()
		begin := time.Now()
		s.WaitReturned(pid)
		took := time.Since(begin)
		if begin.Sub(told) > 1011*time.Millisecond-soon {
			t.Logf("the answer came after %v, which is too late to tell anything", begin.Sub(told))
			continue
		}
		times = append(times, took)
		if took <= soon {
			quick++
		}
	}
	if quick < 2 {
		t.Errorf("from the answer to the end it took %v", times)
	}
}

// Requests have a minute unless the program says otherwise. Their handlers have
// another one, see TestHandlersThatReturnLate.
func TestStopTimeoutByDefault(t *testing.T) {
	s := testbin.Start(t, play.Config{Role: "http", Listens: []play.Listen{{Addr: "127.0.0.1:0"}}, IdleGrace: -1})
	pid, addrs := s.Newest()
	testbin.Dial(t, play.Listen{}, addrs[0]).Send(testbin.Request("sleep 1h"))
	s.Wait("the request to begin", asked("sleep 1h"))
	s.Signal(pid, syscall.SIGTERM)
	s.WaitLog(pid, "idle connections are closed, requests in flight are waited for connections=1 for=1m0s")
}

// A handler of the program that hangs is given up in the end.
func TestHandlersThatDoNotReturn(t *testing.T) {
	s := testbin.Start(t, play.Config{
		Role:        "http",
		Listens:     []play.Listen{{Addr: "127.0.0.1:0"}},
		IdleGrace:   -1,
		StopTimeout: 100 * time.Millisecond,
		KillTimeout: 100 * time.Millisecond,
	})
	pid, addrs := s.Newest()
	c := testbin.Dial(t, play.Listen{}, addrs[0])
	c.Send(testbin.Request("sleep 1h"))
	s.Wait("the request to begin", asked("sleep 1h"))
	s.Signal(pid, syscall.SIGTERM)
	c.WaitClosed()
	s.WaitLog(pid, "requests take too long, their connections are closed connections=1 after=100ms")
	s.WaitLog(pid, "handlers do not return connections=1 after=100ms")
	if e := s.WaitReturned(pid); e.Event != play.Returned || e.Text != "" {
		t.Errorf("Serve returned %s %s", e.Event, e.Text)
	}
}

// One that returns in time is waited for, though its connection is closed.
func TestHandlersThatReturnLate(t *testing.T) {
	s := testbin.Start(t, play.Config{
		Role:        "http",
		Listens:     []play.Listen{{Addr: "127.0.0.1:0"}},
		IdleGrace:   -1,
		StopTimeout: 100 * time.Millisecond,
	})
	pid, addrs := s.Newest()
	c := testbin.Dial(t, play.Listen{}, addrs[0])
	release := filepath.Join(t.TempDir(), "release")
	c.Send(testbin.Request("until " + release))
	s.Wait("the request to begin", asked("until "+release))
	s.Signal(pid, syscall.SIGTERM)
	c.WaitClosed()
	s.WaitLog(pid, "requests take too long, their connections are closed connections=1 after=100ms for=1m0s")
	touch(t, release)
	s.WaitReturned(pid)
	for _, e := range s.Events() {
		if strings.Contains(e.Text, "handlers do not return") {
			t.Errorf("logged %q", e.Text)
		}
	}
}

// A stop that is announced: still accepting, and not ready.
func TestStopDelay(t *testing.T) {
	cfg := play.Config{Role: "http", Listens: []play.Listen{{Addr: "127.0.0.1:0"}, {Addr: "127.0.0.1:0", TLS: true, HTTP2: true}}, StopDelay: time.Hour, IdleGrace: testbin.Patience, Records: true}
	s := testbin.Start(t, cfg)
	first, addrs := s.Newest()
	kept := testbin.Dial(t, cfg.Listens[0], addrs[0])
	status := func(c *testbin.Wire, path string) (status int, closes bool) {
		t.Helper()
		c.Send(testbin.Request(path))
		r := c.Receive()
		return r.Status, r.Close
	}
	testbin.Poll(t, "the service to be ready", func() bool {
		got, closes := status(kept, "ready")
		return got == 200 && !closes
	})
	// A restart knows no delay, and the process that it replaces leaves a service
	// that is ready.
	old := testbin.Dial(t, cfg.Listens[0], addrs[0])
	release := filepath.Join(t.TempDir(), "release")
	old.Send(testbin.Request("until " + release))
	s.Wait("the slow request", asked("until "+release))
	_, pid := s.Restart()
	s.WaitLog(first, "draining")
	if got, closes := status(kept, "ready"); got != 200 || !closes {
		t.Errorf("the old process: %d, closes: %v; want 200 and the end", got, closes)
	}
	touch(t, release)
	old.Receive()
	_ = old.Close() // it has its time of grace
	s.WaitReturned(first)

	idle := testbin.Dial(t, cfg.Listens[0], addrs[0])
	idle.Ask("")
	s.Signal(pid, syscall.SIGTERM)
	s.WaitLog(pid, "stopping soon, still accepting for=1h0m0s")
	s.Wait("the record of it", func(e play.Event) bool {
		return e.Event == play.Record && e.PID == pid && strings.Contains(e.Text, `"step":"stop","pid":`+strconv.Itoa(pid)+`,"for":3600000000000`)
	})
	for _, c := range []*testbin.Wire{idle, testbin.Dial(t, cfg.Listens[0], addrs[0]), testbin.Dial(t, cfg.Listens[1], addrs[1])} {
		if got, closes := status(c, "ready"); got != 503 || !closes {
			t.Errorf("ready: %d, closes: %v; want 503 and the end", got, closes)
		}
	}
	c := testbin.Dial(t, cfg.Listens[0], addrs[0])
	c.Send(testbin.Request(""))
	if got, want := c.Receive(), (testbin.Reply{Status: 200, Body: strconv.Itoa(pid), Close: true}); got != want {
		t.Errorf("got %+v, want %+v", got, want)
	}
	s.Signal(pid, syscall.SIGUSR2)
	s.WaitLog(pid, "draining already, the request to restart is ignored")
	for _, e := range s.Events() {
		if e.PID == pid && e.Event == play.Log && e.Text == "draining" {
			t.Error("the drain began before the delay was over")
		}
	}
	s.Signal(pid, syscall.SIGTERM) // the second one kills
	s.WaitGone()
}

// A child that accepts already says that the service is ready, although it has not
// said so itself: it waits for somebody to ask for the second socket.
func TestReadyDuringRestart(t *testing.T) {
	listens := []play.Listen{{Addr: "127.0.0.1:0"}, {Addr: "127.0.0.1:0"}}
	s := testbin.Start(t, patient(play.Config{Role: "http", Listens: listens}))
	_, addrs := s.Newest()
	s.Deploy(play.Config{Role: "http", Listens: listens[:1]})
	ready := testbin.HTTP("http", addrs[0])
	// It serves a moment before it is.
	testbin.Poll(t, "readiness", func() bool { _, err := ready("ready"); return err == nil })
	load := testbin.NewLoad(t, func(string) (string, error) { return ready("ready") })
	old, _ := s.Restart()
	s.WaitExit(old)
	load.Stop()
	s.Stop()
}

// After the delay the drain begins.
func TestStopDelayEnds(t *testing.T) {
	s := testbin.Start(t, play.Config{Role: "http", Listens: []play.Listen{{Addr: "127.0.0.1:0"}}, StopDelay: 50 * time.Millisecond})
	pid, _ := s.Newest()
	s.Signal(pid, syscall.SIGTERM)
	if e := s.WaitReturned(pid); e.Event != play.Returned || e.Text != "" {
		t.Errorf("Serve returned %s %s", e.Event, e.Text)
	}
	var order []string
	for _, e := range s.Events() {
		for _, text := range []string{"stopping signal", "stopping soon", "draining", "drained"} {
			if e.Event == play.Log && strings.HasPrefix(e.Text, text) {
				order = append(order, text)
			}
		}
	}
	if want := []string{"stopping signal", "stopping soon", "draining", "drained"}; !slices.Equal(order, want) {
		t.Errorf("logged %q, want %q", order, want)
	}
	s.WaitGone()
}

// touch makes the file that "until" waits for.
func touch(t *testing.T, name string) {
	t.Helper()
	if err := os.WriteFile(name, nil, 0o600); err != nil {
		t.Fatal(err)
	}
}

// A connection whose last answer did not say that it is closed, since the drain
// began after it, stays for the time of grace.
func TestGraceBeginsWithTheAnswer(t *testing.T) {
	for _, name := range []string{"tcp", "tls, HandOverIdle"} {
		cfg := kinds[name]
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			// The drain begins after 0 seconds, the answer comes after 4, and the next
			// request after 9: the grace that began with the drain is over then, that
			// of the answer has 3 seconds more.
			cfg.IdleGrace = 8 * time.Second
			s, pid, addr := startKind(t, cfg)
			c := testbin.Dial(t, cfg.Listens[0], addr)
			c.Send(testbin.Request("sleep 4s"))
			s.Wait("the request to begin", asked("sleep 4s"))
			s.Signal(pid, syscall.SIGTERM)
			if got := c.Receive(); got.Close { // on a machine that is very busy
				c.WaitClosed()
				return
			}
			c.StaysOpen(5 * time.Second)
			c.Send(testbin.Request(""))
			if got, want := c.Receive(), (testbin.Reply{Status: 200, Body: strconv.Itoa(pid), Close: true}); got != want {
				t.Errorf("got %+v, want %+v", got, want)
			}
		})
	}
}
