package gracehttp

import (
	"context"
	"fmt"
	"log"
	"log/slog"
	"net"
	"strings"
	"sync/atomic"

	"github.com/facebookgo/grace/internal/tee"
)

var logger atomic.Pointer[log.Logger]

// newLogger returns a logger that writes each record as one line to l, and to
// records as it is. Both may be nil.
func newLogger(l *log.Logger, records *slog.Logger) *slog.Logger {
	var handlers []slog.Handler
	if l != nil {
		handlers = append(handlers, lines{l})
	}
	if records != nil {
		handlers = append(handlers, records.Handler())
	}
	return slog.New(tee.New(handlers...))
}

// lines writes records the way the other lines of this package look: a sentence
// and what belongs to it.
type lines struct{ *log.Logger }

func (h lines) Enabled(_ context.Context, level slog.Level) bool { return level >= slog.LevelInfo }

func (h lines) Handle(_ context.Context, r slog.Record) error {
	var b strings.Builder
	b.WriteString(r.Message)
	r.Attrs(func(a slog.Attr) bool {
		fmt.Fprintf(&b, " %s=%v", a.Key, quoted(a.Value.String()))
		return true
	})
	return h.Output(2, b.String())
}

// The step that a record belongs to and our pid are for programs to read.
func (h lines) WithAttrs([]slog.Attr) slog.Handler { return h }
func (h lines) WithGroup(string) slog.Handler      { return h }

func quoted(s string) string {
	if strings.ContainsAny(s, " \t\n\"") {
		return fmt.Sprintf("%q", s)
	}
	return s
}

func addrs(listeners []net.Listener) string {
	s := make([]string, len(listeners))
	for i, l := range listeners {
		s[i] = l.Addr().String()
	}
	return strings.Join(s, ", ")
}
