package grace_test

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"log"
	"net"

	"github.com/facebookgo/grace"
)

// An echo server that listens on whatever its parent or a service manager passed
// to it, and on an address of its own if nobody did.
func Example() {
	serve := func(l net.Listener) {
		for {
			c, err := l.Accept()
			if err != nil {
				if !errors.Is(err, grace.ErrAlreadyClosed) {
					log.Print(err)
				}
				return
			}
			go func() {
				defer c.Close() // Wait waits for it
				_, _ = io.Copy(c, c)
			}()
		}
	}

	listeners, err := grace.Inherit()
	if errors.Is(err, grace.ErrNotInheriting) {
		var l net.Listener
		if l, err = net.Listen("tcp", "127.0.0.1:8080"); err == nil {
			listeners = []grace.Listener{grace.NewListener(l.(*net.TCPListener))}
		}
	}
	if err != nil {
		log.Fatal(err)
	}
	for _, l := range listeners {
		go serve(l)
	}
	if err := grace.CloseParent(); err != nil {
		log.Print(err)
	}
	if err := grace.Wait(listeners); err != nil {
		log.Fatal(err)
	}
}

// Close stops accepting first, and returns when the connections that were
// accepted are closed.
func ExampleNewListener() {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		log.Fatal(err)
	}
	listener := grace.NewListener(l.(*net.TCPListener))
	accepted := make(chan net.Conn)
	go func() {
		for {
			c, err := listener.Accept()
			if err != nil {
				fmt.Println(err)
				close(accepted)
				return
			}
			accepted <- c
		}
	}()

	client, err := net.Dial("tcp", l.Addr().String())
	if err != nil {
		log.Fatal(err)
	}
	defer client.Close()
	server := <-accepted
	go func() {
		<-accepted // nothing more is accepted
		fmt.Fprint(server, "answered meanwhile")
		server.Close()
	}()

	if err := listener.Close(); err != nil {
		log.Fatal(err)
	}
	answer, _ := io.ReadAll(client)
	fmt.Printf("%s\n", answer)
	// Output:
	// grace: already closed
	// answered meanwhile
}

// A protocol with a goodbye loses no request: the server says it when it drains, and
// the client, which sends nothing after that, closes the connection.
func ExampleConn() {
	handle := func(c grace.Conn) {
		defer c.Close()
		stop := context.AfterFunc(c.Context(), func() { fmt.Fprintln(c, "goodbye") })
		defer stop()
		requests := bufio.NewReader(c)
		for {
			c.SetIdle(requests.Buffered() == 0)
			request, err := requests.ReadString('\n')
			if err != nil {
				return
			}
			c.SetIdle(false)
			fmt.Fprint(c, "you say ", request)
		}
	}

	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		log.Fatal(err)
	}
	listener := grace.NewListener(l.(*net.TCPListener))
	go func() {
		for {
			c, err := listener.Accept()
			if err != nil {
				return
			}
			go handle(c.(grace.Conn))
		}
	}()

	client, err := net.Dial("tcp", l.Addr().String())
	if err != nil {
		log.Fatal(err)
	}
	answers := bufio.NewScanner(client)
	fmt.Fprintln(client, "hello")
	answers.Scan()
	fmt.Println(answers.Text())
	closed := make(chan error)
	go func() { closed <- listener.Close() }() // as Wait does
	answers.Scan()
	fmt.Println(answers.Text())
	client.Close()
	if err := <-closed; err != nil {
		log.Fatal(err)
	}
	// Output:
	// you say hello
	// goodbye
}
