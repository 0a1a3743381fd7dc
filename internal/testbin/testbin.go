//go:build unix

// Package testbin lets a test binary play the servers that tests restart, and
// starts, watches and loads them.
//
// TestMain calls [Main]. A test calls [Start], which runs the test binary anew,
// through a symbolic link of its own and with a configuration file. Every
// generation of the service reads that file when it starts: a test that rewrites
// it, or moves the link, deploys something else.
package testbin

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"fmt"
	"math/big"
	"os"
	"testing"
	"time"

	"github.com/facebookgo/grace/internal/testbin/play"
)

// Main runs the tests, or one of the servers: those of this package, and more.
func Main(m *testing.M, more ...Role) {
	if os.Getenv(play.EnvConfig) == "" {
		code := m.Run()
		if oldDir != "" {
			_ = os.RemoveAll(oldDir)
		}
		os.Exit(code)
	}
	cfg, err := play.ReadConfig()
	if err != nil {
		play.Fail(err)
	}
	role, ok := roles[cfg.Role]
	if !ok {
		role, ok = faults[cfg.Role]
	}
	for _, r := range more {
		if r.Name == cfg.Role {
			role, ok = r.Serve, true
		}
	}
	if !ok {
		play.Fail(fmt.Errorf("no such role: %q", cfg.Role))
	}
	if cfg.Chdir != "" {
		if err := os.Chdir(cfg.Chdir); err != nil {
			play.Fail(err)
		}
	}
	time.Sleep(cfg.Delay)
	if err := role(cfg); err != nil {
		play.Fail(err)
	}
	os.Exit(0)
}

// Role is a server of another package.
type Role struct {
	Name  string
	Serve func(play.Config) error
}

// logWriter makes an event of each line.
type logWriter struct{}

func (logWriter) Write(b []byte) (int, error) {
	play.Emit(play.Event{Event: play.Log, Text: string(b[:len(b)-1])})
	return len(b), nil
}

// recordWriter makes an event of each record.
type recordWriter struct{}

func (recordWriter) Write(b []byte) (int, error) {
	play.Emit(play.Event{Event: play.Record, Text: string(b)})
	return len(b), nil
}

// tlsConfig returns a configuration with a certificate made on the spot.
func tlsConfig() (*tls.Config, error) {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return nil, err
	}
	template := &x509.Certificate{SerialNumber: big.NewInt(1), NotAfter: time.Now().Add(time.Hour)}
	der, err := x509.CreateCertificate(rand.Reader, template, template, &key.PublicKey, key)
	if err != nil {
		return nil, err
	}
	return &tls.Config{Certificates: []tls.Certificate{{Certificate: [][]byte{der}, PrivateKey: key}}}, nil
}
