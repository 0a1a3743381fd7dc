package grace

import (
	"context"
	"log/slog"
	"os"

	"github.com/facebookgo/grace/internal/tee"
)

// The steps that records name in their attribute "step". Those of Process.Logger
// say what belongs to each.
const (
	stepSignal   = "signal"
	stepStart    = "start"
	stepHello    = "hello"
	stepReady    = "ready"
	stepFail     = "fail"
	stepStandby  = "standby"
	stepTakeBack = "take-back"
	stepStop     = "stop"
	stepDrain    = "drain"
	stepExit     = "exit"
)

// handler returns where the records of p go: to its logger, or, only if
// something went wrong, to slog.Default.
func (p *Process) handler() slog.Handler {
	if p.Logger != nil {
		return p.Logger.Handler()
	}
	return troubles{slog.Default().Handler()}
}

// stepLog is a logger for records of one step.
func stepLog(h slog.Handler, step string) *slog.Logger {
	return slog.New(h).With("step", step, "pid", os.Getpid())
}

func (p *Process) log(step string) *slog.Logger { return stepLog(p.handler(), step) }

// log reaches the loggers of all members.
func (l *loop) log(step string) *slog.Logger { return stepLog(l.handler(), step) }

func (l *loop) handler() slog.Handler { return handlerOf(l.members()) }

func handlerOf(members []*member) slog.Handler {
	var handlers []slog.Handler
	for _, m := range members {
		handlers = append(handlers, m.process.handler())
	}
	return tee.New(handlers...)
}

type troubles struct{ slog.Handler }

func (h troubles) Enabled(ctx context.Context, level slog.Level) bool {
	return level >= slog.LevelWarn && h.Handler.Enabled(ctx, level)
}

func (h troubles) WithAttrs(attrs []slog.Attr) slog.Handler {
	return troubles{h.Handler.WithAttrs(attrs)}
}

func (h troubles) WithGroup(name string) slog.Handler {
	return troubles{h.Handler.WithGroup(name)}
}
