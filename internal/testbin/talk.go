//go:build unix

package testbin

import (
	"bufio"
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"net"
	"os"
	"strings"
	"sync"
	"time"

	"github.com/facebookgo/grace"
	"github.com/facebookgo/grace/internal/testbin/play"
)

// A protocol whose connections are kept: a line is answered by a line. A server
// that drains says "bye", if it is configured to. It still answers after that; a
// client that has read it sends nothing more, and closes the connection when it
// has its answer.

const bye = "bye"

// serveTalk is a raw server for it.
func serveTalk(cfg play.Config) error {
	listeners, err := listenRaw(cfg)
	if err != nil {
		return err
	}
	config, err := tlsConfig()
	if err != nil {
		return err
	}
	var addrs []string
	for i, l := range listeners {
		addrs = append(addrs, l.Addr().String())
		patient := patientListener{l.(grace.Drainer)}
		var served net.Listener = patient
		if cfg.Listens[i].TLS {
			served = tls.NewListener(patient, config)
		}
		go acceptAll(served, func(c net.Conn) { talk(c, patient, cfg.Goodbye) })
	}
	return wait(cfg, listeners, addrs)
}

// patientListener reports a deadline, and goes on accepting.
type patientListener struct{ grace.Drainer }

func (l patientListener) Accept() (net.Conn, error) {
	for {
		c, err := l.Drainer.Accept()
		if !errors.Is(err, os.ErrDeadlineExceeded) {
			return c, err
		}
		if err := l.SetDeadline(time.Time{}); err != nil {
			return nil, err
		}
		play.Emit(play.Event{Event: play.Log, Text: "Accept: deadline exceeded"})
	}
}

// talk answers what play.Answer does, "deadline D", which sets one for l, and "linger
// D", after which it takes that long to come back.
func talk(c net.Conn, l grace.Drainer, goodbye bool) {
	conn := belowTLS(c).(grace.Conn)
	var writing sync.Mutex
	say := func(line string) {
		writing.Lock()
		defer writing.Unlock()
		_, _ = fmt.Fprintln(c, line) // what fails here fails to read, too
	}
	var err error
	defer c.Close() // the process may be gone after that
	var linger time.Duration
	defer func() {
		time.Sleep(linger)
		play.Emit(play.Event{Event: play.Log, Text: "handler comes back: " + text(err)})
	}()
	told := make(chan struct{})
	stop := context.AfterFunc(conn.Context(), func() {
		defer close(told)
		play.Emit(play.Event{Event: play.Log, Text: "handler is told: " + context.Cause(conn.Context()).Error()})
		if goodbye {
			say(bye)
		}
	})
	defer func() {
		if !stop() {
			<-told // before the end
		}
	}()
	r := bufio.NewReader(c)
	for {
		conn.SetIdle(r.Buffered() == 0)
		var line string
		if line, err = r.ReadString('\n'); err != nil {
			return
		}
		conn.SetIdle(false)
		line = strings.TrimSuffix(line, "\n")
		if d, ok := strings.CutPrefix(line, "deadline "); ok {
			say(setDeadline(l, d))
			continue
		}
		if d, ok := strings.CutPrefix(line, "linger "); ok {
			linger, _ = time.ParseDuration(d)
			line = ""
		}
		say(play.Answer(line))
	}
}

func setDeadline(l grace.Drainer, after string) string {
	d, err := time.ParseDuration(after)
	if err == nil {
		err = l.SetDeadline(time.Now().Add(d))
	}
	return text(err)
}

func belowTLS(c net.Conn) net.Conn {
	if t, ok := c.(*tls.Conn); ok {
		return t.NetConn()
	}
	return c
}

// Talk asks a server of the role talk, on one connection for as long as the server
// keeps it, and never twice. hangUp closes it, when nobody asks any more.
func Talk(l play.Listen, addr string) (target Target, hangUp func()) {
	var w *Wire
	hangUp = func() {
		if w != nil {
			_ = w.Close()
			w = nil
		}
	}
	target = func(question string) (string, error) {
		if w == nil {
			var err error
			if w, err = TryDial(l, addr); err != nil {
				return "", err
			}
		}
		if _, err := fmt.Fprintln(w, question); err != nil {
			hangUp()
			return "", err
		}
		line, err := w.TryLine()
		if line == bye && err == nil {
			defer hangUp()
			line, err = w.TryLine()
		}
		if err != nil {
			hangUp()
		}
		return line, err
	}
	return target, hangUp
}
