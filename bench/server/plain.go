//go:build linux

package main

import (
	"fmt"
	"net"
	"net/http"
)

// servePlain serves with net/http alone, until the process is killed.
func servePlain(servers []*http.Server) error {
	failed := make(chan error)
	for _, s := range servers {
		l, err := net.Listen("tcp", s.Addr)
		if err != nil {
			return fmt.Errorf("listen: %w", err)
		}
		go func() { failed <- serveOn(s, l) }()
	}
	return <-failed
}
