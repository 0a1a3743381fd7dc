//go:build linux

package main

import (
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/facebookgo/grace/gracetest"
)

// idleClients have connections on which nothing happens. If the server closes one its
// client connects again.
type idleClients struct {
	t      *scope
	addr   string
	config *tls.Config // nil without TLS
	again  atomic.Int64
	run    sync.WaitGroup
	turns  chan struct{} // how many connect at once

	mu    sync.Mutex
	conns []net.Conn
	ended bool
	err   error // the first one
}

func (c *idleClients) conn(i int) net.Conn {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.conns[i]
}

// use makes a connection that of client i, and reports whether there is any use for it.
func (c *idleClients) use(i int, conn net.Conn) bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.ended {
		_ = conn.Close()
		return false
	}
	c.conns[i] = conn
	return true
}

func (c *idleClients) dial() (net.Conn, error) {
	c.turns <- struct{}{}
	defer func() { <-c.turns }()
	dialer := net.Dialer{Timeout: gracetest.Patience}
	if c.config == nil {
		return dialer.Dial("tcp", c.addr)
	}
	return tls.DialWithDialer(&dialer, "tcp", c.addr, c.config)
}

// open opens the connections, and makes a request on each.
func (c *idleClients) open(n int) {
	const atOnce = 64
	c.turns = make(chan struct{}, atOnce)
	c.conns = make([]net.Conn, n)
	c.t.Cleanup(c.close)
	c.each(func(i int) error {
		conn, err := c.dial()
		if err != nil {
			return err
		}
		if c.use(i, conn) {
			_, err = askOn(conn)
		}
		return err
	})
	for i := range c.conns {
		c.run.Add(1)
		go func() {
			defer c.run.Done()
			c.keep(i)
		}()
	}
}

// keep waits for the end of a connection, and opens another one.
func (c *idleClients) keep(i int) {
	var b [1]byte
	conn := c.conn(i)
	_, err := conn.Read(b[:])
	if errors.Is(err, net.ErrClosed) || errors.Is(err, os.ErrDeadlineExceeded) { // by us
		return
	}
	_ = conn.Close()
	conn, err = c.dial()
	if err != nil {
		c.note(err)
	} else if c.use(i, conn) {
		c.again.Add(1)
	}
}

func (c *idleClients) note(err error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.err == nil {
		c.err = err
	}
}

func (c *idleClients) check(what string) {
	c.t.Helper()
	c.mu.Lock()
	err := c.err
	c.mu.Unlock()
	if err != nil {
		c.t.Fatalf("%s: %v", what, err)
	}
}

// each does something with all connections, some at once.
func (c *idleClients) each(do func(i int) error) {
	var all sync.WaitGroup
	for i := range c.conns {
		all.Add(1)
		go func() {
			defer all.Done()
			if err := do(i); err != nil {
				c.note(err)
			}
		}()
	}
	all.Wait()
	c.check("use idle connections")
}

// waitAgain waits until all connections were opened again.
func (c *idleClients) waitAgain() {
	c.t.Helper()
	gracetest.Poll(c.t, "all clients to connect again", func() bool {
		c.check("connect again")
		return c.again.Load() == int64(len(c.conns))
	})
}

// ask makes a request on each connection, and returns how many give this answer.
func (c *idleClients) ask(want string) int {
	for i := range c.conns { // so that keep returns
		_ = c.conn(i).SetReadDeadline(time.Unix(1, 0))
	}
	c.run.Wait()
	var right atomic.Int64
	c.each(func(i int) error {
		c.turns <- struct{}{}
		defer func() { <-c.turns }()
		// One that was lost is counted by its absence.
		if answer, err := askOn(c.conn(i)); err == nil && answer == want {
			right.Add(1)
		}
		return nil
	})
	return int(right.Load())
}

// close closes the connections. Since all of this runs in one process those with TLS are
// spared their farewell.
func (c *idleClients) close() {
	c.mu.Lock()
	c.ended = true
	conns := slices.Clone(c.conns)
	c.mu.Unlock()
	for _, conn := range conns {
		if conn == nil {
			continue
		}
		if encrypted, ok := conn.(*tls.Conn); ok {
			conn = encrypted.NetConn()
		}
		_ = conn.Close()
	}
	c.run.Wait()
}

// askOn asks for the pid on a connection.
func askOn(conn net.Conn) (string, error) {
	_ = conn.SetDeadline(time.Now().Add(gracetest.Patience))
	defer func() { _ = conn.SetDeadline(time.Time{}) }()
	if _, err := io.WriteString(conn, "GET /pid HTTP/1.1\r\nHost: bench\r\n\r\n"); err != nil {
		return "", err
	}
	b := make([]byte, 1024)
	n, err := conn.Read(b) // it is short, and comes at once
	_, body, ok := strings.Cut(string(b[:n]), "\r\n\r\n")
	if err == nil && !ok {
		err = fmt.Errorf("an answer of %d bytes", n)
	}
	return body, err
}
