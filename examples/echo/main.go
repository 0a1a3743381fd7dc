// Command echo is a service with the framework Echo that is restarted without a failed
// request. Instead of calling Start, it gives the Echo to an http.Server.
//
//	go build -o app ./echo                   # in examples/
//	./app &                                  # logs its pid
//	curl --no-buffer http://127.0.0.1:8094/clock &
//	kill -USR2 PID                           # the stream ends; curl has all of it
package main

import (
	"flag"
	"fmt"
	"log"
	"net/http"
	"os"
	"time"

	"github.com/labstack/echo/v4"
	"github.com/labstack/echo/v4/middleware"

	"github.com/facebookgo/grace"
	"github.com/facebookgo/grace/gracehttp"
)

func main() {
	addr := flag.String("addr", "127.0.0.1:8094", "address to listen on")
	standby := flag.Duration("standby", grace.DefaultStandby, "how long the old process can take over again")
	flag.Parse()

	e := echo.New()
	e.Use(middleware.Recover())
	e.GET("/", func(c echo.Context) error { return c.JSON(http.StatusOK, map[string]int{"pid": os.Getpid()}) })
	e.GET("/clock", clock)

	gracehttp.SetLogger(log.Default())
	err := gracehttp.ServeWithOptions(
		[]*http.Server{{Addr: *addr, Handler: e, ReadHeaderTimeout: time.Minute}},
		gracehttp.Standby(*standby),
	)
	if err != nil {
		log.Fatal(err)
	}
}

// clock is a stream of events that ends by itself when the process drains: the client
// connects again, to the new one.
func clock(c echo.Context) error {
	c.Response().Header().Set(echo.HeaderContentType, "text/event-stream")
	tick := time.NewTicker(100 * time.Millisecond)
	defer tick.Stop()
	for {
		select {
		case now := <-tick.C:
			if _, err := fmt.Fprintf(c.Response(), "event: time\ndata: %s\n\n", now.Format(time.RFC3339Nano)); err != nil {
				return err
			}
			c.Response().Flush()
		case <-gracehttp.Draining(c.Request().Context()):
			_, err := fmt.Fprint(c.Response(), "event: end\ndata: connect again\n\n")
			return err
		case <-c.Request().Context().Done():
			return nil
		}
	}
}
