package grace_test

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"time"

	"github.com/facebookgo/grace"
	"github.com/facebookgo/grace/gracenet"
)

// greeter is a grace.Service: it greets whoever connects.
type greeter struct {
	tcp      *net.TCPListener // can be woken by a deadline
	listener grace.Listener   // the same; its Close waits for the connections
	stopped  chan struct{}    // closed when the accept loop has ended
}

// Start says that this process serves, too, since there is nothing more to wait
// for.
func (g *greeter) Start() {
	g.accept()
	if err := grace.CloseParent(); err != nil {
		fmt.Println(err)
	}
}

func (g *greeter) accept() {
	g.stopped = make(chan struct{})
	go func() {
		defer close(g.stopped)
		for {
			c, err := g.listener.Accept()
			if err != nil {
				if !errors.Is(err, os.ErrDeadlineExceeded) && !errors.Is(err, grace.ErrAlreadyClosed) {
					fmt.Println(err)
				}
				return
			}
			go func() {
				defer c.Close()
				fmt.Fprint(c, "hello")
			}()
		}
	}()
}

// Pause leaves the listener open: connections wait in the kernel.
func (g *greeter) Pause(ctx context.Context) {
	_ = g.tcp.SetDeadline(time.Unix(1, 0))
	select {
	case <-g.stopped:
	case <-ctx.Done():
	}
}

func (g *greeter) Resume() {
	<-g.stopped
	_ = g.tcp.SetDeadline(time.Time{})
	g.accept()
}

func (g *greeter) Drain() error {
	err := g.listener.Close()
	<-g.stopped
	return err
}

// A server that takes part in restarts as a Service. Here its context ends, so
// that the example does; a service that signals have stopped is drained as well,
// and Run returns what Drain returns.
func ExampleProcess_Run() {
	var n gracenet.Net
	l, err := n.ListenTCP("tcp", &net.TCPAddr{IP: net.IPv4(127, 0, 0, 1)})
	if err != nil {
		fmt.Println(err)
		return
	}

	ctx, stop := context.WithCancelCause(context.Background())
	go func() {
		defer stop(errors.New("seen enough"))
		c, err := net.Dial("tcp", l.Addr().String())
		if err != nil {
			fmt.Println(err)
			return
		}
		defer c.Close()
		greeting, _ := io.ReadAll(c)
		fmt.Printf("%s\n", greeting)
	}()

	p := grace.Process{Standby: 10 * time.Second}
	fmt.Println(p.Run(ctx, &greeter{tcp: l, listener: grace.NewListener(l)}))
	// Output:
	// hello
	// seen enough
}
