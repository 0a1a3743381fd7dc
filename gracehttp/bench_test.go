//go:build unix

package gracehttp

import (
	"io"
	"net"
	"net/http"
	"sync"
	"testing"
	"time"

	"github.com/facebookgo/grace/internal/testbin/compare"
)

// BenchmarkRequest is a request to a server of ours and to one of net/http, where
// several clients ask at once.
func BenchmarkRequest(b *testing.B) {
	const request = "GET / HTTP/1.1\r\nHost: localhost\r\nUser-Agent: bench\r\nAccept: */*\r\n\r\n"
	const clients = 8
	all := func(conns []net.Conn) func(n int) {
		var asks []func(int)
		for _, c := range conns {
			asks = append(asks, ask(b, c, request))
		}
		return func(n int) {
			var wg sync.WaitGroup
			for i, ask := range asks {
				wg.Add(1)
				go func() {
					defer wg.Done()
					ask((n + i) / clients)
				}()
			}
			wg.Wait()
		}
	}
	for _, s := range setups {
		b.Run(s.name, func(b *testing.B) {
			plain, ours := s.connect(b, clients)
			compare.Benchmark(b, all(plain), all(ours))
		})
	}
}

// BenchmarkHandler is what a request goes through before the handler of the program.
func BenchmarkHandler(b *testing.B) {
	for _, closing := range []bool{false, true} {
		name := map[bool]string{false: "serving", true: "closing"}[closing]
		b.Run(name, func(b *testing.B) {
			s := newApp([]*http.Server{{}}).servers[0]
			s.app.tracker.closing.Store(closing)
			handler := s.handler(http.HandlerFunc(func(http.ResponseWriter, *http.Request) {}))
			// The answer to an upgrade has a header of its own, and nothing is added to it.
			r := &http.Request{Header: http.Header{"Upgrade": {"websocket"}}}
			b.ReportAllocs()
			for b.Loop() {
				handler.ServeHTTP(nil, r)
			}
		})
	}
}

// BenchmarkConnState is what a request and the wait for the next one go through, on one
// of many connections.
func BenchmarkConnState(b *testing.B) {
	s := newApp([]*http.Server{{}}).servers[0]
	connState := s.connState(nil)
	conns := make([]net.Conn, 10_000)
	for i := range conns {
		tcp := &net.TCPConn{}
		conns[i] = &tcpConn{tcp, watch{socket: tcp, follows: true}}
		s.app.tracker.add(s, conns[i])
	}
	b.ReportAllocs()
	for i := 0; b.Loop(); i++ {
		c := conns[i%len(conns)]
		connState(c, http.StateActive)
		connState(c, http.StateIdle)
	}
}

// BenchmarkConn is a request that is read from a connection of HandOverIdle, and an
// answer that is written to it, as for one of package net.
func BenchmarkConn(b *testing.B) {
	client, plain := tcpPair(b)
	watchedClient, c := tcpPair(b)
	for _, c := range []net.Conn{client, watchedClient} {
		_ = c.SetDeadline(time.Time{}) // who knows how long it runs
	}
	watched := &tcpConn{c, watch{socket: c, follows: true}}
	send := func(from io.Writer, to io.Reader) func(n int) {
		question, buf := []byte(aRequest), make([]byte, 4096)
		return func(n int) {
			for range n {
				if _, err := from.Write(question); err != nil {
					b.Fatal(err)
				}
				if _, err := to.Read(buf); err != nil {
					b.Fatal(err)
				}
			}
		}
	}
	b.Run("read", func(b *testing.B) { compare.Benchmark(b, send(client, plain), send(watchedClient, watched)) })
	b.Run("write", func(b *testing.B) { compare.Benchmark(b, send(plain, client), send(watched, watchedClient)) })
}
