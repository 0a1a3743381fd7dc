// Command gracedemo serves three addresses, and shows a restart that no client
// notices: a slow request is finished by the old process, while quick ones are
// answered by the new one already. Each address has a page, at /, on which one can watch
// that.
package main

import (
	"flag"
	"fmt"
	"log"
	"net/http"
	"os"
	"time"

	"github.com/facebookgo/grace/gracehttp"
)

var (
	address0 = flag.String("a0", ":48567", "address of the server Zero")
	address1 = flag.String("a1", ":48568", "address of the server First")
	address2 = flag.String("a2", ":48569", "address of the server Second")
)

func main() {
	flag.Parse()
	gracehttp.SetLogger(log.New(os.Stderr, "", log.LstdFlags))
	p := &page{started: time.Now()}
	err := gracehttp.Serve(
		&http.Server{Addr: *address0, Handler: handler("Zero  ", p)},
		&http.Server{Addr: *address1, Handler: handler("First ", p)},
		&http.Server{Addr: *address2, Handler: handler("Second", p)},
	)
	if err != nil {
		log.Fatal(err)
	}
}

// handler answers /sleep/?duration=20s after that time, and has the page.
func handler(name string, p *page) http.Handler {
	started := p.started.Format(time.RFC3339)
	mux := http.NewServeMux()
	p.register(mux)
	mux.HandleFunc("/sleep/", func(w http.ResponseWriter, r *http.Request) {
		duration, err := time.ParseDuration(r.FormValue("duration"))
		if err != nil || duration < 0 {
			http.Error(w, "duration must be a time such as 20s or 100ms", http.StatusBadRequest)
			return
		}
		select {
		case <-time.After(duration):
			fmt.Fprintf(w, "%s started at %s slept for %v in pid %d.\n", name, started, duration, os.Getpid())
		case <-r.Context().Done(): // the client has gone
		}
	})
	return mux
}
