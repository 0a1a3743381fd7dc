//go:build linux

package main

import (
	"log"
	"net/http"
	"os"

	"github.com/facebookgo/grace/gracehttp"
)

// serveGrace serves with this library.
func serveGrace(c config, servers []*http.Server) error {
	gracehttp.SetLogger(log.New(os.Stderr, "", log.Lmicroseconds))
	options := []gracehttp.Option{gracehttp.Standby(c.standby)}
	if c.handOver {
		options = append(options, gracehttp.HandOverIdle())
	}
	return gracehttp.ServeWithOptions(servers, options...)
}
