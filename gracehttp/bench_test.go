//go:build unix

package gracehttp

import (
	"io"
	"net"
	"net/http"
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/facebookgo/grace/internal/accept"
)

// BenchmarkHandOverIdle compares the throughput of a server whose connections can
// be handed over with that of one whose connections are those of package net. The
// two take turns of some milliseconds; the metric is the median of the quotients,
// in percent.
func BenchmarkHandOverIdle(b *testing.B) {
	const request = "GET / HTTP/1.1\r\nHost: localhost\r\nUser-Agent: bench\r\nAccept: */*\r\n\r\n"
	var clients [2][]net.Conn
	size := 0
	for i := range clients {
		l, err := net.Listen("tcp", "127.0.0.1:0")
		if err != nil {
			b.Fatal(err)
		}
		a := newApp([]*http.Server{{Handler: http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
			_, _ = io.WriteString(w, "hello, world\n")
		})}})
		a.handOverIdle = i == 1
		s := a.servers[0]
		s.listener = accept.New(l, func(l net.Listener) error { return l.Close() })
		s.prepare()
		go func() { _ = s.serve() }()
		b.Cleanup(func() { _ = s.http.Close(); <-s.served })
		for range 8 {
			c, err := net.Dial("tcp", l.Addr().String())
			if err != nil {
				b.Fatal(err)
			}
			b.Cleanup(func() { _ = c.Close() })
			clients[i] = append(clients[i], c)
			buf := make([]byte, 4096)
			if _, err := io.WriteString(c, request); err != nil {
				b.Fatal(err)
			}
			if size, err = c.Read(buf); err != nil {
				b.Fatal(err)
			}
		}
	}
	// turn makes n requests on each connection of a server.
	turn := func(i, n int) time.Duration {
		begin := time.Now()
		var wg sync.WaitGroup
		for _, c := range clients[i] {
			wg.Add(1)
			go func() {
				defer wg.Done()
				buf := make([]byte, size)
				for range n {
					if _, err := io.WriteString(c, request); err != nil {
						b.Error(err)
						return
					}
					if _, err := io.ReadFull(c, buf); err != nil {
						b.Error(err)
						return
					}
				}
			}()
		}
		wg.Wait()
		return time.Since(begin)
	}
	turn(0, 100)
	turn(1, 100)
	const n = 100
	var quotients []float64
	b.ResetTimer()
	for i := 0; b.Loop(); i++ {
		var times [2]time.Duration
		times[i%2] = turn(i%2, n)
		times[1-i%2] = turn(1-i%2, n)
		quotients = append(quotients, float64(times[0])/float64(times[1]))
	}
	slices.Sort(quotients)
	b.ReportMetric(100*quotients[len(quotients)/2], "%throughput")
}
