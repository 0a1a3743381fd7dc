// Command nginx is a service behind nginx that a restart does not cost a connection:
// those that nginx keeps in its pool go from process to process, idle as they are. So
// there is no 502, and nothing is opened anew. nginx.conf, beside this file, is the other
// half.
//
//	go build -o app ./nginx                          # in examples/
//	mkdir -p run && cp nginx/nginx.conf run
//	./app &                                          # logs its pid
//	nginx -p run -c nginx.conf -e nginx.log
//	curl http://127.0.0.1:8089/
//	kill -USR2 PID && sleep 6                        # until the old process no longer stands by
//	curl http://127.0.0.1:8089/                      # another process, the same connection
//	nginx -p run -c nginx.conf -e nginx.log -s quit
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
	addr := flag.String("addr", "127.0.0.1:8079", "address to listen on")
	standby := flag.Duration("standby", grace.DefaultStandby, "how long the old process can take over again")
	flag.Parse()

	gracehttp.SetLogger(log.Default())
	err := gracehttp.ServeWithOptions(
		[]*http.Server{{
			Addr:              *addr,
			Handler:           http.HandlerFunc(hello),
			ReadHeaderTimeout: time.Minute,
			// Longer than nginx keeps a connection: then it is always nginx that closes one
			// which nobody uses, and knows it.
			IdleTimeout: 5 * time.Minute,
		}},
		gracehttp.HandOverIdle(),
		gracehttp.Standby(*standby),
	)
	if err != nil {
		log.Fatal(err)
	}
}

func hello(w http.ResponseWriter, r *http.Request) {
	fmt.Fprintf(w, "process %d, connection from %s\n", os.Getpid(), r.RemoteAddr)
}
