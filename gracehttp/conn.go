package gracehttp

import (
	"net"
	"syscall"
	"time"
)

// Connections of a type of ours, for the options that must know when they are
// closed, or when they can go to another process.

// watching is a listener whose connections are watched.
type watching struct {
	net.Listener
	server *server
}

func (l watching) Accept() (net.Conn, error) {
	c, err := l.Listener.Accept()
	if err != nil {
		return nil, err
	}
	return l.server.wrap(c), nil
}

// wrap makes a connection one that is watched, if it can be.
func (s *server) wrap(c net.Conn) net.Conn {
	follows := s.app.handOverIdle && !s.secure
	switch c := c.(type) {
	case *net.TCPConn:
		return &tcpConn{c, watch{socket: c, follows: follows}}
	case *net.UnixConn:
		return &unixConn{c, watch{socket: c, follows: follows}}
	}
	return c
}

// tcpConn has all methods of a TCP connection.
type tcpConn struct {
	*net.TCPConn
	watch watch
}

func (c *tcpConn) Read(p []byte) (int, error)        { return c.watch.read(p) }
func (c *tcpConn) SetDeadline(t time.Time) error     { return c.watch.setDeadline(t) }
func (c *tcpConn) SetReadDeadline(t time.Time) error { return c.watch.setReadDeadline(t) }
func (c *tcpConn) Close() error                      { return c.watch.close() }
func (c *tcpConn) watched() *watch                   { return &c.watch }

// unixConn has all methods of a unix connection.
type unixConn struct {
	*net.UnixConn
	watch watch
}

func (c *unixConn) Read(p []byte) (int, error)        { return c.watch.read(p) }
func (c *unixConn) SetDeadline(t time.Time) error     { return c.watch.setDeadline(t) }
func (c *unixConn) SetReadDeadline(t time.Time) error { return c.watch.setReadDeadline(t) }
func (c *unixConn) Close() error                      { return c.watch.close() }
func (c *unixConn) watched() *watch                   { return &c.watch }

// watchOf returns the watch of c, which may be a TLS connection on a watched one,
// or nil.
func watchOf(c net.Conn) *watch {
	if t, ok := c.(interface{ NetConn() net.Conn }); ok {
		c = t.NetConn()
	}
	if w, ok := c.(interface{ watched() *watch }); ok {
		return w.watched()
	}
	return nil
}

// socket is a *net.TCPConn or a *net.UnixConn.
type socket interface {
	net.Conn
	syscall.Conn
}
