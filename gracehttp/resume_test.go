//go:build unix

package gracehttp_test

import (
	"crypto/tls"
	"fmt"
	"net/http"
	"testing"

	"github.com/facebookgo/grace/internal/testbin"
	"github.com/facebookgo/grace/internal/testbin/play"
)

// A session that began in one process is resumed in the next ones, with each
// version of TLS and on each address, if the keys of the tickets are shared.
func TestSessionsAreResumed(t *testing.T) {
	for _, share := range []bool{true, false} {
		t.Run(fmt.Sprintf("ShareTicketKeys=%v", share), func(t *testing.T) {
			cfg := play.Config{Role: "http", ShareTicketKeys: share, Listens: []play.Listen{
				{Addr: "127.0.0.1:0"}, // so that their places differ
				{Addr: "127.0.0.1:0", TLS: true},
				{Addr: "127.0.0.1:0", TLS: true, HTTP2: true},
			}}
			s := testbin.Start(t, cfg)
			_, addrs := s.Newest()
			type client struct {
				ask     func() (resumed bool)
				version uint16
				addr    string
			}
			var clients []client
			for _, version := range []uint16{tls.VersionTLS12, tls.VersionTLS13} {
				for i, addr := range addrs[1:] {
					transport := &http.Transport{
						DisableKeepAlives: true,
						ForceAttemptHTTP2: i == 1,
						TLSClientConfig: &tls.Config{
							InsecureSkipVerify: true,
							MinVersion:         version,
							MaxVersion:         version,
							ClientSessionCache: tls.NewLRUClientSessionCache(1),
						},
					}
					ask := func() bool {
						t.Helper()
						resp, err := (&http.Client{Transport: transport}).Get("https://" + addr)
						if err != nil {
							t.Fatal(err)
						}
						defer resp.Body.Close()
						return resp.TLS.DidResume
					}
					clients = append(clients, client{ask, version, addr})
				}
			}
			for _, c := range clients {
				if c.ask() {
					t.Error("the first session was resumed")
				}
			}
			for generation := range 3 {
				old, _ := s.Restart()
				s.WaitReturned(old)
				for i, c := range clients {
					// The clients take turns, so that some have a ticket that is
					// several processes old.
					if share && generation != 2 && i%3 != generation {
						continue
					}
					if got := c.ask(); got != share {
						t.Errorf("%s to %s in generation %d: resumed=%v, want %v", tls.VersionName(c.version), c.addr, generation, got, share)
					}
				}
			}
			s.Stop()
		})
	}
}
