//go:build linux

package main

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"errors"
	"fmt"
	"math/big"
	"os"
	"path/filepath"
	"runtime"
	"strconv"
	"syscall"
	"time"

	"github.com/facebookgo/grace/gracetest"
)

const measureIdle = "idle"

// idleSize is how many idle connections there are, and for how many rounds.
type idleSize struct{ conns, rounds int }

// passing is a way in which idle connections get from one process to the next.
type passing struct {
	name   string
	system *system
	secure bool
	again  bool // the clients have to connect again
}

// idle measures what one idle connection costs at a restart, in processor time of both
// processes and the clients together: handed over, and if the clients have to connect
// again, with and without TLS. What the same restart takes without connections is no part
// of it.
func (b *bench) idle() {
	ways := []passing{
		{"handed over", b.named(nameHandOver)[0], false, false},
		{"connected again", b.named(nameHand)[0], false, true},
		{"connected again with TLS", b.named(nameHand)[0], true, true},
	}
	const (
		handedOver = iota
		plain
		secure
	)
	// Each process has a descriptor for each connection, and some more.
	const more = 200
	for _, size := range b.plan.idle {
		n := min(size.conns, b.descriptors-more)
		values := make(rounds[int])
		keptOpen := 0
		for round := range size.rounds {
			for _, at := range rotate([]int{handedOver, plain, secure}, round) {
				b.part(measureIdle, ways[at].system, round, size.rounds, func(t *scope) {
					none, _ := b.passIdle(t, ways[at], 0)
					cost, answered := b.passIdle(t, ways[at], n)
					values.add(at, microseconds(cost-none)/float64(n))
					if at == handedOver {
						keptOpen += answered
					}
				})
			}
		}
		name := fmt.Sprintf("%d connections: ", n)
		if n < size.conns {
			name = fmt.Sprintf("%d connections (the limit of descriptors, instead of %d): ", n, size.conns)
		}
		rounds := len(values[handedOver])
		if rounds == 0 {
			continue
		}
		for i, way := range ways {
			if v := values[i]; len(v) > 0 {
				b.record(measureIdle, way.system, name+way.name, median(v), "µs each", len(v), goal{})
			}
		}
		ours := ways[handedOver].system
		b.record(measureIdle, ours, name+"kept", 100*float64(keptOpen)/float64(n*rounds), "%", rounds, atLeast(100))
		b.record(measureIdle, ours, name+"cheaper than connecting again", median(quotients(values[plain], values[handedOver])), "times", rounds, atLeast(3))
		b.record(measureIdle, ours, name+"cheaper than with TLS", median(quotients(values[secure], values[handedOver])), "times", rounds, atLeast(10))
	}
}

// passIdle restarts a server to which clients have n idle connections, and returns the
// processor time it took, and how many connections of those that need not be opened again
// the new process answers on.
func (b *bench) passIdle(t *scope, way passing, n int) (cost time.Duration, answered int) {
	// Long enough for what there is to do without connections.
	const standby = 50 * time.Millisecond
	c := conditions{standby: standby}
	clients := idleClients{t: t}
	if way.secure {
		c.cert, c.key = b.certificate(t)
		clients.config = &tls.Config{InsecureSkipVerify: true, NextProtos: []string{"http/1.1"}}
	}
	s := way.system.start(t, c)
	if way.secure {
		s.scheme = "https"
	}
	old := s.waitUp()
	clients.addr = s.addr
	clients.open(n)
	runtime.GC()
	settledCPUTime(t, old)
	before := settledCPUTime(t, 0) + cpuTime(t, old)
	children := cpuTimeOfChildren(t)

	p := s.restart(askPause, false)
	b.losses(measureIdle, way.system, p.lost...)
	gracetest.Poll(t, "the old process to be waited for", func() bool { return syscall.Kill(old, 0) == syscall.ESRCH })
	if way.again {
		clients.waitAgain()
	}
	cost = settledCPUTime(t, p.new) + settledCPUTime(t, 0) + cpuTimeOfChildren(t) - children - before
	if !way.again {
		answered = clients.ask(strconv.Itoa(p.new))
	}
	clients.close()
	return cost, answered
}

// certificate writes a new certificate and its key to files.
func (b *bench) certificate(t *scope) (cert, key string) {
	t.Helper()
	dir := t.TempDir()
	cert, key = filepath.Join(dir, "cert.pem"), filepath.Join(dir, "key.pem")
	err := func() error {
		k, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
		if err != nil {
			return err
		}
		template := &x509.Certificate{
			SerialNumber: big.NewInt(1),
			Subject:      pkix.Name{CommonName: "bench"},
			NotBefore:    time.Now().Add(-time.Hour),
			NotAfter:     time.Now().Add(24 * time.Hour),
		}
		der, err := x509.CreateCertificate(rand.Reader, template, template, k.Public(), k)
		if err != nil {
			return err
		}
		private, err := x509.MarshalECPrivateKey(k)
		if err != nil {
			return err
		}
		return errors.Join(
			os.WriteFile(cert, pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der}), 0o600),
			os.WriteFile(key, pem.EncodeToMemory(&pem.Block{Type: "EC PRIVATE KEY", Bytes: private}), 0o600),
		)
	}()
	if err != nil {
		t.Fatalf("make a certificate: %v", err)
	}
	return cert, key
}
