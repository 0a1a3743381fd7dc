package framing

import (
	"bufio"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"slices"
	"strings"
	"testing"
	"time"
)

const (
	get     = "GET / HTTP/1.1\r\nHost: x\r\n\r\n"
	post    = "POST / HTTP/1.1\r\nHost: x\r\n"
	chunked = post + "Transfer-Encoding: chunked\r\n\r\n"
)

// long is longer than what is looked at of a line.
var long = strings.Repeat("0123456789abcdef", 20)

// What is expected of a stream.
type want int

const (
	atBoundary want = iota
	between         // in the middle of a request
	isLost
)

var streams = []struct {
	name, stream string
	want         want
	begun        int  // headers
	more         bool // as Begun says it
}{
	{"nothing", "", atBoundary, 0, false},
	{"one request", get, atBoundary, 1, false},
	{"three requests", get + get + get, atBoundary, 3, false},
	{"no header", "GET / HTTP/1.1\r\n\r\n", atBoundary, 1, false},
	{"absolute URI", "GET http://x/a?b HTTP/1.1\r\nHost: x\r\n\r\n", atBoundary, 1, false},
	{"asterisk", "OPTIONS * HTTP/1.1\r\nHost: x\r\n\r\n", atBoundary, 1, false},

	{"one byte", "G", between, 0, true},
	{"request line", "GET / HTTP/1.1\r\n", between, 0, true},
	{"no end of the header", "GET / HTTP/1.1\r\nHost: x\r\n", between, 0, true},
	{"half a line end", "GET / HTTP/1.1\r\nHost: x\r\n\r", between, 0, true},
	{"a second one has begun", get + "GET /", between, 1, true},
	{"half a line end where a request begins", get + "\r", between, 1, true},

	{"body", post + "Content-Length: 5\r\n\r\nhello", atBoundary, 1, false},
	{"body that looks like a request", post + fmt.Sprintf("Content-Length: %d\r\n\r\n", len(get)) + get, atBoundary, 1, false},
	{"bodies", strings.Repeat(post+"Content-Length: 5\r\n\r\nhello", 3), atBoundary, 3, false},
	{"empty body", post + "Content-Length: 0\r\n\r\n" + get, atBoundary, 2, false},
	{"length in capitals", post + "CONTENT-LENGTH:5\r\n\r\nhello", atBoundary, 1, false},
	{"length with space around it", post + "Content-Length: \t 5 \t\r\n\r\nhello", atBoundary, 1, false},
	{"length with zeros before it", post + "Content-Length: 0005\r\n\r\nhello", atBoundary, 1, false},
	{"body of a GET", "GET / HTTP/1.1\r\nHost: x\r\nContent-Length: 5\r\n\r\nhello", atBoundary, 1, false},
	{"no body yet", post + "Content-Length: 5\r\n\r\n", between, 1, false},
	{"half a body", post + "Content-Length: 5\r\n\r\nhel", between, 1, false},
	{"no end of the body in sight", post + "Content-Length: 9223372036854775807\r\n\r\n" + get, between, 1, false},
	{"more than the body", post + "Content-Length: 5\r\n\r\nhelloGET", between, 1, true},
	{"names like the two", post + "Content-Lengtj: 7\r\nTransfer-Encodinh: chunked\r\nXContent-Length: 9\r\n\r\n", atBoundary, 1, false},
	{"space before the colon", post + "Content-Length : 5\r\n\r\n", atBoundary, 1, false}, // a name that nobody knows, refused by net/http.Server

	{"chunks", chunked + "5\r\nhello\r\n0\r\n\r\n", atBoundary, 1, false},
	{"many chunks", chunked + "1\r\na\r\n01\r\nb\r\nA\r\n0123456789\r\na\r\n0123456789\r\n00\r\n\r\n", atBoundary, 1, false},
	{"no chunks", chunked + "0\r\n\r\n" + get, atBoundary, 2, false},
	{"a chunk of line ends", chunked + "4\r\n\r\n\r\n\r\n0\r\n\r\n", atBoundary, 1, false},
	{"chunked in capitals", post + "TRANSFER-ENCODING:\tCHUNKED \r\n\r\n0\r\n\r\n", atBoundary, 1, false},
	{"chunk extensions", chunked + "5;a=b;c=\"d\"\r\nhello\r\n0;last\r\n\r\n", atBoundary, 1, false},
	{"space before an extension", chunked + "5 \t;a\r\nhello\r\n0\r\n\r\n", atBoundary, 1, false}, // net/http refuses it
	{"trailers", chunked + "0\r\nA: b\r\nContent-Length: 7\r\n\r\n" + get, atBoundary, 2, false},
	{"no chunk yet", chunked, between, 1, false},
	{"half a size", chunked + "5", between, 1, false},
	{"half a chunk", chunked + "5\r\nhel", between, 1, false},
	{"a chunk without its end", chunked + "5\r\nhello", between, 1, false},
	{"half the end of a chunk", chunked + "5\r\nhello\r", between, 1, false},
	{"no last chunk", chunked + "5\r\nhello\r\n", between, 1, false},
	{"last chunk without the end of the body", chunked + "0\r\n", between, 1, false},
	{"half the end of the body", chunked + "0\r\n\r", between, 1, false},
	{"trailers without their end", chunked + "0\r\nA: b\r\n", between, 1, false},
	{"largest chunk", chunked + "ffffffffffffffff\r\n" + get, between, 1, false},

	{"HTTP/1.0", "GET / HTTP/1.0\r\n\r\n", isLost, 0, false},
	{"HTTP/0.9", "GET /\r\n", isLost, 0, false},
	{"HTTP/1.2", "GET / HTTP/1.2\r\n\r\n", isLost, 0, false},
	{"HTTP/2", "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", isLost, 0, false},
	{"PRI with a version of 1.1", "PRI * HTTP/1.1\r\n\r\n", isLost, 0, false},
	{"version in lower case", "GET / http/1.1\r\n\r\n", isLost, 0, false},
	{"space after the version", "GET / HTTP/1.1 \r\n\r\n", isLost, 0, false},
	{"no space before the version", "GET /\tHTTP/1.1\r\n\r\n", isLost, 0, false},
	{"CONNECT", "CONNECT x:1 HTTP/1.1\r\nHost: x\r\n\r\n", isLost, 0, false},
	{"TLS", "\x16\x03\x01\x00\x05hello\n", isLost, 0, false},
	{"bare LF after the request line", "GET / HTTP/1.1\nHost: x\r\n\r\n", isLost, 0, false},
	{"bare LF in the header", "GET / HTTP/1.1\r\nHost: x\n\r\n", isLost, 0, false},
	{"bare LF after the header", "GET / HTTP/1.1\r\nHost: x\r\n\n", isLost, 0, false},
	{"two CR", "GET / HTTP/1.1\r\nHost: x\r\n\r\r\n", isLost, 0, false},
	{"an empty line before a request", post + "Content-Length: 0\r\n\r\n\r\n" + get, isLost, 1, false},
	{"a bare LF before a request", get + "\n" + get, isLost, 1, false},
	{"lost after requests", get + get + "GET / HTTP/1.0\r\n\r\n", isLost, 2, false},

	{"line without a colon", "GET / HTTP/1.1\r\nHost\r\n\r\n", isLost, 0, false},
	{"empty name", "GET / HTTP/1.1\r\n: x\r\n\r\n", isLost, 0, false},
	{"line that goes on with a colon", "GET / HTTP/1.1\r\nX: a\r\n 3456789012345: b\r\n\r\n", isLost, 0, false},
	{"line that goes on", "GET / HTTP/1.1\r\nX: a\r\n b: c\r\n\r\n", isLost, 0, false},
	{"line that goes on after a tab", "GET / HTTP/1.1\r\nX: a\r\n\tb: c\r\n\r\n", isLost, 0, false},
	{"length that goes on", post + "Content-Length: \r\n 5\r\n\r\nhello", isLost, 0, false},

	{"length and chunks", post + "Content-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n", isLost, 0, false},
	{"chunks and length", post + "Transfer-Encoding: chunked\r\nContent-Length: 5\r\n\r\n0\r\n\r\n", isLost, 0, false},
	{"length 0 and chunks", post + "Content-Length: 0\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n", isLost, 0, false},
	{"two lengths", post + "Content-Length: 5\r\nContent-Length: 6\r\n\r\nhello", isLost, 0, false},
	{"one length twice", post + "Content-Length: 5\r\ncontent-length: 5\r\n\r\nhello", isLost, 0, false},
	{"list of lengths", post + "Content-Length: 5, 5\r\n\r\nhello", isLost, 0, false},
	{"empty length", post + "Content-Length:\r\n\r\n", isLost, 0, false},
	{"positive length", post + "Content-Length: +5\r\n\r\nhello", isLost, 0, false},
	{"negative length", post + "Content-Length: -0\r\n\r\n", isLost, 0, false},
	{"length in hex", post + "Content-Length: 0x5\r\n\r\nhello", isLost, 0, false},
	{"length with underscore", post + "Content-Length: 1_0\r\n\r\n0123456789", isLost, 0, false},
	{"length with NUL", post + "Content-Length: 5\x00\r\n\r\nhello", isLost, 0, false},
	{"length with vertical tab", post + "Content-Length: \v5\r\n\r\nhello", isLost, 0, false},
	{"length in other digits", post + "Content-Length: \u0665\r\n\r\nhello", isLost, 0, false},
	{"length of 2^63", post + "Content-Length: 9223372036854775808\r\n\r\n", isLost, 0, false},
	{"length of 2^64", post + "Content-Length: 18446744073709551616\r\n\r\n", isLost, 0, false},

	{"identity", post + "Transfer-Encoding: identity\r\n\r\n", isLost, 0, false},
	{"gzip and chunked", post + "Transfer-Encoding: gzip, chunked\r\n\r\n0\r\n\r\n", isLost, 0, false},
	{"chunked and identity", post + "Transfer-Encoding: chunked\r\nTransfer-Encoding: identity\r\n\r\n0\r\n\r\n", isLost, 0, false},
	{"chunked twice", post + "Transfer-Encoding: chunked\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n", isLost, 0, false},
	{"chunked with vertical tab", post + "Transfer-Encoding: chunked\v\r\n\r\n0\r\n\r\n", isLost, 0, false},
	{"quoted chunked", post + "Transfer-Encoding: \"chunked\"\r\n\r\n0\r\n\r\n", isLost, 0, false},
	{"empty transfer encoding", post + "Transfer-Encoding:\r\n\r\n", isLost, 0, false},

	{"positive size", chunked + "+5\r\nhello\r\n0\r\n\r\n", isLost, 1, false},
	{"negative size", chunked + "-0\r\n\r\n", isLost, 1, false},
	{"size with 0x", chunked + "0x5\r\nhello\r\n0\r\n\r\n", isLost, 1, false},
	{"size with underscore", chunked + "1_0\r\n0123456789012345\r\n0\r\n\r\n", isLost, 1, false},
	{"size of 2^64", chunked + "10000000000000000\r\n", isLost, 1, false},
	{"empty size", chunked + "\r\n", isLost, 1, false},
	{"extension alone", chunked + ";a\r\n", isLost, 1, false},
	{"space before a size", chunked + " 5\r\nhello\r\n0\r\n\r\n", isLost, 1, false},
	{"size and bare LF", chunked + "5\nhello\r\n0\r\n\r\n", isLost, 1, false},
	{"size and two CR", chunked + "5\r\r\nhello\r\n0\r\n\r\n", isLost, 1, false},
	{"chunk and bare LF", chunked + "5\r\nhello\n0\r\n\r\n", isLost, 1, false},
	{"chunk that is longer", chunked + "5\r\nhello!\r\n0\r\n\r\n", isLost, 1, false},
	{"last chunk and bare LF", chunked + "0\n\r\n", isLost, 1, false},
	{"body that ends in bare LF", chunked + "0\r\n\n", isLost, 1, false},
	{"trailer and bare LF", chunked + "0\r\nA: b\n\r\n", isLost, 1, false},

	{"long line", "GET /" + long + " HTTP/1.1\r\nCookie: " + strings.Repeat(long, 50) + "\r\nHost: x\r\n\r\n", atBoundary, 1, false},
	{"line of just the length", post + "Content-Length: " + strings.Repeat(" ", longest-len("Content-Length: 5\r\n")) + "5\r\n\r\nhello", atBoundary, 1, false},
	{"line of one byte more", post + "Content-Length: " + strings.Repeat(" ", longest+1-len("Content-Length: 5\r\n")) + "5\r\n\r\nhello", isLost, 0, false},
	{"long name", post + long[:head-1] + ": " + long + "\r\n\r\n", atBoundary, 1, false},
	{"name that is too long", post + long[:head] + ": " + long + "\r\n\r\n", isLost, 0, false},
	{"long line without a colon", "GET / HTTP/1.1\r\n" + long + "\r\n\r\n", isLost, 0, false},
	{"long line and bare LF", "GET / HTTP/1.1\r\nCookie: " + long + "\n\r\n", isLost, 0, false},
	{"long line of an old client", "GET /" + long + " HTTP/1.0\r\n\r\n", isLost, 0, false},
	{"long line with CONNECT", "CONNECT " + long + ":1 HTTP/1.1\r\nHost: x\r\n\r\n", isLost, 0, false},
	{"long line that goes on", "GET / HTTP/1.1\r\nX: a\r\n b:" + long + "\r\n\r\n", isLost, 0, false},
	{"long line with chunked at its end", post + "Transfer-Encoding: " + long + ", chunked\r\n\r\n", isLost, 0, false},
	{"chunked with something after spaces", post + "Transfer-Encoding: chunked" + strings.Repeat(" ", longest) + "x\r\n\r\n", isLost, 0, false},
	{"long length", post + "Content-Length: " + strings.Repeat("0", longest) + "5\r\n\r\nhello", isLost, 0, false},
	{"long list of lengths", post + "Content-Length: 5" + strings.Repeat(",5", longest) + "\r\n\r\n", isLost, 0, false},
	{"long extension", chunked + "5;" + long + "\r\nhello\r\n0\r\n\r\n", atBoundary, 1, false},
	{"long size", chunked + strings.Repeat("0", longest) + "5\r\nhello\r\n0\r\n\r\n", isLost, 1, false}, // net/http takes no more than 16 digits
	{"long size with an extension", chunked + strings.Repeat("0", longest) + "5;a\r\nhello\r\n0\r\n\r\n", isLost, 1, false},
	{"long trailer", chunked + "0\r\nA: " + long + "\r\n\r\n", atBoundary, 1, false},
	{"line that does not end", "GET /" + long, between, 0, true},
}

// Where a stream is cut makes no difference.
func TestRequests(t *testing.T) {
	for _, tt := range streams {
		t.Run(tt.name, func(t *testing.T) {
			step := 1 + len(tt.stream)/1000
			for at := 0; at <= len(tt.stream); at += step {
				var r Requests
				r.Feed([]byte(tt.stream[:at]))
				r.Feed([]byte(tt.stream[at:]))
				if problem := check(&r, tt.want, tt.begun, tt.more); problem != "" {
					t.Fatalf("cut at %d: %s", at, problem)
				}
			}
			var r Requests
			buf := make([]byte, 1) // as a server does, which uses it again
			for i := range len(tt.stream) {
				buf[0] = tt.stream[i]
				r.Feed(buf)
			}
			r.Feed(nil)
			if problem := check(&r, tt.want, tt.begun, tt.more); problem != "" {
				t.Fatalf("byte by byte: %s", problem)
			}
		})
	}
}

func check(r *Requests, want want, begun int, more bool) (problem string) {
	if got := r.Boundary(); got != (want == atBoundary) {
		return fmt.Sprintf("Boundary is %t", got)
	}
	if got := r.Lost(); got != (want == isLost) {
		return fmt.Sprintf("Lost is %t", got)
	}
	if got, gotMore := r.Begun(); got != begun || gotMore != more {
		return fmt.Sprintf("Begun is %d, %t, want %d, %t", got, gotMore, begun, more)
	}
	return ""
}

// Nothing that follows makes up for what was not understood.
func TestLostForGood(t *testing.T) {
	for _, tt := range streams {
		if tt.want != isLost {
			continue
		}
		var r Requests
		r.Feed([]byte(tt.stream))
		r.Feed([]byte("\r\n\r\n" + get + get))
		if !r.Lost() || r.Boundary() {
			t.Errorf("%s: Lost is %t, Boundary is %t", tt.name, r.Lost(), r.Boundary())
		}
	}
}

// Feed keeps nothing of what it is given, which the server writes over.
func TestFeedKeepsNothing(t *testing.T) {
	var r Requests
	buf := []byte("POST / HTTP/1.1\r\nContent-Le")
	r.Feed(buf)
	clear(buf)
	r.Feed([]byte("ngth: 3\r\n\r\nab"))
	if r.Boundary() || r.Lost() {
		t.Error("the length is forgotten")
	}
	r.Feed([]byte("c"))
	if !r.Boundary() {
		t.Error("the body does not end")
	}
}

// However a stream comes. So a client that sends no line end does not fill the memory.
func TestFeedAllocatesNothing(t *testing.T) {
	for _, tt := range streams {
		if tt.want == isLost { // which makes an error, once
			continue
		}
		stream := []byte(tt.stream)
		for _, size := range []int{len(stream), 1000, 1} {
			n := testing.AllocsPerRun(10, func() {
				var r Requests
				for p := stream; len(p) > 0; {
					n := min(size, len(p))
					r.Feed(p[:n])
					p = p[n:]
				}
			})
			if n != 0 {
				t.Errorf("%s, in pieces of %d: %v allocations", tt.name, size, n)
			}
		}
	}
}

// errMore is what net/http reads where it would have to wait.
var errMore = errors.New("the stream has ended")

// source is a stream whose end is no end of file, and which knows whether it was
// reached.
type source struct {
	stream []byte
	piece  int // read at once
	at     int
	waited bool
}

func (s *source) Read(p []byte) (int, error) {
	if s.at == len(s.stream) {
		s.waited = true
		return 0, errMore
	}
	n := copy(p[:min(len(p), s.piece)], s.stream[s.at:])
	s.at += n
	return n, nil
}

// read reads requests as net/http does. It returns where each of them ends, and
// whether one after them is refused, by all that is there.
func read(stream []byte, piece int) (ends []int, refused error) {
	src := &source{stream: stream, piece: piece}
	r := bufio.NewReader(src)
	for {
		req, err := http.ReadRequest(r)
		if err == nil {
			_, err = io.Copy(io.Discard, req.Body)
		}
		switch {
		case err == nil:
			ends = append(ends, src.at-r.Buffered())
		case src.waited:
			return ends, nil
		default:
			return ends, err
		}
	}
}

// agree compares Requests with net/http. All that it says about where requests end
// must be so, at every byte until net/http has refused a request: the server then
// answers that and closes the connection. It may lose track at any time.
func agree(t *testing.T, stream []byte, piece int) {
	t.Helper()
	ends, refused := read(stream, piece)
	begun := func(at int) int { // requests that end there or before
		n, found := slices.BinarySearch(ends, at)
		if found {
			n++
		}
		return n
	}
	last := 0 // where net/http begins a request that does not end
	if len(ends) > 0 {
		last = ends[len(ends)-1]
	}
	var r Requests
	for i := range stream {
		r.Feed(stream[i : i+1])
		at := i + 1
		_, isEnd := slices.BinarySearch(ends, at)
		n, more := r.Begun()
		switch {
		case r.Lost():
			return
		case r.Boundary() && more:
			t.Fatalf("%q: at the end of a request, and in the next one", stream[:at])
		case isEnd && !r.Boundary():
			t.Fatalf("%q: net/http is at the end of a request", stream[:at])
		case r.Boundary() && n != begun(at) && at <= last:
			t.Fatalf("%q: %d requests, net/http has read %d", stream[:at], n, begun(at))
		case r.Boundary() && !isEnd && at < last:
			t.Fatalf("%q: net/http is in the middle of a request", stream[:at])
		case r.Boundary() && !isEnd:
			// Then it must have been refused by what has come so far.
			if refused == nil {
				t.Fatalf("%q: net/http waits for more", stream[:at])
			}
			if _, refused := read(stream[:at], piece); refused == nil {
				t.Fatalf("%q: net/http waits for more, and then says %v", stream[:at], refused)
			}
			return
		}
	}
	// The pieces make no difference.
	var whole Requests
	for p := stream; len(p) > 0; {
		n := min(piece, len(p))
		whole.Feed(p[:n])
		p = p[n:]
	}
	if whole.Boundary() != r.Boundary() || whole.Lost() != r.Lost() {
		t.Fatalf("%q in pieces of %d: Boundary is %t, Lost is %t, want %t, %t", stream, piece, whole.Boundary(), whole.Lost(), r.Boundary(), r.Lost())
	}
}

func TestAgreesWithReadRequest(t *testing.T) {
	for _, tt := range streams {
		t.Run(tt.name, func(t *testing.T) {
			agree(t, []byte(tt.stream), 1)
			agree(t, []byte(tt.stream+get), 4096)
			agree(t, []byte(get+tt.stream+get+get), 7)
		})
	}
}

// parts are what the fuzzer makes streams of.
var parts = []string{
	get, post, chunked, "\r\n", "\n", "\r", "\r\n\r\n", " ", "\t", ":", ";", ",", "\x00", "\v", "+", "-", "_", "0x",
	"GET / HTTP/1.1\r\n", "POST / HTTP/1.1\r\n", "PUT ", "/ ", "http://x/ ", "HTTP/1.1\r\n", "HTTP/1.1", "HTTP/1.0\r\n", "http/1.1\r\n",
	"Host: x\r\n", "X: ", "x\r\n", "Content-Length: ", "Content-Length", "content-length:", "Content-Length: 5\r\n", "Content-Length : 5\r\n",
	"Transfer-Encoding: chunked\r\n", "Transfer-Encoding: ", "transfer-encoding", "chunked", "CHUNKED\r\n", "gzip, ", "identity\r\n",
	"0", "1", "5", "a", "1c", "0\r\n", "0\r\n\r\n", "5\r\n", "5\r\nhello\r\n", "1c\r\n", "hello", ";a=b", "Trailer: X\r\n", "X: y\r\n",
	"Connection: close\r\n", "Expect: 100-continue\r\n", "99999999999999999999", "7fffffffffffffff", "\u212a", "\u017f",
	" 3456789012345: x\r\n", " 3456789012345678: x\r\n", "\r\r\n", "CONNECT ", "PRI * ",
	long[:longest-20], strings.Repeat("0", longest), strings.Repeat(" ", longest-len("Content-Length: \r\n")),
}

// FuzzRequests compares with net/http. The stream is made of bytes of its own, or
// of parts that each byte stands for.
func FuzzRequests(f *testing.F) {
	for _, tt := range streams {
		if len(tt.stream) < 1000 {
			f.Add([]byte(tt.stream), byte(0), false)
			f.Add([]byte(get+tt.stream+get), byte(3), false)
		}
	}
	for i := range parts {
		f.Add([]byte{1, byte(i), 3, 0}, byte(1), true) // in a header
		f.Add([]byte{2, byte(i), 48, 0}, byte(1), true)
		f.Add([]byte{1, 33, byte(i), 3, 52, 0}, byte(200), true)
	}
	f.Fuzz(func(t *testing.T, stream []byte, piece byte, parted bool) {
		if parted {
			var s []byte
			for _, b := range stream {
				if int(b) < len(parts) {
					s = append(s, parts[b]...)
				} else {
					s = append(s, b)
				}
			}
			stream = s
		}
		agree(t, stream, int(piece)+1)
	})
}

// What the server knows of a stream is that many requests, and no byte more: the
// next request arrives as it was sent. Or it refuses one, and closes.
func TestAgreesWithServer(t *testing.T) {
	// net/http answers or refuses these without the handler.
	special := map[string]int{
		"asterisk":                  http.StatusOK,
		"no header":                 http.StatusBadRequest, // no Host
		"space before the colon":    http.StatusBadRequest,
		"space before an extension": 0, // in the body
	}
	served := make(chan string, 100)
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	server := &http.Server{Handler: http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) {
		body, err := io.ReadAll(r.Body)
		if err != nil {
			panic(http.ErrAbortHandler)
		}
		served <- fmt.Sprintf("%s %s %q", r.Method, r.URL.Path, body)
	})}
	defer server.Close()
	go server.Serve(l)
	for _, tt := range streams {
		if tt.want != atBoundary {
			continue
		}
		t.Run(tt.name, func(t *testing.T) {
			c, err := net.Dial("tcp", l.Addr().String())
			if err != nil {
				t.Fatal(err)
			}
			defer c.Close()
			_ = c.SetDeadline(time.Now().Add(30 * time.Second))
			answers := bufio.NewReader(c)
			answer := func() int {
				resp, err := http.ReadResponse(answers, nil)
				if err != nil {
					return 0
				}
				_, _ = io.Copy(io.Discard, resp.Body)
				return resp.StatusCode
			}
			if _, err := io.WriteString(c, tt.stream); err != nil {
				t.Fatal(err)
			}
			want, isSpecial := special[tt.name]
			if !isSpecial {
				want = http.StatusOK
			}
			for i := range tt.begun {
				if code := answer(); code != want {
					t.Fatalf("answer %d is %d, want %d", i, code, want)
				}
				if !isSpecial {
					<-served
				}
			}
			if want != http.StatusOK {
				if _, err := answers.ReadByte(); err != io.EOF {
					t.Errorf("after a refusal: %v, want end of file", err)
				}
				return
			}
			if _, err := io.WriteString(c, "PUT /probe HTTP/1.1\r\nHost: x\r\nContent-Length: 4\r\n\r\nbody"); err != nil {
				t.Fatal(err)
			}
			if code := answer(); code != http.StatusOK {
				t.Fatalf("the probe is answered with %d", code)
			}
			if got := <-served; got != `PUT /probe "body"` || len(served) != 0 {
				t.Errorf("served %s and %d more, want the probe", got, len(served))
			}
		})
	}
}
