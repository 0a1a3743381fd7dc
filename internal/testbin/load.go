//go:build unix

package testbin

import (
	"bufio"
	"fmt"
	"net"
	"net/http"
	"net/url"
	"strconv"
	"testing"
	"time"

	"github.com/facebookgo/grace/gracetest"
)

// Target is a way to ask a server a question.
type Target func(question string) (answer string, err error)

// HTTP asks on a fresh connection each time. scheme is http or https, or unix: then addr
// is the path of a socket.
func HTTP(scheme, addr string) Target {
	return func(question string) (string, error) {
		u := url.URL{Scheme: scheme, Host: addr, Path: "/" + question}
		r := gracetest.Request{Fresh: true}
		if scheme == "unix" {
			u.Scheme, u.Host, r.Unix = "http", "localhost", addr
		}
		r.URL = u.String()
		return answer(gracetest.HTTP(r))
	}
}

// KeepAlive asks for the pid over HTTP on one connection for as long as the server keeps
// it, and never twice.
func KeepAlive(addr string) Target {
	target, _ := Kept(addr)
	return target
}

// Kept is KeepAlive, with a function that closes the connection if it is idle.
func Kept(addr string) (target Target, hangUp func()) {
	c := gracetest.HTTP(gracetest.Request{URL: "http://" + addr + "/", Method: http.MethodPost})
	target = func(question string) (string, error) {
		if question != "" {
			return "", fmt.Errorf("asked %q on a connection that is for the pid only", question)
		}
		return answer(c)
	}
	return target, func() { _ = c.Close() }
}

// answer makes a request, to which every server of the tests knows an answer.
func answer(c gracetest.Client) (string, error) {
	x, err := c.Do()
	if err == nil && x.Status != http.StatusOK {
		err = fmt.Errorf("status %d: %s", x.Status, x.Answer)
	}
	return x.Answer, err
}

// Lines asks a raw server on a fresh connection each time.
func Lines(network, addr string) Target {
	return func(question string) (string, error) {
		c, err := net.DialTimeout(network, addr, Patience)
		if err != nil {
			return "", err
		}
		defer c.Close()
		if err := c.SetDeadline(time.Now().Add(Patience)); err != nil {
			return "", err
		}
		if _, err := fmt.Fprintln(c, question); err != nil {
			return "", err
		}
		line, err := bufio.NewReader(c).ReadString('\n')
		if err != nil {
			return "", fmt.Errorf("%s: %w", addr, err)
		}
		return line[:len(line)-1], nil
	}
}

// Ask asks once and fails the test on an error.
func Ask(t *testing.T, target Target, question string) string {
	t.Helper()
	answer, err := target(question)
	if err != nil {
		t.Fatalf("ask %q: %v", question, err)
	}
	return answer
}

// SameDescriptors fails the test unless the server comes to have the descriptors
// that it said it had before. One that is leaked does not go away. The server can tell
// its connections from the rest while there is load, which proc.Descriptors can't.
func SameDescriptors(t *testing.T, target Target, before string) {
	t.Helper()
	after := Ask(t, target, "fds")
	for deadline := time.Now().Add(10 * time.Second); after != before && time.Now().Before(deadline); time.Sleep(10 * time.Millisecond) {
		after = Ask(t, target, "fds")
	}
	if after != before {
		t.Errorf("descriptors before: %s\nafter: %s", before, after)
	}
}

// AskPID asks for the pid.
func AskPID(t *testing.T, target Target) int {
	t.Helper()
	answer := Ask(t, target, "")
	pid, err := strconv.Atoi(answer)
	if err != nil {
		t.Fatalf("asked for the pid: %q", answer)
	}
	return pid
}

// Load asks each of several targets for the pid, again and again.
type Load = gracetest.Load

// NewLoad starts one goroutine for each target. It never tries again.
func NewLoad(t *testing.T, targets ...Target) *Load {
	t.Helper()
	var clients []gracetest.Client
	for i, target := range targets {
		clients = append(clients, gracetest.Func(fmt.Sprintf("target %d", i), func() (string, error) { return target("") }))
	}
	return gracetest.NewLoad(t, clients...)
}
