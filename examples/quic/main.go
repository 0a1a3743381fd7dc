// Command quic is an HTTP/3 server with quic-go that SIGUSR2 restarts without a failed
// request, see README.md. It shows which process gets which packet.
//
// One process reads the socket at a time: the old one until the new one is ready, then
// the new one. What it reads it may have to pass on, which connIDs.mine decides: the
// packets of a connection go to the process that has begun it, which goes on answering
// itself. All the others are for the process that reads: the first packets of a
// connection, and versions that nobody knows.
//
// What stays imperfect:
//
//   - The client chooses the connection ID of its first packets. Those that the old
//     process has read, and that the client sends again before it has heard from it,
//     begin a second connection in the new process. The client goes on with the one that
//     answers first, and the other one is forgotten after the handshake timeout. The same
//     happens if the first packets come in two parts, one for each process: that costs
//     the client a round trip.
//   - A Retry, which this server sends if it has more than 1000 handshakes under way,
//     names the process that sent it. Who comes back to it when that drains is refused.
//   - 0-RTT is off. Its packets go to the new process together with the first ones, but
//     that knows the session only if all generations share the keys of the tickets.
//   - The generation can be read in the connection ID, so that an observer learns which
//     connections are older than a restart. It is one byte: 256 restarts must not happen
//     while one process drains.
//   - quic-go uses neither ECN nor batches of packets on a socket that is no net.UDPConn.
//     It does not learn to which address of this machine a packet came either: listen on
//     one address, not on all of them.
//   - If the new process dies, its connections are reset by the old one.
package main

import (
	"context"
	"crypto/hkdf"
	"crypto/sha256"
	"crypto/tls"
	"errors"
	"flag"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"os"
	"sync"
	"sync/atomic"
	"time"

	"github.com/quic-go/quic-go"
	"github.com/quic-go/quic-go/http3"

	"github.com/facebookgo/grace"
	"github.com/facebookgo/grace/gracenet"
)

func main() {
	addr := flag.String("addr", "127.0.0.1:8443", "UDP address to listen on")
	cert := flag.String("cert", "cert.pem", "file with the certificate")
	key := flag.String("key", "key.pem", "file with its key")
	standby := flag.Duration("standby", grace.DefaultStandby, "how long the old process can take the socket back")
	flag.Parse()
	if err := serve(*addr, *cert, *key, *standby); err != nil {
		slog.Error(err.Error())
		os.Exit(1)
	}
}

func serve(addr, certFile, keyFile string, standby time.Duration) error {
	cert, err := tls.LoadX509KeyPair(certFile, keyFile)
	if err != nil {
		return err
	}
	// All generations know this, and nobody else does.
	secret, err := os.ReadFile(keyFile)
	if err != nil {
		return err
	}
	var n gracenet.Net
	udp, err := net.ResolveUDPAddr("udp", addr)
	if err != nil {
		return err
	}
	socket, err := n.ListenUDP("udp", udp)
	if err != nil {
		return err
	}
	conn := grace.NewPacketConn(socket)
	ids := &connIDs{generation: byte(grace.Generation()), key: derive(secret, "connection IDs")}
	if err := conn.Forward(ids.mine); err != nil {
		return err
	}
	s := newServer(conn, ids, secret)
	listener, err := s.transport.ListenEarly(http3.ConfigureTLSConfig(&tls.Config{Certificates: []tls.Certificate{cert}}), nil)
	if err != nil {
		return err
	}
	go func() {
		if err := s.http.ServeListener(listener); !errors.Is(err, http.ErrServerClosed) {
			slog.Error("HTTP/3", "error", err)
		}
	}()
	go s.drain()
	p := grace.Process{PacketConns: []*grace.PacketConn{conn}, Standby: standby, TermTimeout: time.Minute, Logger: slog.Default()}
	if err := p.CloseParent(); err != nil {
		return err
	}
	slog.Info("serving", "pid", os.Getpid(), "addr", conn.LocalAddr(), "generation", grace.Generation())
	err = p.Wait(nil) // until drain has closed conn
	slog.Info("done", "pid", os.Getpid(), "foreign", ids.foreign.Load())
	return err
}

// derive makes a key of the secret.
func derive(secret []byte, use string) []byte {
	key, err := hkdf.Key(sha256.New, secret, nil, use, 32)
	if err != nil {
		panic(err) // only if it should be too long
	}
	return key
}

// server is the HTTP/3 server, and knows when it has finished.
type server struct {
	conn      *grace.PacketConn
	transport *quic.Transport
	http      *http3.Server

	mu         sync.Mutex
	drains     bool
	handshakes sync.WaitGroup // under way, or not yet known to http
	count      atomic.Int64   // of handshakes
}

func newServer(conn *grace.PacketConn, ids *connIDs, secret []byte) *server {
	s := &server{conn: conn}
	s.transport = &quic.Transport{
		Conn:                  conn,
		ConnectionIDGenerator: ids,
		// So that the new process can reset what the old one has left.
		StatelessResetKey:   (*quic.StatelessResetKey)(derive(secret, "stateless reset")),
		TokenGeneratorKey:   (*quic.TokenGeneratorKey)(derive(secret, "tokens")),
		VerifySourceAddress: func(net.Addr) bool { return s.count.Load() > 1000 },
		ConnContext:         s.begin,
	}
	s.http = &http3.Server{
		Handler: http.HandlerFunc(echo),
		ConnContext: func(ctx context.Context, _ *quic.Conn) context.Context {
			ctx.Value(begunKey{}).(func())()
			return ctx
		},
	}
	return s
}

type begunKey struct{}

var errDraining = errors.New("draining")

// begin is called for the first packet of a connection. When the drain has settled there are
// none, except if no process follows.
func (s *server) begin(ctx context.Context, _ *quic.ClientInfo) (context.Context, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.drains {
		return nil, errDraining
	}
	s.handshakes.Add(1)
	s.count.Add(1)
	begun := sync.OnceFunc(func() {
		s.count.Add(-1)
		s.handshakes.Done()
	})
	context.AfterFunc(ctx, begun) // it has failed
	return context.WithValue(ctx, begunKey{}, begun), nil
}

// settle is how long first packets that were read before the drain may be on their way
// through quic-go. A standby is longer than that, but there may be none.
const settle = 500 * time.Millisecond

// drainTimeout is how long requests may go on.
const drainTimeout = 30 * time.Second

// drain waits for the drain, and finishes what was begun: Close of the listener would
// refuse handshakes that are under way, and Shutdown forget connections that http does
// not know yet.
func (s *server) drain() {
	<-s.conn.Context().Done()
	time.Sleep(settle)
	s.mu.Lock()
	s.drains = true
	s.mu.Unlock()
	s.handshakes.Wait() // they have a timeout of their own
	ctx, cancel := context.WithTimeout(context.Background(), drainTimeout)
	defer cancel()
	if err := s.http.Shutdown(ctx); err != nil { // GOAWAY, on which clients close
		slog.Warn("requests were cut", "error", err)
	}
	_ = s.transport.Close()
	_ = s.conn.Close()
}

// echo sends what it gets, as soon as it comes.
func echo(w http.ResponseWriter, r *http.Request) {
	w.Header().Set("Server-PID", fmt.Sprint(os.Getpid()))
	w.WriteHeader(http.StatusOK)
	flusher := w.(http.Flusher)
	flusher.Flush()
	for b := make([]byte, 32<<10); ; {
		n, err := r.Body.Read(b)
		if _, err := w.Write(b[:n]); err != nil {
			return
		}
		flusher.Flush()
		if err != nil {
			if err != io.EOF {
				slog.Warn("request", "error", err)
			}
			return
		}
	}
}
