package gracehttp

import "net"

// probed is l with the keep-alive probes of ListenConfig on what it accepts. Package
// net sees to that for a listener that it has made, but not for an inherited one.
func (a *app) probed(l net.Listener) net.Listener {
	if c := a.net.ListenConfig; c.KeepAlive != 0 || c.KeepAliveConfig.Enable {
		return probing{l, a}
	}
	return l
}

type probing struct {
	net.Listener
	app *app
}

func (l probing) Accept() (net.Conn, error) {
	c, err := l.Listener.Accept()
	l.app.probe(c)
	return c, err
}

// probe sets the probes of ListenConfig, if it has any.
func (a *app) probe(c net.Conn) {
	listen := a.net.ListenConfig
	tcp, ok := c.(*net.TCPConn)
	if !ok || listen.KeepAlive == 0 && !listen.KeepAliveConfig.Enable {
		return
	}
	config := listen.KeepAliveConfig
	if !config.Enable {
		config = net.KeepAliveConfig{Enable: listen.KeepAlive > 0, Idle: listen.KeepAlive}
	}
	_ = tcp.SetKeepAliveConfig(config) // a connection that has ended may refuse it
}
