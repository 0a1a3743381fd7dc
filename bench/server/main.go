//go:build linux

// Command server is what is measured of Go: one program, so that every system has the
// same binary, the same handler and the same cost to start.
//
//	server -system grace|plain|hand [flags] ADDR
//
//	/pid            the pid of the process that answers
//	/slow?for=TIME  the same, after that time
package main

import (
	"context"
	"crypto/tls"
	"flag"
	"fmt"
	"io"
	"log"
	"net"
	"net/http"
	"os"
	"strconv"
	"sync/atomic"
	"time"
)

// config is what the flags say.
type config struct {
	system    string
	listeners int
	standby   time.Duration
	handOver  bool
	careless  bool
	cert, key string
	addr      string
}

func main() {
	log.SetFlags(log.Lmicroseconds)
	var c config
	flag.StringVar(&c.system, "system", "grace", "`what` serves: grace, plain (net/http without restarts), hand (restarts by os/exec)")
	flag.IntVar(&c.listeners, "listeners", 1, "how many addresses to listen on: ADDR, and that many less one of 127.1.0.0/16 with its port")
	flag.DurationVar(&c.standby, "standby", time.Second, "standby of grace")
	flag.BoolVar(&c.handOver, "handover", false, "grace hands idle connections over")
	flag.BoolVar(&c.careless, "careless", false, "by hand, with Close instead of Shutdown: loses requests")
	flag.StringVar(&c.cert, "cert", "", "`file` with a certificate; with it TLS is served")
	flag.StringVar(&c.key, "key", "", "`file` with the key of the certificate")
	flag.Parse()
	if flag.NArg() != 1 {
		log.Fatal("server: give one address, after the flags")
	}
	c.addr = flag.Arg(0)
	if err := c.serve(); err != nil {
		log.Fatalf("server: %v", err)
	}
}

func (c config) serve() error {
	servers, err := c.servers()
	if err != nil {
		return err
	}
	switch c.system {
	case "grace":
		return serveGrace(c, servers)
	case "plain":
		return servePlain(servers)
	case "hand":
		return serveByHand(c, servers)
	}
	return fmt.Errorf("unknown system %q", c.system)
}

// servers returns a server for each address.
func (c config) servers() ([]*http.Server, error) {
	var secure *tls.Config
	if c.cert != "" {
		pair, err := tls.LoadX509KeyPair(c.cert, c.key)
		if err != nil {
			return nil, err
		}
		secure = &tls.Config{Certificates: []tls.Certificate{pair}, NextProtos: []string{"http/1.1"}}
	}
	_, port, err := net.SplitHostPort(c.addr)
	if err != nil {
		return nil, err
	}
	// Who wants to know when this process serves need not ask all the time.
	var unknown atomic.Int64
	unknown.Store(int64(c.listeners))
	serves := func(net.Listener) context.Context {
		if unknown.Add(-1) == 0 {
			fmt.Println("serves")
		}
		return context.Background()
	}
	var servers []*http.Server
	for i := range c.listeners {
		addr := c.addr
		if i > 0 {
			addr = fmt.Sprintf("127.1.%d.%d:%s", i/256, i%256, port)
		}
		servers = append(servers, &http.Server{
			Addr:        addr,
			Handler:     handler(),
			TLSConfig:   secure.Clone(), // nil stays nil
			ErrorLog:    log.New(io.Discard, "", 0),
			BaseContext: serves,
		})
	}
	return servers, nil
}

func handler() http.Handler {
	pid := strconv.Itoa(os.Getpid())
	mux := http.NewServeMux()
	mux.HandleFunc("/pid", func(w http.ResponseWriter, _ *http.Request) {
		_, _ = io.WriteString(w, pid)
	})
	mux.HandleFunc("/slow", func(w http.ResponseWriter, r *http.Request) {
		d, err := time.ParseDuration(r.FormValue("for"))
		if err != nil {
			http.Error(w, err.Error(), http.StatusBadRequest)
			return
		}
		time.Sleep(d)
		_, _ = io.WriteString(w, pid)
	})
	return mux
}

// serveOn serves until the server is closed.
func serveOn(s *http.Server, l net.Listener) error {
	if s.TLSConfig != nil {
		return s.ServeTLS(l, "", "")
	}
	return s.Serve(l)
}
