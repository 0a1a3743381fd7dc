// Command container is the first process of a container that has no other file: no
// shell, no library. A restart keeps its pid, without an option that says so, and no
// request fails.
//
//	docker build -t app -f examples/container/Dockerfile .     # in the root of the repository
//	docker run -d --name app -p 8080:8080 app
//	curl http://127.0.0.1:8080/
//	docker cp ./new-app app:/app && docker kill -s USR2 app    # a new program in the same container
//	docker stop -t 70 app                                      # as long as requests may take
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
	addr := flag.String("addr", ":8080", "address to listen on")
	standby := flag.Duration("standby", grace.DefaultStandby, "how long the old process can take over again")
	flag.Parse()

	gracehttp.SetLogger(log.Default())
	err := gracehttp.ServeWithOptions(
		[]*http.Server{{
			Addr:              *addr,
			Handler:           http.HandlerFunc(hello),
			ReadHeaderTimeout: time.Minute,
		}},
		gracehttp.Standby(*standby),
		gracehttp.StopTimeout(time.Minute),
	)
	if err != nil {
		log.Fatal(err)
	}
}

func hello(w http.ResponseWriter, r *http.Request) {
	fmt.Fprintf(w, "hello from process %d, generation %d\n", os.Getpid(), grace.Generation())
}
