//go:build unix

package gracehttp_test

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"path/filepath"
	"strconv"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/facebookgo/grace/internal/testbin"
	"github.com/facebookgo/grace/internal/testbin/play"
	"github.com/facebookgo/grace/internal/testbin/script"
)

// handingOver is a service that hands connections over.
func handingOver(network string) play.Config {
	return play.Config{Role: "http", Listens: []play.Listen{{Network: network, Addr: map[string]string{"tcp": "127.0.0.1:0"}[network]}}, HandOverIdle: true}
}

// crowd is many clients that keep one connection each.
type crowd struct {
	t    *testing.T
	stop chan struct{}
	done sync.WaitGroup

	mu       sync.Mutex
	requests int
	errs     []error
	pids     map[string]int
	last     []string // the pid that each client was answered by last
}

func newCrowd(t *testing.T, n int, l play.Listen, addr string) *crowd {
	t.Helper()
	c := &crowd{t: t, stop: make(chan struct{}), pids: make(map[string]int), last: make([]string, n)}
	for i := range n {
		conn := testbin.Dial(t, l, addr)
		c.done.Add(1)
		go func() {
			defer c.done.Done()
			c.run(i, conn)
		}()
	}
	t.Cleanup(c.end)
	return c
}

// run makes requests on one connection, which must never be closed.
func (c *crowd) run(i int, conn *testbin.Wire) {
	get := testbin.Request("")
	post := "POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 4\r\n\r\nbody"
	for n := 0; ; n++ {
		select {
		case <-c.stop:
			return
		default:
		}
		text := get
		if n%2 == 1 {
			text = post
		}
		_, err := io.WriteString(conn, text)
		var r testbin.Reply
		if err == nil {
			r, err = conn.TryReceive()
		}
		if err == nil && r.Close {
			err = errors.New("the server closes the connection")
		}
		c.mu.Lock()
		c.requests++
		c.pids[r.Body]++
		c.last[i] = r.Body
		if err != nil {
			c.errs = append(c.errs, fmt.Errorf("request %d of client %d: %w", n, i, err))
		}
		c.mu.Unlock()
		if err != nil {
			return
		}
	}
}

// waitAll waits until all clients are answered by pid.
func (c *crowd) waitAll(pid int) {
	c.t.Helper()
	testbin.Poll(c.t, fmt.Sprintf("all clients to be answered by %d", pid), func() bool {
		c.mu.Lock()
		defer c.mu.Unlock()
		if len(c.errs) > 0 {
			c.t.Fatal(errors.Join(c.errs...))
		}
		for _, last := range c.last {
			if last != strconv.Itoa(pid) {
				return false
			}
		}
		return true
	})
}

func (c *crowd) end() {
	c.mu.Lock()
	select {
	case <-c.stop:
	default:
		close(c.stop)
	}
	c.mu.Unlock()
	c.done.Wait()
}

// 64 busy clients live through 20 restarts, each on its one connection.
func TestHandOverUnderLoad(t *testing.T) {
	for _, network := range []string{"tcp", "unix"} {
		for _, standby := range []time.Duration{0, 50 * time.Millisecond} {
			t.Run(fmt.Sprintf("%s, standby %v", network, standby), func(t *testing.T) {
				cfg := handingOver(network)
				cfg.Standby = standby
				s, pid, addr := startKind(t, cfg)
				clients := newCrowd(t, 64, cfg.Listens[0], addr)
				clients.waitAll(pid)
				for range shorter(20, 5) {
					old, new := s.Restart()
					clients.waitAll(new)
					if e := s.WaitReturned(old); e.Event != play.Returned || e.Text != "" {
						t.Fatalf("pid %d: %s %s", old, e.Event, e.Text)
					}
				}
				clients.end()
				if len(clients.errs) > 0 {
					t.Error(errors.Join(clients.errs...))
				}
				t.Logf("%d requests, answered by %d processes", clients.requests, len(clients.pids))
				s.Stop()
			})
		}
	}
}

// Connections that are idle, and those that have sent nothing yet, are answered by
// the new process. What that takes is logged.
func TestHandOverOfIdleConnections(t *testing.T) {
	for _, network := range []string{"tcp", "unix"} {
		t.Run(network, func(t *testing.T) {
			s, pid, addr := startKind(t, handingOver(network))
			empty := testbin.ResidentKB(t, pid)
			each := func(pid int) float64 { return float64(testbin.ResidentKB(t, pid)-empty) / idleConnections }
			clients := make([]*testbin.Wire, idleConnections)
			for i := range clients {
				clients[i] = testbin.Dial(t, play.Listen{Network: network}, addr)
				if i%2 == 0 {
					continue // sends nothing yet
				}
				if got := clients[i].Ask(""); got != strconv.Itoa(pid) {
					t.Fatalf("answered by %s, want %d", got, pid)
				}
			}
			for range 2 {
				old, child := s.Restart()
				begin := time.Now()
				s.WaitLog(old, fmt.Sprintf("idle connections were handed over connections=%d", len(clients)))
				took := time.Since(begin)
				s.WaitReturned(old)
				taken := each(child)
				for i, c := range clients {
					if got := c.Ask(""); got != strconv.Itoa(child) {
						t.Fatalf("client %d is answered by %s, want %d", i, got, child)
					}
				}
				t.Logf("%d connections: each took %v, and %.1f KiB of the new process, %.1f after a request",
					len(clients), took/time.Duration(len(clients)), taken, each(child))
			}
			s.Stop()
		})
	}
}

// Clients that send what they like, in pieces, get the answers of a server that is
// never restarted, byte for byte, and keep their connections.
func TestHandOverOfAnyRequests(t *testing.T) {
	for _, network := range []string{"tcp", "unix"} {
		t.Run(network, func(t *testing.T) {
			cfg := handingOver(network)
			_, _, plain := startKind(t, play.Config{Listens: []play.Listen{{Addr: "127.0.0.1:0"}}})
			s, _, addr := startKind(t, cfg)
			stop := make(chan struct{})
			var clients sync.WaitGroup
			for i := range 16 {
				c, undisturbed := testbin.Dial(t, cfg.Listens[0], addr), testbin.Dial(t, play.Listen{}, plain)
				clients.Add(1)
				go func() {
					defer clients.Done()
					r := rand.New(rand.NewPCG(uint64(i), 4))
					for {
						select {
						case <-stop:
							return
						default:
						}
						data := make([]byte, 100)
						for i := range data {
							data[i] = byte(r.Uint32())
						}
						s := script.New(data, script.Followed)
						want, err := s.Play(undisturbed, nil)
						if err != nil {
							t.Errorf("the server that is never restarted: %v", err)
							return
						}
						got, err := s.Play(c, nil)
						if err != nil || !bytes.Equal(got, want) {
							t.Errorf("got\n%q\n%v, want\n%q\nscript:\n%s", got, err, want, s)
							return
						}
					}
				}()
			}
			for range shorter(10, 4) {
				old, _ := s.Restart()
				s.WaitReturned(old)
			}
			close(stop)
			clients.Wait()
			s.Stop()
		})
	}
}

// Requests that were sent before the answers to those before them are answered
// where they were sent.
func TestPipelineIsAnsweredBeforeHandOver(t *testing.T) {
	cfg := handingOver("tcp")
	cfg.IdleGrace = testbin.Patience
	s, pid, addr := startKind(t, cfg)
	release := filepath.Join(t.TempDir(), "release")
	c := testbin.Dial(t, play.Listen{}, addr)
	c.Send(testbin.Request("until "+release) + testbin.Request("") + testbin.Request(""))
	s.Wait("the slow request", asked("until "+release))
	_, child := s.Restart()
	s.WaitLog(pid, "draining")
	touch(t, release)
	for range 3 {
		if got, want := c.Receive(), (testbin.Reply{Status: 200, Body: strconv.Itoa(pid)}); got != want {
			t.Errorf("got %+v, want %+v", got, want)
		}
	}
	// The connection may still have to be asked to go.
	testbin.Poll(t, "an answer of the new process", func() bool { return c.Ask("") == strconv.Itoa(child) })
	s.WaitReturned(pid)
}

// While connections go there is time for others, more than the five and a half seconds
// that would be left without.
func TestHandOverGoesOn(t *testing.T) {
	t.Parallel() // it waits most of the time
	s, pid, addr := startKind(t, handingOver("tcp"))
	var clients []*testbin.Wire
	var release []string
	for i := range 7 {
		c, file := testbin.Dial(t, play.Listen{}, addr), filepath.Join(t.TempDir(), "release")
		c.Send(testbin.Request("until " + file))
		s.Wait(fmt.Sprintf("slow request %d", i), asked("until "+file))
		clients, release = append(clients, c), append(release, file)
	}
	_, child := s.Restart()
	s.WaitLog(pid, "draining")
	for i, c := range clients {
		clients[len(clients)-1].StaysOpen(900 * time.Millisecond)
		touch(t, release[i])
		if got, want := c.Receive(), (testbin.Reply{Status: 200, Body: strconv.Itoa(pid)}); got != want {
			t.Errorf("client %d: got %+v, want %+v", i, got, want)
		}
		testbin.Poll(t, "an answer of the new process", func() bool { return c.Ask("") == strconv.Itoa(child) })
	}
	s.WaitReturned(pid)
}

// What the new process can't take is drained with care by the old one.
func TestHandOverIsRefused(t *testing.T) {
	for name, next := range map[string]play.Config{
		"raw server":     {Role: "net", Listens: []play.Listen{{Network: "tcp", Addr: "127.0.0.1:0"}}},
		"TLS":            {Role: "http", Listens: []play.Listen{{Addr: "127.0.0.1:0", TLS: true}}, HandOverIdle: true},
		"one that dies":  {Role: "dies of a connection", Listens: []play.Listen{{Addr: "127.0.0.1:0"}}},
		"no descriptors": {Role: "http", Listens: []play.Listen{{Addr: "127.0.0.1:0"}}, HandOverIdle: true},
	} {
		t.Run(name, func(t *testing.T) {
			cfg := handingOver("tcp")
			cfg.Standby = time.Hour
			cfg.IdleGrace = testbin.Patience
			s := testbin.Start(t, cfg)
			pid, addrs := s.Newest()
			idle, fresh := testbin.Dial(t, play.Listen{}, addrs[0]), testbin.Dial(t, play.Listen{}, addrs[0])
			idle.Ask("")
			s.Deploy(next)
			child := s.RestartPID(pid)
			s.WaitLog(pid, "standing by")
			if name == "no descriptors" {
				// Enough for the one that asks, but not for one more.
				testbin.Ask(t, testbin.HTTP("http", addrs[0]), fmt.Sprintf("limit %d %d", syscall.RLIMIT_NOFILE, 3))
			}
			draining(s, pid, syscall.SIGTERM)
			for _, c := range []*testbin.Wire{idle, fresh} {
				// It may take the old process some time to know that it keeps them.
				if got, want := askToTheEnd(c, testbin.Request("")), (testbin.Reply{Status: 200, Body: strconv.Itoa(pid), Close: true}); got != want {
					t.Errorf("got %+v, want %+v", got, want)
				}
				c.WaitClosed()
			}
			s.WaitReturned(pid)
			if name != "one that dies" { // it has
				s.Signal(child, syscall.SIGTERM)
			}
			s.WaitGone()
		})
	}
}

// The new process dies while connections are on their way to it: those that it has
// not taken stay, with what was sent on them.
func TestHeirDiesDuringHandOver(t *testing.T) {
	for _, network := range []string{"tcp", "unix"} {
		t.Run(network, func(t *testing.T) {
			cfg := handingOver(network)
			cfg.Standby = time.Hour
			cfg.IdleGrace = -1 // what was sent is not lost even so
			s, pid, addr := startKind(t, cfg)
			var clients []*testbin.Wire
			for range 100 {
				c := testbin.Dial(t, cfg.Listens[0], addr)
				c.Ask("")
				clients = append(clients, c)
			}
			child := s.RestartPID(pid)
			s.WaitLog(pid, "standing by")
			s.Freeze(child)
			draining(s, pid, syscall.SIGTERM)
			// All wait for the child now.
			for _, c := range clients {
				c.Send(testbin.Request(""))
			}
			s.Signal(child, syscall.SIGKILL)
			for i, c := range clients {
				if got := c.Receive(); got.Status != 200 || got.Body != strconv.Itoa(pid) {
					t.Fatalf("client %d: got %+v, want an answer of %d", i, got, pid)
				}
			}
			s.WaitGone()
		})
	}
}
