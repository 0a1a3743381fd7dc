//go:build unix

package clients_test

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"os"
	"strconv"
	"sync/atomic"
	"testing"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials"
	insecurecreds "google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/health"
	healthpb "google.golang.org/grpc/health/grpc_health_v1"
	"google.golang.org/grpc/stats"
	"google.golang.org/protobuf/types/known/emptypb"
	"google.golang.org/protobuf/types/known/wrapperspb"

	"github.com/facebookgo/grace/gracehttp"
	"github.com/facebookgo/grace/internal/testbin"
)

// grpcServer has the health service, and one made by hand so that nothing needs to
// be generated.
func grpcServer() *grpc.Server {
	s := grpc.NewServer()
	healthpb.RegisterHealthServer(s, health.NewServer())
	s.RegisterService(&grpc.ServiceDesc{
		ServiceName: "clients.Test",
		HandlerType: (*any)(nil),
		Methods:     []grpc.MethodDesc{{MethodName: "PID", Handler: rpcPID}},
		Streams: []grpc.StreamDesc{
			{StreamName: "Chat", Handler: rpcChat, ServerStreams: true, ClientStreams: true},
			{StreamName: "Feed", Handler: rpcFeed, ServerStreams: true},
		},
	}, struct{}{})
	return s
}

// rpcPID returns the pid.
func rpcPID(_ any, _ context.Context, decode func(any) error, _ grpc.UnaryServerInterceptor) (any, error) {
	if err := decode(new(emptypb.Empty)); err != nil {
		return nil, err
	}
	return wrapperspb.String(strconv.Itoa(os.Getpid())), nil
}

// rpcChat answers each message with the pid and the message, until the client ends
// it. When it is told to drain it says so, once.
func rpcChat(_ any, stream grpc.ServerStream) error {
	messages := make(chan string)
	end := make(chan error, 1)
	go func() {
		for {
			message := new(wrapperspb.StringValue)
			if err := stream.RecvMsg(message); err != nil {
				end <- err
				return
			}
			select {
			case messages <- message.Value:
			case <-stream.Context().Done():
			}
		}
	}()
	draining := gracehttp.Draining(stream.Context())
	for {
		answer := ""
		select {
		case <-draining:
			draining = nil
			answer = "draining"
		case message := <-messages:
			answer = fmt.Sprintf("%d %s", os.Getpid(), message)
		case err := <-end:
			if err == io.EOF {
				err = nil
			}
			return err
		}
		if err := stream.SendMsg(wrapperspb.String(answer)); err != nil {
			return err
		}
	}
}

// rpcFeed sends numbers until it is told to drain, and "end" then.
func rpcFeed(_ any, stream grpc.ServerStream) error {
	if err := stream.RecvMsg(new(emptypb.Empty)); err != nil {
		return err
	}
	tick := time.NewTicker(time.Millisecond)
	defer tick.Stop()
	for n := 0; ; n++ {
		select {
		case <-gracehttp.Draining(stream.Context()):
			return stream.SendMsg(wrapperspb.String("end"))
		case <-stream.Context().Done():
			return stream.Context().Err()
		case <-tick.C:
		}
		if err := stream.SendMsg(wrapperspb.String(strconv.Itoa(n))); err != nil {
			return err
		}
	}
}

// attempts counts the calls that the client has sent twice on its own. It does so
// only if the server has said with GOAWAY that it has not looked at the call, so
// these are no failures.
type attempts struct {
	again atomic.Int64
}

func (*attempts) TagRPC(ctx context.Context, _ *stats.RPCTagInfo) context.Context   { return ctx }
func (*attempts) TagConn(ctx context.Context, _ *stats.ConnTagInfo) context.Context { return ctx }
func (*attempts) HandleConn(context.Context, stats.ConnStats)                       {}
func (a *attempts) HandleRPC(_ context.Context, s stats.RPCStats) {
	if begin, ok := s.(*stats.Begin); ok && begin.IsTransparentRetryAttempt {
		a.again.Add(1)
	}
}

// dialGRPC makes a client for an address of a service. It does not retry.
func dialGRPC(addrs []string, i int, a *attempts) (*grpc.ClientConn, error) {
	creds := insecurecreds.NewCredentials()
	if listens[i].TLS {
		creds = credentials.NewTLS(&tls.Config{InsecureSkipVerify: true})
	}
	return grpc.NewClient("passthrough:///"+addrs[i], grpc.WithTransportCredentials(creds),
		grpc.WithDisableRetry(), grpc.WithStatsHandler(a))
}

// unary is a target that asks for the pid.
func unary(c grpc.ClientConnInterface) testbin.Target {
	return func(string) (string, error) {
		ctx, cancel := context.WithTimeout(context.Background(), patience)
		defer cancel()
		answer := new(wrapperspb.StringValue)
		err := c.Invoke(ctx, "/clients.Test/PID", new(emptypb.Empty), answer)
		return answer.Value, err
	}
}

// once is unary on a fresh connection each time.
func once(addrs []string, i int, a *attempts) testbin.Target {
	return func(string) (string, error) {
		c, err := dialGRPC(addrs, i, a)
		if err != nil {
			return "", err
		}
		defer c.Close()
		return unary(c)("")
	}
}

// healthy asks the health service.
func healthy(c grpc.ClientConnInterface) testbin.Target {
	return func(string) (string, error) {
		ctx, cancel := context.WithTimeout(context.Background(), patience)
		defer cancel()
		answer, err := healthpb.NewHealthClient(c).Check(ctx, new(healthpb.HealthCheckRequest))
		return answer.GetStatus().String(), err
	}
}

// rpcStream is a stream of strings.
type rpcStream struct {
	t *testing.T
	grpc.ClientStream
}

func openStream(t *testing.T, c *grpc.ClientConn, name string) rpcStream {
	t.Helper()
	stream, err := c.NewStream(t.Context(), &grpc.StreamDesc{ServerStreams: true, ClientStreams: true}, "/clients.Test/"+name)
	if err != nil {
		t.Fatal(err)
	}
	return rpcStream{t, stream}
}

func (s rpcStream) receive() string {
	s.t.Helper()
	message := new(wrapperspb.StringValue)
	if err := s.RecvMsg(message); err != nil {
		s.t.Fatalf("receive from a stream: %v", err)
	}
	return message.Value
}

// ask says something, and fails the test unless pid answers.
func (s rpcStream) ask(pid int) {
	s.t.Helper()
	if err := s.SendMsg(wrapperspb.String("hello")); err != nil {
		s.t.Fatalf("send to a stream: %v", err)
	}
	if got, want := s.receive(), fmt.Sprintf("%d hello", pid); got != want {
		s.t.Errorf("answer %q, want %q", got, want)
	}
}

// waitEnd fails the test unless the server ends the stream without an error.
func (s rpcStream) waitEnd() {
	s.t.Helper()
	if err := s.RecvMsg(new(wrapperspb.StringValue)); !errors.Is(err, io.EOF) {
		s.t.Errorf("stream ends with %v, want EOF", err)
	}
}

// No unary call fails, and streams live on in the old process until they end, while
// new calls go to the new one.
func TestGRPC(t *testing.T) {
	cfg := config()
	cfg.Standby = 50 * time.Millisecond
	s := testbin.Start(t, cfg)
	first, addrs := s.Newest()
	var again attempts
	var loads []*testbin.Load
	var clients []*grpc.ClientConn
	for _, i := range []int{h2, h2c} {
		c, err := dialGRPC(addrs, i, &again)
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { _ = c.Close() })
		clients = append(clients, c)
		loads = append(loads,
			testbin.NewLoad(t, unary(c), unary(c), unary(c), healthy(c)), // many at once on one connection
			testbin.NewLoad(t, once(addrs, i, &again)))
	}
	for _, load := range loads {
		load.WaitPID(first)
	}
	for range restarts(3) {
		old, _ := s.Newest()
		var chats, feeds []rpcStream
		for _, c := range clients {
			chat, feed := openStream(t, c, "Chat"), openStream(t, c, "Feed")
			chat.ask(old)
			if err := feed.SendMsg(new(emptypb.Empty)); err != nil {
				t.Fatal(err)
			}
			if err := feed.CloseSend(); err != nil {
				t.Fatal(err)
			}
			if got := feed.receive(); got != "0" {
				t.Errorf("the stream begins with %q, want 0", got)
			}
			chats, feeds = append(chats, chat), append(feeds, feed)
		}
		_, new := s.Restart()
		for _, feed := range feeds { // ends when it is told to
			n := 1
			for got := feed.receive(); got != "end"; got = feed.receive() {
				if got != strconv.Itoa(n) {
					t.Fatalf("the stream goes on with %q, want %d", got, n)
				}
				n++
			}
			feed.waitEnd()
		}
		for _, load := range loads {
			load.WaitPID(new)
		}
		for i, chat := range chats { // ends when the client wants
			if got := chat.receive(); got != "draining" {
				t.Errorf("the stream says %q, want it to know of the drain", got)
			}
			chat.ask(old)
			if pid := testbin.AskPID(t, unary(clients[i])); pid != new {
				t.Errorf("a new call is answered by %d, want %d", pid, new)
			}
			chat.ask(old)
		}
		for _, chat := range chats {
			if err := chat.CloseSend(); err != nil {
				t.Fatal(err)
			}
			chat.waitEnd()
		}
		waitReturned(t, s, old)
	}
	for _, load := range loads {
		load.Stop()
	}
	for _, c := range clients {
		_ = c.Close() // or the drain waits for another call
	}
	t.Logf("%d calls were sent again, since the server had not looked at them", again.again.Load())
	s.Stop()
}
