//go:build unix

package testbin

import (
	"bufio"
	"context"
	"crypto/tls"
	"fmt"
	"io"
	"net"
	"net/http"
	"strconv"
	"sync"
	"testing"
	"time"
)

// Target is a way to ask a server a question.
type Target func(question string) (answer string, err error)

// HTTP asks on a fresh connection each time. scheme is http or https.
func HTTP(scheme, addr string) Target {
	client := &http.Client{Timeout: Patience, Transport: &http.Transport{
		DisableKeepAlives: true,
		TLSClientConfig:   &tls.Config{InsecureSkipVerify: true},
	}}
	return func(question string) (string, error) { return get(client, scheme, addr, question) }
}

// KeepAlive asks over HTTP on one connection for as long as the server keeps it,
// and never twice.
func KeepAlive(addr string) Target {
	target, _ := Kept(addr)
	return target
}

// Kept is KeepAlive, with a function that closes the connection if it is idle.
func Kept(addr string) (target Target, hangUp func()) {
	client := &http.Client{Timeout: Patience, Transport: &http.Transport{MaxConnsPerHost: 1}}
	target = func(question string) (string, error) {
		// A body that can't be read again keeps net/http from trying again.
		req, err := http.NewRequest("POST", "http://"+addr+"/"+question, io.MultiReader())
		if err != nil {
			return "", err
		}
		return do(client, req)
	}
	return target, client.CloseIdleConnections
}

func get(client *http.Client, scheme, addr, question string) (string, error) {
	req, err := http.NewRequestWithContext(context.Background(), "GET", scheme+"://"+addr, nil)
	if err != nil {
		return "", err
	}
	req.URL.Path = "/" + question
	return do(client, req)
}

func do(client *http.Client, req *http.Request) (string, error) {
	resp, err := client.Do(req)
	if err != nil {
		return "", err
	}
	defer resp.Body.Close()
	b, err := io.ReadAll(resp.Body)
	if err == nil && resp.StatusCode != http.StatusOK {
		err = fmt.Errorf("status %s: %s", resp.Status, b)
	}
	return string(b), err
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
// that it said it had before. One that is leaked does not go away.
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
type Load struct {
	t    *testing.T
	stop chan struct{}
	done sync.WaitGroup

	asking   sync.RWMutex // held for writing while paused
	paused   bool         // for the test that does it
	mu       sync.Mutex
	changed  chan struct{}
	requests int
	pids     map[string]int
	errs     []error
}

// NewLoad starts one goroutine for each target. It never tries again.
func NewLoad(t *testing.T, targets ...Target) *Load {
	l := &Load{t: t, stop: make(chan struct{}), changed: make(chan struct{}), pids: make(map[string]int)}
	for _, target := range targets {
		l.done.Add(1)
		go func() {
			defer l.done.Done()
			l.run(target)
		}()
	}
	t.Cleanup(func() { l.end() })
	return l
}

func (l *Load) run(target Target) {
	for {
		select {
		case <-l.stop:
			return
		default:
		}
		l.asking.RLock()
		answer, err := target("")
		l.asking.RUnlock()
		l.mu.Lock()
		l.requests++
		if err != nil {
			l.errs = append(l.errs, err)
		} else {
			l.pids[answer]++
		}
		close(l.changed)
		l.changed = make(chan struct{})
		l.mu.Unlock()
	}
}

// Pause returns when no request is under way, and lets none begin.
func (l *Load) Pause() {
	l.asking.Lock()
	l.paused = true
}

// Resume ends Pause.
func (l *Load) Resume() {
	l.paused = false
	l.asking.Unlock()
}

// WaitPID waits until pid has answered a request.
func (l *Load) WaitPID(pid int) {
	l.t.Helper()
	l.wait(fmt.Sprintf("an answer of pid %d", pid), func() bool { return l.pids[strconv.Itoa(pid)] > 0 })
}

// WaitMore waits until n more requests were answered, or have failed.
func (l *Load) WaitMore(n int) {
	l.t.Helper()
	l.mu.Lock()
	n += l.requests
	l.mu.Unlock()
	l.wait("more requests", func() bool { return l.requests >= n })
}

func (l *Load) wait(what string, done func() bool) {
	l.t.Helper()
	timeout := time.After(Patience)
	for {
		l.mu.Lock()
		ok, changed := done(), l.changed
		l.mu.Unlock()
		if ok {
			return
		}
		select {
		case <-changed:
		case <-timeout:
			l.t.Fatalf("waited in vain for %s", what)
		}
	}
}

func (l *Load) end() {
	l.mu.Lock()
	select {
	case <-l.stop:
	default:
		close(l.stop)
	}
	l.mu.Unlock()
	if l.paused { // the test has failed meanwhile
		l.Resume()
	}
	l.done.Wait()
}

// Stop ends the load and fails the test if a request has failed, or none was
// made.
func (l *Load) Stop() {
	l.t.Helper()
	l.end()
	if l.requests == 0 {
		l.t.Error("the load made no request")
	}
	for i, err := range l.errs {
		if i == 5 {
			break
		}
		l.t.Errorf("request failed: %v", err)
	}
	l.t.Logf("%d requests, %d failed, answered by %v", l.requests, len(l.errs), l.pids)
}
