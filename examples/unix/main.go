// Command unix serves HTTP on a unix socket behind nginx, and is restarted without a
// failed request. nginx.conf, beside this file, is the other half.
//
//	go build -o app ./unix                           # in examples/
//	mkdir -p run && cp unix/nginx.conf run
//	./app -socket /tmp/app.socket &                  # logs its pid
//	nginx -p run -c nginx.conf -e nginx.log
//	curl http://127.0.0.1:8088/
//	kill -USR2 PID
//	nginx -p run -c nginx.conf -e nginx.log -s quit
//
// nginx must be allowed to write to the socket, which the umask of the first process
// decides, or the unit of a systemd socket.
package main

import (
	"flag"
	"fmt"
	"log"
	"net/http"
	"os"
	"time"

	"github.com/facebookgo/grace"
	"github.com/facebookgo/grace/gracehttp"
)

func main() {
	socket := flag.String("socket", "/tmp/app.socket", "path of the socket")
	standby := flag.Duration("standby", grace.DefaultStandby, "how long the old process can take over again")
	flag.Parse()

	gracehttp.SetLogger(log.Default())
	err := gracehttp.ServeWithOptions(
		[]*http.Server{{
			Addr:              "unix:" + *socket,
			Handler:           http.HandlerFunc(hello),
			ReadHeaderTimeout: time.Minute,
		}},
		gracehttp.ReplaceStale(), // a crash leaves the socket behind
		gracehttp.Standby(*standby),
	)
	if err != nil {
		log.Fatal(err)
	}
}

func hello(w http.ResponseWriter, r *http.Request) {
	fmt.Fprintf(w, "hello %s from process %d\n", r.Header.Get("X-Real-IP"), os.Getpid())
}
