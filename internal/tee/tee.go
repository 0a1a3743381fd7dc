// Package tee lets one log record reach several handlers.
package tee

import (
	"context"
	"errors"
	"log/slog"
	"reflect"
)

// handler hands each record to all handlers that want it.
type handler []slog.Handler

// New returns a handler for all of handlers, each of which gets a record once
// even if it is named twice. Without any it discards what it gets.
func New(handlers ...slog.Handler) slog.Handler {
	var h handler
	for _, next := range handlers {
		if !h.has(next) {
			h = append(h, next)
		}
	}
	switch len(h) {
	case 0:
		return slog.DiscardHandler
	case 1:
		return h[0]
	}
	return h
}

func (h handler) has(next slog.Handler) bool {
	for _, known := range h {
		if reflect.ValueOf(known).Comparable() && reflect.ValueOf(next).Comparable() && known == next {
			return true
		}
	}
	return false
}

func (h handler) Enabled(ctx context.Context, level slog.Level) bool {
	for _, next := range h {
		if next.Enabled(ctx, level) {
			return true
		}
	}
	return false
}

func (h handler) Handle(ctx context.Context, r slog.Record) error {
	var errs []error
	for _, next := range h {
		if next.Enabled(ctx, r.Level) {
			errs = append(errs, next.Handle(ctx, r.Clone()))
		}
	}
	return errors.Join(errs...)
}

func (h handler) WithAttrs(attrs []slog.Attr) slog.Handler {
	return h.each(func(next slog.Handler) slog.Handler { return next.WithAttrs(attrs) })
}

func (h handler) WithGroup(name string) slog.Handler {
	return h.each(func(next slog.Handler) slog.Handler { return next.WithGroup(name) })
}

func (h handler) each(f func(slog.Handler) slog.Handler) slog.Handler {
	all := make(handler, len(h))
	for i, next := range h {
		all[i] = f(next)
	}
	return all
}
