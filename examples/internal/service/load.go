//go:build unix

package service

import (
	"fmt"
	"slices"
	"sync"
	"testing"
	"time"
)

// Load makes requests again and again, and never one twice.
type Load struct {
	t    testing.TB
	stop chan struct{}
	done sync.WaitGroup

	mu      sync.Mutex
	changed chan struct{} // closed at each request
	times   []time.Duration
	errs    []error
}

// NewLoad starts a goroutine for each request.
func NewLoad(t testing.TB, requests ...func() error) *Load {
	l := &Load{t: t, stop: make(chan struct{}), changed: make(chan struct{})}
	for _, request := range requests {
		l.done.Go(func() {
			for {
				select {
				case <-l.stop:
					return
				default:
					l.Do(request)
				}
			}
		})
	}
	t.Cleanup(func() { l.end() })
	return l
}

// Do makes one request and counts it.
func (l *Load) Do(request func() error) {
	begin := time.Now()
	err := request()
	l.mu.Lock()
	defer l.mu.Unlock()
	l.times = append(l.times, time.Since(begin))
	if err != nil {
		l.errs = append(l.errs, err)
	}
	close(l.changed)
	l.changed = make(chan struct{})
}

// WaitMore waits for n more requests.
func (l *Load) WaitMore(n int) {
	l.t.Helper()
	timeout := time.After(Patience)
	for end := -1; ; {
		l.mu.Lock()
		now, changed := len(l.times), l.changed
		l.mu.Unlock()
		if end < 0 {
			end = now + n
		}
		if now >= end {
			return
		}
		select {
		case <-changed:
		case <-timeout:
			l.t.Fatal("the load makes no requests")
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
	l.done.Wait()
}

// Stop ends the load and fails the test if a request has failed.
func (l *Load) Stop() Figures {
	l.t.Helper()
	l.end()
	for i, err := range l.errs {
		if i == 5 {
			break
		}
		l.t.Errorf("request failed: %v", err)
	}
	slices.Sort(l.times)
	return Figures{Requests: len(l.times), Failures: len(l.errs), times: l.times}
}

// Figures are what a load has found.
type Figures struct {
	Requests, Failures int
	times              []time.Duration
}

// Share is how long the fastest part of the requests took at most.
func (f Figures) Share(part float64) time.Duration {
	return f.times[min(int(part*float64(len(f.times))), len(f.times)-1)]
}

// Against shows the figures beside those of the same load without a restart.
func (f Figures) Against(steady Figures) string {
	text := fmt.Sprintf("%d requests, %d failed; without a restart %d, %d failed; latency as a ratio:", f.Requests, f.Failures, steady.Requests, steady.Failures)
	for _, part := range []float64{0.5, 0.99, 0.999, 1} {
		text += fmt.Sprintf(" p%g %.1f (%v)", 100*part, float64(f.Share(part))/float64(steady.Share(part)), f.Share(part).Round(10*time.Microsecond))
	}
	return text
}
