package control

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"sync"
	"time"
)

const (
	// maxClients is how many are answered at once.
	maxClients = 16
	// requestTimeout is how long a client may take to send its request, and
	// answerTimeout how long to read the answer.
	requestTimeout = 5 * time.Second
	answerTimeout  = 5 * time.Second
)

// A Server answers on a socket.
type Server struct {
	answer func(Request) Answer

	mu      sync.Mutex
	socket  *Socket
	closed  bool
	clients map[net.Conn]bool // whether its request has come
	held    []net.Conn        // to tell that this process is gone; never closed
	running sync.WaitGroup
}

// Serve begins to answer what comes in on s. answer is called from many
// goroutines at once, and may take its time.
func Serve(s *Socket, answer func(Request) Answer) *Server {
	srv := &Server{socket: s, answer: answer, clients: make(map[net.Conn]bool)}
	srv.mu.Lock()
	defer srv.mu.Unlock()
	srv.listen()
	return srv
}

// Restore puts a new socket at the path if that does not lead here any more: one of
// the processes family had taken it.
func (s *Server) Restore(family ...int) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.closed || s.socket.owns() {
		return nil
	}
	socket, err := Listen(s.socket.path, family...)
	if err != nil {
		return err
	}
	s.socket.close()
	s.socket = socket
	s.listen()
	return nil
}

// Close removes the path if it still leads here, and returns when all requests
// that have come are answered. Clients of stop stay connected: they wait for the
// end of the process that holds the connections.
func (s *Server) Close() (held []net.Conn) {
	s.mu.Lock()
	s.socket.close()
	s.closed = true
	for c, asked := range s.clients {
		if !asked {
			_ = c.Close()
		}
	}
	s.mu.Unlock()
	s.running.Wait()
	return s.held
}

// listen answers what comes in on the socket. mu is held.
func (s *Server) listen() {
	l := s.socket.listener
	s.running.Add(1)
	go func() {
		defer s.running.Done()
		s.accept(l)
	}()
}

func (s *Server) accept(l *net.UnixListener) {
	for {
		c, err := l.AcceptUnix()
		if errors.Is(err, net.ErrClosed) {
			return
		}
		if err != nil {
			time.Sleep(50 * time.Millisecond) // too many open files
			continue
		}
		s.mu.Lock()
		full := len(s.clients) >= maxClients || s.closed
		if !full {
			s.clients[c] = false
			s.running.Add(1)
		}
		s.mu.Unlock()
		if full {
			send(c, Answer{Code: Busy, Error: "too many clients at once"})
			_ = c.Close()
			continue
		}
		go func() {
			defer s.running.Done()
			a, hold := s.serve(c)
			// Who has the answer does not count any more, and may ask again.
			s.mu.Lock()
			delete(s.clients, c)
			if hold {
				s.held = append(s.held, c)
			}
			s.mu.Unlock()
			send(c, a)
			if !hold {
				_ = c.Close()
			}
		}()
	}
}

// serve returns what to tell one client, and whether it shall stay connected.
func (s *Server) serve(c *net.UnixConn) (a Answer, hold bool) {
	if err := mayAsk(c); err != nil {
		return Answer{Code: Denied, Error: err.Error()}, false
	}
	_ = c.SetReadDeadline(time.Now().Add(requestTimeout))
	r, err := readRequest(c)
	if err != nil {
		return Answer{Code: BadRequest, Error: err.Error()}, false
	}
	s.mu.Lock()
	s.clients[c] = true
	closed := s.closed
	s.mu.Unlock()
	if closed {
		return Answer{Code: NotServing, Error: "the process is about to end"}, false
	}
	a = s.answer(r)
	return a, r.Command == Stop && a.Code == ""
}

// readRequest reads the one line that a client sends.
func readRequest(c io.Reader) (Request, error) {
	lines := bufio.NewReaderSize(c, maxRequest)
	line, err := lines.ReadSlice('\n')
	switch {
	case errors.Is(err, bufio.ErrBufferFull):
		return Request{}, fmt.Errorf("request is longer than %d bytes", maxRequest)
	case errors.Is(err, io.EOF):
		return Request{}, errors.New("request without the end of a line")
	case errors.Is(err, os.ErrDeadlineExceeded):
		return Request{}, fmt.Errorf("no request within %v", requestTimeout)
	case err != nil:
		return Request{}, err
	case lines.Buffered() != 0:
		return Request{}, errors.New("more than one line")
	}
	return parseRequest(line)
}

// send writes an answer. A client that does not want it has itself to blame.
func send(c net.Conn, a Answer) {
	a.Version, a.PID = version, os.Getpid()
	b, err := json.Marshal(a)
	if err != nil {
		return
	}
	_ = c.SetWriteDeadline(time.Now().Add(answerTimeout))
	_, _ = c.Write(append(b, '\n'))
}

// Ask sends a request to the socket at path and returns the answer. The
// connection is the caller's to close. It returns when ctx ends, too.
func Ask(ctx context.Context, path string, r Request) (Answer, net.Conn, error) {
	var d net.Dialer
	c, err := d.DialContext(ctx, "unix", path)
	if err != nil {
		if ctx.Err() != nil {
			err = context.Cause(ctx)
		}
		return Answer{}, nil, err
	}
	stop := context.AfterFunc(ctx, func() { _ = c.SetDeadline(time.Unix(1, 0)) })
	defer stop()
	a, err := ask(c, r)
	if err != nil {
		_ = c.Close()
		if ctx.Err() != nil {
			err = context.Cause(ctx)
		}
		return Answer{}, nil, err
	}
	return a, c, nil
}

func ask(c net.Conn, r Request) (Answer, error) {
	r.Version = version
	b, err := json.Marshal(r)
	if err != nil {
		return Answer{}, err
	}
	// One that is refused may be told so before it has asked.
	_, writeErr := c.Write(append(b, '\n'))
	line, err := bufio.NewReader(c).ReadBytes('\n')
	if err != nil {
		if errors.Is(err, io.EOF) {
			err = errors.New("the process has gone without an answer")
		}
		return Answer{}, errors.Join(writeErr, err)
	}
	var a Answer
	if err := json.Unmarshal(line, &a); err != nil {
		return Answer{}, fmt.Errorf("not an answer of this protocol: %w", err)
	}
	return a, nil
}
