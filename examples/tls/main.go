// Command tls serves HTTP/2 and HTTP/1.1 over TLS, and is restarted without a failed
// request. Clients resume their TLS sessions with the new process, which reads the
// certificate anew: to renew it, replace the files and restart.
//
//	go build -o app ./tls                            # in examples/
//	openssl req -x509 -newkey ed25519 -nodes -subj /CN=localhost -keyout key.pem -out cert.pem
//	./app -cert cert.pem -key key.pem &              # logs its pid
//	curl --insecure https://127.0.0.1:8443/
//	kill -USR2 PID
package main

import (
	"crypto/tls"
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
	addr := flag.String("addr", "127.0.0.1:8443", "address to listen on")
	certFile := flag.String("cert", "cert.pem", "file with the certificate")
	keyFile := flag.String("key", "key.pem", "file with its key")
	standby := flag.Duration("standby", grace.DefaultStandby, "how long the old process can take over again")
	flag.Parse()

	cert, err := tls.LoadX509KeyPair(*certFile, *keyFile)
	if err != nil {
		log.Fatal(err) // a restart fails with this, and the old process serves on
	}
	gracehttp.SetLogger(log.Default())
	err = gracehttp.ServeWithOptions(
		[]*http.Server{{
			Addr:              *addr,
			Handler:           http.HandlerFunc(hello),
			ReadHeaderTimeout: time.Minute,
			TLSConfig: &tls.Config{
				Certificates: []tls.Certificate{cert},
				NextProtos:   []string{"h2", "http/1.1"}, // the protocols are those of the configuration
			},
		}},
		gracehttp.ShareTicketKeys(),
		gracehttp.Standby(*standby),
	)
	if err != nil {
		log.Fatal(err)
	}
}

func hello(w http.ResponseWriter, r *http.Request) {
	fmt.Fprintf(w, "hello over %s from process %d\n", r.Proto, os.Getpid())
}
