package framing

import (
	"bufio"
	"bytes"
	"net/http"
	"strings"
	"testing"

	"github.com/facebookgo/grace/internal/testbin/compare"
)

// BenchmarkFeed compares to follow a request with what net/http does with the same
// bytes. They come as a server reads them.
func BenchmarkFeed(b *testing.B) {
	browser := "GET /index.html?a=b HTTP/1.1\r\nHost: localhost:8080\r\nUser-Agent: " + strings.Repeat("x", 100) +
		"\r\nAccept: " + strings.Repeat("x", 80) + "\r\nAccept-Language: en\r\nAccept-Encoding: gzip, deflate, br\r\nConnection: keep-alive\r\nCookie: "
	for _, test := range []struct{ name, request string }{
		{"short", get},
		{"browser", browser + strings.Repeat("x", 200) + "\r\n\r\n"},
		{"more than a buffer", browser + strings.Repeat("x", 5000) + "\r\n\r\n"},
		{"body", post + "Content-Length: 1000\r\n\r\n" + strings.Repeat("x", 1000)},
		{"chunks", chunked + strings.Repeat("a\r\n0123456789\r\n", 100) + "0\r\n\r\n"},
	} {
		b.Run(test.name, func(b *testing.B) {
			request := []byte(test.request)
			src := bytes.NewReader(nil)
			r := bufio.NewReader(src)
			plain := func(n int) {
				for range n {
					src.Reset(request)
					r.Reset(src)
					req, err := http.ReadRequest(r)
					if err != nil {
						b.Fatal(err)
					}
					_ = req.Body.Close()
				}
			}
			var requests Requests
			ours := func(n int) {
				for range n {
					requests.Feed(request[:1]) // net/http looks whether a client goes away
					for p := request[1:]; len(p) > 0; {
						size := min(len(p), 4096)
						requests.Feed(p[:size])
						p = p[size:]
					}
				}
			}
			compare.Benchmark(b, plain, ours)
			if !requests.Boundary() {
				b.Error("the last request does not end")
			}
		})
	}
}
