// Command websocket answers messages on WebSockets, and is restarted without one that
// gets no answer. A drain is told with a close frame: a message that has had no answer
// before it was not looked at, so the client connects anew, to the new process, and sends
// it again.
//
//	go build -o app ./websocket        # in examples/
//	./app &                            # logs its pid
//	kill -USR2 PID
package main

import (
	"context"
	"flag"
	"fmt"
	"log"
	"net/http"
	"os"
	"time"

	"github.com/coder/websocket"

	"github.com/facebookgo/grace"
	"github.com/facebookgo/grace/gracehttp"
)

func main() {
	addr := flag.String("addr", "127.0.0.1:8092", "address to listen on")
	standby := flag.Duration("standby", grace.DefaultStandby, "how long the old process can take over again")
	flag.Parse()

	gracehttp.SetLogger(log.Default())
	err := gracehttp.ServeWithOptions(
		[]*http.Server{{
			Addr:              *addr,
			Handler:           http.HandlerFunc(serve),
			ReadHeaderTimeout: time.Minute,
		}},
		gracehttp.WaitHijacked(), // a WebSocket is a hijacked connection
		gracehttp.Standby(*standby),
	)
	if err != nil {
		log.Fatal(err)
	}
}

// serve answers one message after the other, and closes only in between.
func serve(w http.ResponseWriter, r *http.Request) {
	c, err := websocket.Accept(w, r, nil)
	if err != nil {
		return // which has been answered
	}
	defer c.CloseNow()
	ctx := r.Context() // ends when this function returns
	messages := make(chan []byte)
	go receive(ctx, c, messages) // ends with the connection
	for {
		select {
		case <-gracehttp.Draining(ctx):
			// It waits for the close frame of the client.
			_ = c.Close(websocket.StatusServiceRestart, "connect again")
			return
		case message, ok := <-messages:
			if !ok {
				return
			}
			answer := fmt.Appendf(nil, "%d %s", os.Getpid(), message)
			if err := c.Write(ctx, websocket.MessageText, answer); err != nil {
				return
			}
		}
	}
}

// receive passes on what comes, until nothing more does.
func receive(ctx context.Context, c *websocket.Conn, messages chan<- []byte) {
	defer close(messages)
	for {
		_, message, err := c.Read(ctx)
		if err != nil {
			return
		}
		select {
		case messages <- message:
		case <-ctx.Done():
			return
		}
	}
}
