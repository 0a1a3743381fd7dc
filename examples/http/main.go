// Command http serves a site, an API and a port for administrators, each on an address
// of its own, and is restarted without a failed request. The load balancer asks the
// administrators' port for /health, which turns to 503 before the service stops.
//
//	go build -o app ./http                           # in examples/
//	./app -pid-file app.pid -control app.control &
//	curl http://127.0.0.1:8080/ http://127.0.0.1:8081/ http://127.0.0.1:8082/health
//	go build -o app ./http && kill -USR2 $(cat app.pid)
//	kill -TERM $(cat app.pid)
//
// The signal has no answer. gracectl (cmd/gracectl) restarts and says what came of it:
//
//	gracectl -socket app.control upgrade
//	gracectl -socket app.control status
package main

import (
	"flag"
	"fmt"
	"log/slog"
	"net/http"
	"os"
	"time"

	"github.com/facebookgo/grace"
	"github.com/facebookgo/grace/gracehttp"
)

func main() {
	site := flag.String("site", "127.0.0.1:8080", "address of the site")
	api := flag.String("api", "127.0.0.1:8081", "address of the API")
	admin := flag.String("admin", "127.0.0.1:8082", "address for administrators")
	pidFile := flag.String("pid-file", "", "file with the pid of the process that serves")
	control := flag.String("control", "", "unix socket for gracectl")
	standby := flag.Duration("standby", grace.DefaultStandby, "how long the old process can take over again")
	stopDelay := flag.Duration("stop-delay", 0, "how long /health says 503 before the service stops")
	flag.Parse()

	logger := slog.New(slog.NewTextHandler(os.Stderr, nil))
	err := gracehttp.ServeWithOptions(
		[]*http.Server{
			{Addr: *site, Handler: siteHandler(), ReadHeaderTimeout: time.Minute},
			{Addr: *api, Handler: apiHandler(), ReadHeaderTimeout: time.Minute},
			{Addr: *admin, Handler: adminHandler(), ReadHeaderTimeout: time.Minute},
		},
		gracehttp.Logger(logger),
		gracehttp.PIDFile(*pidFile),
		gracehttp.ControlSocket(*control),
		gracehttp.Standby(*standby),
		gracehttp.StopDelay(*stopDelay),
		gracehttp.StopTimeout(30*time.Second),
	)
	if err != nil {
		logger.Error("serve", "error", err)
		os.Exit(1)
	}
}

func siteHandler() http.Handler {
	mux := http.NewServeMux()
	mux.HandleFunc("GET /{$}", func(w http.ResponseWriter, r *http.Request) {
		fmt.Fprintf(w, "hello from process %d\n", os.Getpid())
	})
	return mux
}

func apiHandler() http.Handler {
	mux := http.NewServeMux()
	mux.HandleFunc("GET /{$}", func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Content-Type", "application/json")
		fmt.Fprintf(w, `{"pid": %d, "generation": %d}`+"\n", os.Getpid(), grace.Generation())
	})
	return mux
}

func adminHandler() http.Handler {
	mux := http.NewServeMux()
	mux.HandleFunc("GET /health", func(w http.ResponseWriter, r *http.Request) {
		if !gracehttp.Ready() {
			http.Error(w, "stopping", http.StatusServiceUnavailable)
			return
		}
		fmt.Fprintln(w, "ready")
	})
	return mux
}
