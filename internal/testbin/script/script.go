// Package script makes clients that send requests in any pieces and with any
// pauses, from bytes that a fuzzer or a random source gives.
package script

import (
	"bufio"
	"bytes"
	"fmt"
	"io"
	"net"
	"net/http"
	"strings"
)

// Script is what a client sends.
type Script struct {
	Pieces []Piece
	Turn   int    // before this piece, or after the last one, something happens
	heads  []bool // for each request: its response has no body
}

// Piece is sent in one write.
type Piece struct {
	Text string
	Wait int // for so many responses, before it is sent
}

// Kind is a sort of requests.
type Kind func(i int) string

// Followed are requests after which the connection is as it was before.
var Followed = []Kind{
	func(i int) string { return fmt.Sprintf("GET /echo?%d HTTP/1.1\r\nHost: x\r\n\r\n", i) },
	func(i int) string { return fmt.Sprintf("HEAD /echo?%d HTTP/1.1\r\nhost: x\r\nX-Y:z\r\n\r\n", i) },
	func(i int) string {
		return fmt.Sprintf("POST /echo?%d HTTP/1.1\r\nHost: x\r\ncontent-LENGTH:  13 \r\n\r\nPOST / HTTP\r\n", i)
	},
	func(i int) string {
		return fmt.Sprintf("POST /echo?%d HTTP/1.1\r\nHost: x\r\nContent-Length: 0\r\n\r\n", i)
	},
	func(i int) string {
		return fmt.Sprintf("PUT /echo?%d HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: Chunked\r\nTrailer: T\r\n\r\n4;x=y\r\n\r\n\r\n\r\n0a\r\n0\r\n\r\n12345\r\n0\r\nT: 1\r\n\r\n", i)
	},
	func(i int) string {
		return fmt.Sprintf("POST /echo?%d HTTP/1.1\r\nHost: x\r\nExpect: 100-continue\r\nContent-Length: 4\r\n\r\nbody", i)
	},
	func(i int) string {
		// The handler leaves the body to net/http.
		return fmt.Sprintf("POST /refuse?%d HTTP/1.1\r\nHost: x\r\nContent-Length: 70\r\n\r\n%s", i, strings.Repeat("0123456789", 7))
	},
	func(i int) string { return fmt.Sprintf("GET http://y/echo?%d HTTP/1.1\r\nHost: x\r\n\r\n", i) },
}

// Strange are requests that net/http answers, and that a careful reader of the
// stream may not understand.
var Strange = []Kind{
	func(i int) string { return fmt.Sprintf("GET /echo?%d HTTP/1.1\nHost: x\n\n", i) },
	func(i int) string { return fmt.Sprintf("GET /echo?%d HTTP/1.1\r\nHost: x\r\nA: b\r\n c\r\n\r\n", i) },
	func(i int) string {
		return fmt.Sprintf("GET /echo?%d HTTP/1.0\r\nConnection: keep-alive\r\n\r\n", i)
	},
	func(i int) string {
		return fmt.Sprintf("POST /echo?%d HTTP/1.1\r\nHost: x\r\nContent-Length: 2\r\nContent-Length: 2\r\n\r\nok", i)
	},
}

// New makes a script of at most eight requests of kinds. All data make one.
func New(data []byte, kinds []Kind) Script {
	var s Script
	next := func() int {
		if len(data) == 0 {
			return 0
		}
		b := data[0]
		data = data[1:]
		return int(b)
	}
	var stream string
	var ends []int
	for i := range 1 + next()%8 {
		text := kinds[next()%len(kinds)](i)
		stream += text
		ends = append(ends, len(stream))
		s.heads = append(s.heads, strings.HasPrefix(text, "HEAD"))
	}
	for at := 0; at < len(stream); {
		size := 1 + next()
		if size > 128 { // to the end of a request more often than not
			for _, end := range ends {
				if end > at {
					size = end - at
					break
				}
			}
		}
		size = min(size, len(stream)-at)
		complete := 0
		for _, end := range ends {
			if end <= at {
				complete++
			}
		}
		p := Piece{Text: stream[at : at+size]}
		if next()%2 == 1 {
			p.Wait = complete
		}
		s.Pieces = append(s.Pieces, p)
		at += size
	}
	s.Turn = next() % (len(s.Pieces) + 1)
	return s
}

// Sequence is a script that sends one request of each kind, each after the
// response to the one before. The turn is before the last one.
func Sequence(kinds ...Kind) Script {
	s := Script{Turn: len(kinds) - 1}
	for i, kind := range kinds {
		text := kind(i)
		s.Pieces = append(s.Pieces, Piece{text, i})
		s.heads = append(s.heads, strings.HasPrefix(text, "HEAD"))
	}
	return s
}

// Split is a script that sends one request in two pieces, and then another one. The
// turn is between the pieces.
func Split(kind Kind, at int) Script {
	text, next := kind(0), Followed[0](1)
	s := Script{Turn: 1, Pieces: []Piece{{text[:at], 0}, {text[at:], 0}, {next, 1}}}
	s.heads = []bool{strings.HasPrefix(text, "HEAD"), false}
	return s
}

// String shows the script.
func (s Script) String() string {
	var b strings.Builder
	for i, p := range s.Pieces {
		if i == s.Turn {
			b.WriteString("turn\n")
		}
		fmt.Fprintf(&b, "after %d responses %q\n", p.Wait, p.Text)
	}
	return b.String()
}

// Play sends the script over c, and returns what came back: the response to each
// request, byte for byte, with those that announce it. It calls turn, if that is
// not nil, when it is time.
func (s Script) Play(c net.Conn, turn func()) (answers []byte, err error) {
	came := make(chan struct{}, len(s.heads)) // a value for each response
	failed := make(chan error, 1)
	go func() {
		defer close(came)
		var read bytes.Buffer
		r := bufio.NewReader(io.TeeReader(c, &read))
		for _, head := range s.heads {
			if err := receive(r, head); err != nil {
				failed <- err
				break
			}
			came <- struct{}{}
		}
		answers = read.Bytes()
	}()
	responses := 0
	for i, p := range s.Pieces {
		for ok := true; ok && responses < p.Wait; responses++ {
			_, ok = <-came
		}
		if i == s.Turn && turn != nil {
			turn()
		}
		if _, err = io.WriteString(c, p.Text); err != nil {
			err = fmt.Errorf("send piece %d: %w", i, err)
			break
		}
	}
	if s.Turn == len(s.Pieces) && turn != nil && err == nil {
		turn()
	}
	for range came {
	}
	select {
	case why := <-failed:
		return answers, why
	default:
		return answers, err
	}
}

// receive reads a response that is not only informational.
func receive(r *bufio.Reader, head bool) error {
	req := &http.Request{Method: "GET"}
	if head {
		req.Method = "HEAD"
	}
	for {
		resp, err := http.ReadResponse(r, req)
		if err != nil {
			return fmt.Errorf("receive: %w", err)
		}
		_, err = io.Copy(io.Discard, resp.Body)
		if err != nil {
			return fmt.Errorf("receive the body: %w", err)
		}
		if resp.StatusCode >= 200 {
			return nil
		}
	}
}

// Handler answers scripts in the same bytes, whenever and in whichever process.
func Handler(w http.ResponseWriter, r *http.Request) {
	w.Header().Set("Date", "today")
	if r.URL.Path == "/refuse" {
		http.Error(w, "no", http.StatusForbidden)
		return
	}
	body, err := io.ReadAll(r.Body)
	fmt.Fprintf(w, "%s %s %q %v %v\n", r.Method, r.URL, body, err, r.Trailer)
}
