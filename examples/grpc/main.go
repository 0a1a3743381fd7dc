// Command grpc is a gRPC server that is restarted without a failed call. Streams are told
// that it drains, and begin again with the new process. The service is one that comes
// with grpc-go, so that nothing need be generated here.
//
//	go build -o app ./grpc        # in examples/
//	./app &                       # logs its pid
//	kill -USR2 PID
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"log/slog"
	"net"
	"os"
	"time"

	"google.golang.org/grpc"
	pb "google.golang.org/grpc/interop/grpc_testing"

	"github.com/facebookgo/grace"
	"github.com/facebookgo/grace/gracenet"
)

func main() {
	addr := flag.String("addr", "127.0.0.1:8091", "address to listen on")
	standby := flag.Duration("standby", grace.DefaultStandby, "how long the old process can take over again")
	flag.Parse()
	if err := serve(*addr, *standby); err != nil {
		slog.Error(err.Error())
		os.Exit(1)
	}
}

func serve(addr string, standby time.Duration) error {
	var n gracenet.Net
	socket, err := n.Listen("tcp", addr)
	if err != nil {
		return err
	}
	listener := grace.NewListener(socket.(grace.Listener)).(grace.Drainer)
	server := grpc.NewServer()
	pb.RegisterTestServiceServer(server, &service{draining: listener.Context().Done()})
	stopped := make(chan struct{})
	go func() {
		defer close(stopped)
		// It returns when the drain has begun and nothing more is accepted.
		if err := server.Serve(accepting{listener}); !errors.Is(err, grace.ErrAlreadyClosed) {
			slog.Error("gRPC", "error", err)
		}
		// GOAWAY, on which clients connect anew. What they have begun is finished.
		server.GracefulStop()
	}()
	p := grace.Process{Standby: standby, TermTimeout: time.Minute, Logger: slog.Default()}
	if err := p.CloseParent(); err != nil {
		return err
	}
	slog.Info("serving", "pid", os.Getpid(), "addr", listener.Addr())
	err = p.Wait([]grace.Listener{listener}) // until the last connection is closed
	<-stopped
	return err
}

// accepting is a listener that Wait closes, not the server: Close waits for connections,
// to which the server could send no GOAWAY meanwhile.
type accepting struct{ net.Listener }

func (accepting) Close() error { return nil }

type service struct {
	pb.UnimplementedTestServiceServer
	draining <-chan struct{}
}

func (s *service) UnaryCall(context.Context, *pb.SimpleRequest) (*pb.SimpleResponse, error) {
	return &pb.SimpleResponse{ServerId: fmt.Sprint(os.Getpid())}, nil
}

// StreamingOutputCall sends something every now and then, and "bye" as the last message
// when the server drains.
func (s *service) StreamingOutputCall(_ *pb.StreamingOutputCallRequest, stream grpc.ServerStreamingServer[pb.StreamingOutputCallResponse]) error {
	tick := time.NewTicker(10 * time.Millisecond)
	defer tick.Stop()
	for {
		if err := stream.Send(message(fmt.Sprint(os.Getpid()))); err != nil {
			return err
		}
		select {
		case <-tick.C:
		case <-s.draining:
			return stream.Send(message("bye"))
		case <-stream.Context().Done():
			return stream.Context().Err()
		}
	}
}

func message(text string) *pb.StreamingOutputCallResponse {
	return &pb.StreamingOutputCallResponse{Payload: &pb.Payload{Body: []byte(text)}}
}
