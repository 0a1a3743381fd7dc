package gracehttp_test

import (
	"encoding/json"
	"errors"
	"fmt"
	"log"
	"net/http"
	"os"
	"time"

	"github.com/facebookgo/grace/gracehttp"
)

// Two servers in one process. A restart takes both along.
func ExampleServe() {
	mux := http.NewServeMux()
	mux.HandleFunc("/", func(w http.ResponseWriter, r *http.Request) {
		fmt.Fprintf(w, "hello from pid %d\n", os.Getpid())
	})
	err := gracehttp.Serve(
		&http.Server{Addr: ":8080", Handler: mux},
		&http.Server{Addr: "127.0.0.1:8081", Handler: http.NotFoundHandler()},
	)
	if err != nil {
		log.Fatal(err)
	}
}

// SIGUSR2 starts no new process while its configuration is broken, and requests
// get ten seconds when this process drains.
func ExampleServeWithOptions() {
	checkConfig := func() error {
		config, err := os.ReadFile("server.json")
		if err != nil {
			return err
		}
		if !json.Valid(config) {
			return errors.New("server.json is not JSON")
		}
		return nil
	}
	err := gracehttp.ServeWithOptions(
		[]*http.Server{{Addr: ":8080"}},
		gracehttp.PreStartProcess(checkConfig),
		gracehttp.StopTimeout(10*time.Second),
	)
	if err != nil {
		log.Fatal(err)
	}
}

// Without a logger, Serve is silent: not even a restart that fails is heard of.
func ExampleSetLogger() {
	gracehttp.SetLogger(log.New(os.Stderr, "", log.LstdFlags))
	if err := gracehttp.Serve(&http.Server{Addr: ":8080"}); err != nil {
		log.Fatal(err)
	}
}
