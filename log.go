package grace

import (
	"context"
	"log/slog"
)

// logger returns the configured logger, or one that lets only what went wrong
// through to slog.Default.
func (p *Process) logger() *slog.Logger {
	if p.Logger != nil {
		return p.Logger
	}
	return slog.New(troubles{slog.Default().Handler()})
}

type troubles struct{ slog.Handler }

func (h troubles) Enabled(ctx context.Context, level slog.Level) bool {
	return level >= slog.LevelWarn && h.Handler.Enabled(ctx, level)
}
