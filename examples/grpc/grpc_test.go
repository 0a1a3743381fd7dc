//go:build unix

package main

import (
	"context"
	"errors"
	"io"
	"os/exec"
	"sync/atomic"
	"testing"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"
	pb "google.golang.org/grpc/interop/grpc_testing"

	"github.com/facebookgo/grace/gracetest"
)

// dial makes a client that sends no call twice, but for those that the server has said
// with GOAWAY that it has not looked at.
func dial(addr string) (*grpc.ClientConn, error) {
	return grpc.NewClient("passthrough:///"+addr, grpc.WithTransportCredentials(insecure.NewCredentials()), grpc.WithDisableRetry())
}

func call(c *grpc.ClientConn) (string, error) {
	ctx, cancel := context.WithTimeout(context.Background(), gracetest.Patience)
	defer cancel()
	resp, err := pb.NewTestServiceClient(c).UnaryCall(ctx, &pb.SimpleRequest{})
	return resp.GetServerId(), err
}

// callOnce is call on a connection of its own.
func callOnce(addr string) func() (string, error) {
	return func() (string, error) {
		c, err := dial(addr)
		if err != nil {
			return "", err
		}
		defer c.Close()
		return call(c)
	}
}

// streams is a client that receives from one stream until it ends, and from another one
// after that.
type streams struct {
	pb.TestServiceClient
	ended  *atomic.Int64 // how often a server has ended one
	stream grpc.ServerStreamingClient[pb.StreamingOutputCallResponse]
	cancel context.CancelFunc
	opened time.Time
	nth    int
}

func (s *streams) String() string { return "a client that receives from streams" }

func (s *streams) Close() error {
	if s.stream != nil {
		s.cancel()
		s.stream = nil
	}
	return nil
}

func (s *streams) Do() (gracetest.Exchange, error) {
	if s.stream == nil {
		s.opened, s.nth = time.Now(), 0
		ctx, cancel := context.WithCancel(context.Background())
		stream, err := s.StreamingOutputCall(ctx, &pb.StreamingOutputCallRequest{})
		if err != nil {
			cancel()
			return gracetest.Exchange{Opened: s.opened, Nth: 1}, err
		}
		s.stream, s.cancel = stream, cancel
	}
	s.nth++
	x := gracetest.Exchange{Opened: s.opened, Nth: s.nth}
	message, err := s.stream.Recv()
	x.Answer = string(message.GetPayload().GetBody())
	if err == nil && x.Answer == "bye" {
		if _, err = s.stream.Recv(); errors.Is(err, io.EOF) {
			err = nil
			s.ended.Add(1)
		}
		_ = s.Close()
	}
	if err != nil {
		_ = s.Close()
	}
	return x, err
}

func start(t *testing.T) (s *gracetest.Service, addr string, c *grpc.ClientConn) {
	t.Helper()
	addr = gracetest.FreeAddr(t)
	s = gracetest.Start(t, exec.Command(gracetest.Build(t, "."), "-addr", addr, "-standby", "200ms"))
	s.WaitAnswer(gracetest.Func("a call", callOnce(addr)))
	c, err := dial(addr)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = c.Close() })
	return s, addr, c
}

// No call fails.
func TestRestarts(t *testing.T) {
	s, addr, c := start(t)
	var clients []gracetest.Client
	for range 3 {
		clients = append(clients,
			gracetest.Func("calls on a shared connection", func() (string, error) { return call(c) }),
			gracetest.Func("calls on fresh connections", callOnce(addr)))
	}
	t.Log(s.Prove(gracetest.Plan{Clients: clients, Restarts: 5, Standby: 200 * time.Millisecond}))
	_ = c.Close()
	s.Stop()
}

// Streams are told, come to a clean end, and begin again with the new process.
func TestStreams(t *testing.T) {
	s, _, c := start(t)
	var ended atomic.Int64
	var clients []gracetest.Client
	for range 3 {
		clients = append(clients, &streams{TestServiceClient: pb.NewTestServiceClient(c), ended: &ended})
	}
	load := gracetest.NewLoad(t, clients...)
	for range 3 {
		load.WaitPID(s.PID())
		before := ended.Load()
		s.Restart()
		gracetest.Poll(t, "a stream to be told", func() bool { return ended.Load() > before })
	}
	load.WaitPID(s.PID())
	t.Log(load.Stop())
	_ = c.Close()
	s.Stop()
}
