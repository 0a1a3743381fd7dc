// Command gin is a service with the framework Gin that is restarted without a failed
// request. Instead of calling Run, it gives the engine to an http.Server.
//
//	go build -o app ./gin                    # in examples/
//	./app &                                  # logs its pid
//	curl --no-buffer http://127.0.0.1:8093/clock &
//	kill -USR2 PID                           # the stream ends; curl has all of it
package main

import (
	"flag"
	"io"
	"log"
	"net/http"
	"os"
	"time"

	"github.com/gin-gonic/gin"

	"github.com/facebookgo/grace"
	"github.com/facebookgo/grace/gracehttp"
)

func main() {
	addr := flag.String("addr", "127.0.0.1:8093", "address to listen on")
	standby := flag.Duration("standby", grace.DefaultStandby, "how long the old process can take over again")
	flag.Parse()

	gin.SetMode(gin.ReleaseMode)
	router := gin.New()
	router.Use(gin.Recovery())
	router.GET("/", func(c *gin.Context) { c.JSON(http.StatusOK, gin.H{"pid": os.Getpid()}) })
	router.GET("/clock", clock)

	gracehttp.SetLogger(log.Default())
	err := gracehttp.ServeWithOptions(
		[]*http.Server{{Addr: *addr, Handler: router, ReadHeaderTimeout: time.Minute}},
		gracehttp.Standby(*standby),
	)
	if err != nil {
		log.Fatal(err)
	}
}

// clock is a stream of events that ends by itself when the process drains: the client
// connects again, to the new one.
func clock(c *gin.Context) {
	tick := time.NewTicker(100 * time.Millisecond)
	defer tick.Stop()
	c.Stream(func(io.Writer) bool {
		select {
		case now := <-tick.C:
			c.SSEvent("time", now.Format(time.RFC3339Nano))
			return true
		case <-gracehttp.Draining(c.Request.Context()):
			c.SSEvent("end", "connect again")
			return false
		}
	})
}
