package gracenet_test

import (
	"errors"
	"fmt"
	"io"
	"log"
	"net"
	"time"

	"github.com/facebookgo/grace"
	"github.com/facebookgo/grace/gracenet"
)

// An echo server on two addresses. After SIGUSR2 the new process finds both
// sockets again by the addresses that it asks for.
func Example() {
	var n gracenet.Net
	var listeners []grace.Listener
	for _, asked := range []struct{ network, addr string }{
		{"tcp", "127.0.0.1:8080"},
		{"unix", "/run/echo.sock"},
	} {
		l, err := n.Listen(asked.network, asked.addr)
		if err != nil {
			log.Fatal(err)
		}
		listeners = append(listeners, grace.NewListener(l.(grace.Listener)))
	}
	for _, l := range listeners {
		go func() {
			for {
				c, err := l.Accept()
				if err != nil {
					if !errors.Is(err, grace.ErrAlreadyClosed) {
						log.Print(err)
					}
					return
				}
				go func() {
					defer c.Close()
					_, _ = io.Copy(c, c)
				}()
			}
		}()
	}
	if err := grace.CloseParent(); err != nil {
		log.Print(err)
	}
	p := grace.Process{TermTimeout: time.Minute}
	if err := p.Wait(listeners); err != nil {
		log.Fatal(err)
	}
}

// In a process that inherits nothing, a Net listens as package net does.
func ExampleNet_Listen() {
	var n gracenet.Net
	l, err := n.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		log.Fatal(err)
	}
	defer l.Close()
	fmt.Println(l.Addr().Network(), l.Addr().(*net.TCPAddr).IP)

	_, err = n.Listen("udp", "127.0.0.1:0")
	fmt.Println(err)
	// Output:
	// tcp 127.0.0.1
	// unknown network udp
}
