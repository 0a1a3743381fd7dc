package grace

import (
	"context"
	"log/slog"
)

// logger returns the configured logger, or one that lets failures through to
// slog.Default.
func (p *Process) logger() *slog.Logger {
	if p.Logger != nil {
		return p.Logger
	}
	return slog.New(failures{slog.Default().Handler()})
}

type failures struct{ slog.Handler }

func (h failures) Enabled(ctx context.Context, level slog.Level) bool {
	return level >= slog.LevelError && h.Handler.Enabled(ctx, level)
}
