package main

import (
	"context"
	"log/slog"
)

// announceStop says when the worker is told to stop how long that may take. The function that it returns must be called in the end.
func (w *worker) announceStop(ctx context.Context) (done func()) {
	told := make(chan struct{})
	stop := context.AfterFunc(ctx, func() {
		defer close(told)
		w.logger.InfoContext(context.WithoutCancel(ctx), "worker stopping: jobs that run may end, a second signal ends it at once",
			slog.Duration("soft_stop", w.cfg.Jobs.SoftStop), slog.Any("cause", context.Cause(ctx)))
	})
	return func() {
		if !stop() {
			<-told
		}
	}
}
