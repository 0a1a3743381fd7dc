//go:build unix

package gracetest_test

import (
	"fmt"
	"runtime"
	"slices"
	"strings"
	"sync"
	"testing"
)

// watched is a test within a test, that may fail.
type watched struct {
	testing.TB
	mu       sync.Mutex
	failed   bool
	told     strings.Builder
	cleanups []func()
}

// watch runs a test and returns what it says when it fails.
func watch(t *testing.T, test func(testing.TB)) string {
	t.Helper()
	w := &watched{TB: t}
	ended := make(chan struct{})
	go func() {
		defer close(ended)
		defer func() {
			for _, cleanup := range slices.Backward(w.cleanups) {
				cleanup()
			}
		}()
		test(w)
	}()
	<-ended
	return w.told.String()
}

func (w *watched) Helper()           {}
func (w *watched) Cleanup(do func()) { w.cleanups = append(w.cleanups, do) }

func (w *watched) Failed() bool {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.failed
}

func (w *watched) Errorf(format string, args ...any) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.failed = true
	fmt.Fprintf(&w.told, format+"\n", args...)
}

func (w *watched) Fatalf(format string, args ...any) {
	w.Errorf(format, args...)
	runtime.Goexit()
}

func (w *watched) Fatal(args ...any) { w.Fatalf("%s", fmt.Sprint(args...)) }
