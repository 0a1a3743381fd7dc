package tee_test

import (
	"bytes"
	"context"
	"errors"
	"log/slog"
	"testing"

	"github.com/facebookgo/grace/internal/tee"
)

func text(b *bytes.Buffer, level slog.Level) slog.Handler {
	return slog.NewTextHandler(b, &slog.HandlerOptions{Level: level, ReplaceAttr: func(_ []string, a slog.Attr) slog.Attr {
		if a.Key == slog.TimeKey {
			return slog.Attr{}
		}
		return a
	}})
}

func TestEachHandlerGetsWhatItWants(t *testing.T) {
	var all, warnings bytes.Buffer
	h := text(&all, slog.LevelDebug)
	log := slog.New(tee.New(h, text(&warnings, slog.LevelWarn), h)).With("pid", 7).WithGroup("child")
	log.Debug("start", "pid", 8)
	log.Warn("late")
	if got, want := all.String(), "level=DEBUG msg=start pid=7 child.pid=8\nlevel=WARN msg=late pid=7\n"; got != want {
		t.Errorf("got %q, want %q", got, want)
	}
	if got, want := warnings.String(), "level=WARN msg=late pid=7\n"; got != want {
		t.Errorf("got %q, want %q", got, want)
	}
	if quiet := tee.New(text(&warnings, slog.LevelWarn), text(&all, slog.LevelError)); quiet.Enabled(context.Background(), slog.LevelInfo) {
		t.Error("enabled at a level that no handler wants")
	}
}

// unfit is a handler that can't be compared and always fails.
type unfit struct{ errs []error }

func (h unfit) Enabled(context.Context, slog.Level) bool  { return true }
func (h unfit) Handle(context.Context, slog.Record) error { return h.errs[0] }
func (h unfit) WithAttrs([]slog.Attr) slog.Handler        { return h }
func (h unfit) WithGroup(string) slog.Handler             { return h }

func TestOneThatFailsHoldsUpNobody(t *testing.T) {
	full := errors.New("disk full")
	var b bytes.Buffer
	h := tee.New(unfit{[]error{full}}, unfit{[]error{full}}, text(&b, slog.LevelInfo))
	if err := h.Handle(context.Background(), slog.Record{Message: "ready"}); !errors.Is(err, full) {
		t.Errorf("got error %v, want %v", err, full)
	}
	if got, want := b.String(), "level=INFO msg=ready\n"; got != want {
		t.Errorf("got %q, want %q", got, want)
	}
}

func TestNoHandler(t *testing.T) {
	if tee.New().Enabled(context.Background(), slog.LevelError) {
		t.Error("enabled without a handler")
	}
}
