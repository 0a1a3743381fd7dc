// Package framing follows a stream of HTTP/1.1 requests and knows where they end.
package framing

import (
	"bytes"
	"strconv"
)

// Requests follows the bytes that a server has read from a connection, as RFC
// 9112 divides them into requests. The zero value is at the start of one.
//
// It understands less than net/http does, and knows it: what it is not certain
// about makes it lose track for good. Nothing that it does is visible to the
// server, and it allocates nothing.
type Requests struct {
	state   state
	remain  uint64 // bytes of the body, or of the chunk
	length  int64  // Content-Length of the header; -1 if it has none
	chunked bool
	begun   int           // headers that were complete
	size    int           // of a line whose end has not come yet
	line    [longest]byte // that line, without its middle if it is longer
}

type state uint8

const (
	requestLine state = iota
	header
	body
	chunkSize
	chunk
	chunkEnd // the line end after a chunk
	trailer
	lost
)

// Of a longer line, such as that of a cookie, head bytes of its beginning are looked at
// and as many of its end. A server reads lines in pieces often: its buffer is full, or it
// has looked for the next request before the answer was out, and has got a byte.
const (
	longest = 2 * head
	head    = 64
)

// Feed follows p, the next bytes.
func (r *Requests) Feed(p []byte) {
	for len(p) > 0 {
		switch r.state {
		case lost:
			return
		case body, chunk:
			n := min(r.remain, uint64(len(p)))
			p = p[n:]
			if r.remain -= n; r.remain > 0 {
				return
			}
			if r.state == chunk {
				r.state = chunkEnd
			} else {
				r.state = requestLine
			}
		default:
			end := bytes.IndexByte(p, '\n')
			if end < 0 {
				r.keep(p)
				return
			}
			line := p[:end+1]
			p = p[end+1:]
			long := r.size+len(line) > longest
			if r.size > 0 {
				r.keep(line)
				line = r.line[:min(r.size, longest)]
				r.size = 0
			}
			text := len(line) - len("\r\n")
			if text < 0 || line[text] != '\r' {
				r.lose()
				return
			}
			r.next(line[:text], long)
		}
	}
}

// keep adds p to the line.
func (r *Requests) keep(p []byte) {
	n := copy(r.line[min(r.size, longest):], p)
	r.size += len(p)
	if p = p[n:]; len(p) == 0 {
		return
	}
	end := r.line[head:]
	p = p[max(0, len(p)-len(end)):]
	copy(end, end[len(p):])
	copy(end[len(end)-len(p):], p)
}

// next takes one line, without its end. The middle of a long one may be missing.
func (r *Requests) next(line []byte, long bool) {
	start := line
	if long {
		start = line[:head]
	}
	switch r.state {
	case requestLine:
		r.length, r.chunked, r.state = -1, false, header
		// What begins with CONNECT is a tunnel, and with PRI it is HTTP/2.
		if !bytes.HasSuffix(line, []byte(" HTTP/1.1")) || bytes.HasPrefix(line, []byte("CONNECT ")) || bytes.HasPrefix(line, []byte("PRI ")) {
			r.lose()
		}
	case header:
		if len(line) == 0 {
			r.endHeader()
		} else if !r.field(start, long) {
			r.lose()
		}
	case chunkSize:
		size, _, extended := bytes.Cut(start, []byte(";"))
		n, err := strconv.ParseUint(string(bytes.TrimRight(size, " \t")), 16, 64)
		switch {
		case err != nil || long && !extended:
			r.lose()
		case n == 0:
			r.state = trailer
		default:
			r.remain, r.state = n, chunk
		}
	case chunkEnd:
		if r.state = chunkSize; len(line) != 0 {
			r.lose()
		}
	case trailer:
		if len(line) == 0 {
			r.state = requestLine
		}
	}
}

// field takes a line of the header, or the start of a long one, and reports whether it
// is understood.
func (r *Requests) field(line []byte, long bool) bool {
	if line[0] == ' ' || line[0] == '\t' { // the line before goes on
		return false
	}
	colon := bytes.IndexByte(line, ':')
	switch colon {
	case len("content-length"):
		if !bytes.EqualFold(line[:colon], []byte("content-length")) {
			return true
		}
		n, err := strconv.ParseUint(string(bytes.Trim(line[colon+1:], " \t")), 10, 63)
		if err != nil || long || r.length >= 0 || r.chunked {
			return false
		}
		r.length = int64(n)
	case len("transfer-encoding"):
		if !bytes.EqualFold(line[:colon], []byte("transfer-encoding")) {
			return true
		}
		coding := bytes.Trim(line[colon+1:], " \t")
		// Letters of other alphabets that fold to these are longer.
		if long || len(coding) != len("chunked") || !bytes.EqualFold(coding, []byte("chunked")) || r.length >= 0 || r.chunked {
			return false
		}
		r.chunked = true
	case -1, 0:
		return false
	}
	return true
}

func (r *Requests) endHeader() {
	r.begun++
	switch {
	case r.chunked:
		r.state = chunkSize
	case r.length > 0:
		r.remain, r.state = uint64(r.length), body
	default:
		r.state = requestLine
	}
}

func (r *Requests) lose() {
	r.state = lost
	r.size = 0
}

// Boundary reports whether every byte so far belongs to a request that is
// complete.
func (r *Requests) Boundary() bool { return r.state == requestLine && r.size == 0 }

// Lost reports whether it is not known any more where requests end.
func (r *Requests) Lost() bool { return r.state == lost }

// Begun is how many requests have sent their header, and whether a further one
// has begun to.
func (r *Requests) Begun() (headers int, more bool) {
	return r.begun, r.state == header || r.state == requestLine && r.size > 0
}
