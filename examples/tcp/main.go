// Command tcp answers each line with a line, and is restarted without one that gets no
// answer. It shows how a protocol of one's own ends its connections: the server says
// "bye" when it drains, and goes on answering until the client, which sends nothing new
// after that, closes the connection.
//
//	go build -o app ./tcp        # in examples/
//	./app &                      # logs its pid
//	nc 127.0.0.1 8090            # and type
//	kill -USR2 PID               # nc is told; the next one meets the new process
package main

import (
	"bufio"
	"context"
	"errors"
	"flag"
	"fmt"
	"log/slog"
	"net"
	"os"
	"time"

	"github.com/facebookgo/grace"
	"github.com/facebookgo/grace/gracenet"
)

func main() {
	addr := flag.String("addr", "127.0.0.1:8090", "address to listen on")
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
	listener := grace.NewListener(socket.(grace.Listener))
	go accept(listener)
	p := grace.Process{
		Standby: standby,
		// Clients that know the goodbye are gone after a round trip; this is for the others.
		IdleGrace:   10 * time.Second,
		TermTimeout: time.Minute,
		Logger:      slog.Default(),
	}
	if err := p.CloseParent(); err != nil {
		return err
	}
	slog.Info("serving", "pid", os.Getpid(), "addr", listener.Addr())
	return p.Wait([]grace.Listener{listener}) // until the last connection is closed
}

func accept(l net.Listener) {
	for {
		c, err := l.Accept()
		if errors.Is(err, grace.ErrAlreadyClosed) {
			return
		}
		if err != nil {
			slog.Warn("accept", "error", err)
			time.Sleep(10 * time.Millisecond) // there are too many open files, perhaps
			continue
		}
		go answer(c.(grace.Conn))
	}
}

// answer answers until the client closes the connection. What it fails to write it will
// fail to read, too.
func answer(c grace.Conn) {
	defer c.Close()
	defer context.AfterFunc(c.Context(), func() { fmt.Fprintln(c, "bye") })()
	for r := bufio.NewReader(c); ; {
		// From here on the connection may be closed, unless there is another line already.
		// The first byte of the next one ends that.
		c.SetIdle(r.Buffered() == 0)
		line, err := r.ReadString('\n')
		if err != nil {
			return
		}
		fmt.Fprintf(c, "%d %s", os.Getpid(), line)
	}
}
