//go:build unix

package gracehttp_test

import (
	"context"
	"fmt"
	"io"
	"log"
	"net"
	"net/http"
	"os"
	"syscall"

	"github.com/facebookgo/grace/gracehttp"
)

// SIGTERM while a request is in flight: the request is finished, and Serve
// returns nil.
func ExampleServe_terminate() {
	addr := make(chan string, 1)
	server := &http.Server{
		Addr: "127.0.0.1:0",
		BaseContext: func(l net.Listener) context.Context {
			addr <- l.Addr().String()
			return context.Background()
		},
		Handler: http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			if err := syscall.Kill(os.Getpid(), syscall.SIGTERM); err != nil {
				log.Print(err)
			}
			fmt.Fprint(w, "a whole answer")
		}),
	}
	done := make(chan struct{})
	go func() {
		defer close(done)
		fmt.Println("Serve returned", gracehttp.Serve(server))
	}()

	resp, err := http.Get("http://" + <-addr)
	if err != nil {
		log.Fatal(err)
	}
	defer resp.Body.Close()
	body, err := io.ReadAll(resp.Body)
	if err != nil {
		log.Fatal(err)
	}
	<-done
	fmt.Printf("%s\n", body)
	// Output:
	// Serve returned <nil>
	// a whole answer
}
