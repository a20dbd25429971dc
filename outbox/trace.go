package outbox

import (
	"context"
	"slices"
	"time"

	"github.com/jackc/pgx/v5"
	"go.opentelemetry.io/otel/trace"

	"quorumbox/internal/span"
)

// setTraceparent gives the entries that the transaction appends from now on the trace context; see outbox_traceparent.
const setTraceparent = `select set_config('quorumbox.traceparent', $1, true)`

// queryRow is tx.QueryRow for a statement that appends entries. If ctx carries a span they get its context, in the same round trip; otherwise the
// transaction keeps the one that it has.
func queryRow(ctx context.Context, tx pgx.Tx, sql string, args []any, into ...any) error {
	traceparent := span.Format(ctx)
	if traceparent == "" {
		return tx.QueryRow(ctx, sql, args...).Scan(into...)
	}
	var batch pgx.Batch
	batch.Queue(setTraceparent, traceparent)
	batch.Queue(sql, args...).QueryRow(func(row pgx.Row) error { return row.Scan(into...) })
	return tx.SendBatch(ctx, &batch).Close()
}

// dispatchTrace is the span of one dispatch. Nil: there is none.
type dispatchTrace struct {
	tracer trace.Tracer
	begun  time.Time
	what   chosen
	span   trace.Span // nil: not begun, because the entries' contexts are not known yet
}

func (r *Relay) beginTrace(c chosen) *dispatchTrace {
	if r.cfg.Tracer == nil {
		return nil
	}
	return &dispatchTrace{tracer: r.cfg.Tracer, begun: time.Now(), what: c}
}

// column is what the statement that dispatches entries (taken) reads of their trace contexts.
func (d *dispatchTrace) column() string {
	if d == nil {
		return `'{}'::text[]`
	}
	return `(select array_agg(coalesce(o.traceparent, '')) from taken t join outbox o on o.id = t.entry)`
}

// start begins the span in the trace of the entries, at the time when the dispatch began.
func (d *dispatchTrace) start(ctx context.Context, fanOut int64, traceparents []string) context.Context {
	if d == nil {
		return ctx
	}
	var origins span.Origins
	for _, t := range traceparents {
		origins.Add(t)
	}
	lanes := slices.Compact(slices.Clone(d.what.lanes)) // lane by lane
	ctx, d.span = origins.Start(ctx, d.tracer, "dispatch", trace.WithTimestamp(d.begun), trace.WithAttributes(
		span.FanOut.Int64(fanOut), span.Entries.Int(len(d.what.entries)), span.Lanes.Int(len(lanes))))
	return ctx
}

func (d *dispatchTrace) end(err error) {
	if d == nil || d.span == nil {
		return
	}
	if err != nil {
		span.Fail(d.span, "not dispatched")
	}
	d.span.End()
}
