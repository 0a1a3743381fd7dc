package gracehttp

import (
	"context"
	"log/slog"
	"net"
	"testing"
	"time"

	"github.com/facebookgo/grace"
)

// What options mean that other tests do not see: times that nobody waits for, and none.
func TestTimesOfOptions(t *testing.T) {
	if grace.DefaultStartTimeout != time.Minute || grace.DefaultStandby != 5*time.Second {
		t.Errorf("the defaults are %v and %v, the documentation says a minute and 5 seconds", grace.DefaultStartTimeout, grace.DefaultStandby)
	}
	const d = 7 * time.Second
	for _, tt := range []struct {
		name      string
		option    func(time.Duration) option
		field     func(*app) *time.Duration
		byDefault time.Duration
		zero      time.Duration // what zero and less are made
	}{
		{"StartTimeout", StartTimeout, func(a *app) *time.Duration { return &a.process.StartTimeout }, 0, 0},
		{"Standby", Standby, func(a *app) *time.Duration { return &a.process.Standby }, 0, -1}, // for grace that is none
		{"StopDelay", StopDelay, func(a *app) *time.Duration { return &a.process.StopDelay }, 0, 0},
		{"IdleGrace", IdleGrace, func(a *app) *time.Duration { return &a.idleGrace }, 500 * time.Millisecond, 0},
		{"StopTimeout", StopTimeout, func(a *app) *time.Duration { return &a.stopTimeout }, time.Minute, 0},
		{"KillTimeout", KillTimeout, func(a *app) *time.Duration { return &a.killTimeout }, time.Minute, 0},
	} {
		a := newApp(nil)
		if got := *tt.field(a); got != tt.byDefault {
			t.Errorf("%s: the default is %v, want %v", tt.name, got, tt.byDefault)
		}
		for _, set := range []struct{ value, want time.Duration }{{d, d}, {0, tt.zero}, {-d, tt.zero}} {
			tt.option(set.value)(a)
			if got := *tt.field(a); got != set.want {
				t.Errorf("%s(%v) is %v, want %v", tt.name, set.value, got, set.want)
			}
		}
	}
}

// Without loggers Serve is silent. Package grace would write to slog.Default.
func TestSilence(t *testing.T) {
	for name, records := range map[string]*slog.Logger{"no option": nil, "records for nobody": slog.New(slog.DiscardHandler)} {
		l := newLogger(nil, records)
		if l == nil || l.Enabled(context.Background(), slog.LevelError) {
			t.Errorf("%s: it is not silent", name)
		}
	}
}

// An address of a server may be empty.
func TestEmptyAddress(t *testing.T) {
	l, err := newApp(nil).listenOn("")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	if port := l.Addr().(*net.TCPAddr).Port; port == 0 || port == 80 {
		t.Errorf("it listens on port %d", port)
	}
}
