package jobs

import (
	"context"
	"encoding/json"
	"time"

	"github.com/riverqueue/river"
	"go.opentelemetry.io/otel/trace"
	"go.opentelemetry.io/otel/trace/noop"

	"quorumbox/internal/peer"
	"quorumbox/internal/span"
	"quorumbox/quorum"
)

// Spans. What a job does for entries belongs to the trace of their writer; see [span.Origins]. A fan-out's trace begins with its dispatch, whose context comes
// in the metadata of the River job: the args stay ids only. A job of the sweeper has none, and goes by its entries.

// traceOpts are the options of a job that goes on with the trace of ctx; nil if it carries none.
func traceOpts(ctx context.Context) *river.InsertOpts {
	traceparent := span.Format(ctx)
	if traceparent == "" {
		return nil
	}
	return &river.InsertOpts{Metadata: []byte(`{"` + span.Header + `":"` + traceparent + `"}`)}
}

// traceOf is the trace context in a job's metadata; not valid if there is none.
func traceOf(metadata []byte) trace.SpanContext {
	var m struct {
		Traceparent string `json:"traceparent"`
	}
	if err := json.Unmarshal(metadata, &m); err != nil {
		return trace.SpanContext{}
	}
	return span.Parse(m.Traceparent)
}

// trace begins the span of a fan-out whose job has run since begun.
func (w *fanOutWorker) trace(ctx context.Context, metadata []byte, begun time.Time, token int64, batches []batch) (context.Context, trace.Span) {
	if !w.store.traced {
		return ctx, noop.Span{}
	}
	opts := []trace.SpanStartOption{trace.WithTimestamp(begun), trace.WithSpanKind(trace.SpanKindConsumer), trace.WithAttributes(
		span.FanOut.Int64(token), span.Batches.Int(len(batches)), span.Entries.Int(countEntries(batches)))}
	if parent := traceOf(metadata); parent.IsValid() {
		return w.cfg.Tracer.Start(trace.ContextWithRemoteSpanContext(ctx, parent), FanOutArgs{}.Kind(), opts...)
	}
	origins := originsOf(batches)
	return origins.Start(ctx, w.cfg.Tracer, FanOutArgs{}.Kind(), opts...)
}

func countEntries(batches []batch) (n int) {
	for _, b := range batches {
		n += len(b.IDs)
	}
	return n
}

func originsOf(batches []batch) (o span.Origins) {
	for _, b := range batches {
		for _, e := range b.Entries {
			o.Add(e.Traceparent)
		}
	}
	return o
}

// traceVerdict says on the fan-out's span how a batch was judged.
func traceVerdict(ctx context.Context, b batch, t *quorum.Tracker) {
	s := trace.SpanFromContext(ctx)
	if !s.IsRecording() {
		return
	}
	verdict, reason := t.Verdict()
	s.AddEvent("verdict", trace.WithAttributes(span.Lane.Int(int(b.Lane)), span.Batch.Int64(b.Number), span.Entries.Int(len(b.IDs)),
		span.Verdict.String(string(verdict)), span.Reason.String(string(reason)),
		span.Acked.Int(len(t.Acked())), span.Needed.Int(t.Policy().W), span.Members.Int(t.Policy().N)))
}

// endDelivery ends the span of what a peer was pushed by a job of its own.
func endDelivery(s trace.Span, d delivery) {
	if s.IsRecording() {
		class := peer.ClassOf(d.err)
		s.SetAttributes(span.Class.String(string(class)), span.Refused.Int(len(d.refused)))
		if d.err != nil {
			span.Fail(s, string(class))
		}
	}
	s.End()
}

// trace begins the span of one push of a retry: a job may make many, each for entries of its own.
func (r *retry) trace(ctx context.Context, batches []batch) (context.Context, trace.Span) {
	if !r.cfg.traced {
		return ctx, noop.Span{}
	}
	origins := originsOf(batches)
	return origins.Start(ctx, r.cfg.Tracer, PeerRetryArgs{}.Kind(), trace.WithSpanKind(trace.SpanKindConsumer), trace.WithAttributes(
		span.Peer.String(r.peer), span.Lanes.Int(len(r.lanes)), span.Batches.Int(len(batches)), span.Entries.Int(countEntries(batches))))
}

// trace begins the span of a redelivery, in the trace of the refused entry.
func (r *redelivery) trace(ctx context.Context) (context.Context, trace.Span) {
	if !r.cfg.traced {
		return ctx, noop.Span{}
	}
	var origins span.Origins
	for _, e := range r.entries {
		origins.Add(e.Traceparent)
	}
	return origins.Start(ctx, r.cfg.Tracer, RedeliverArgs{}.Kind(), trace.WithSpanKind(trace.SpanKindConsumer), trace.WithAttributes(
		span.Peer.String(r.at.Peer), span.Lane.Int(int(r.at.Lane)), span.Entries.Int(len(r.entries)), span.Attempt.Int(r.attempts+1)))
}

// trace begins the span of a repair, which is for no entry: it brings a peer to the store's state.
func (r *repair) trace(ctx context.Context) (context.Context, trace.Span) {
	if !r.cfg.traced {
		return ctx, noop.Span{}
	}
	return r.cfg.Tracer.Start(ctx, RepairArgs{}.Kind(), trace.WithNewRoot(), trace.WithSpanKind(trace.SpanKindConsumer), trace.WithAttributes(
		span.Peer.String(r.at.Peer), span.Lane.Int(int(r.at.Lane)), span.Subjects.Int(len(r.rows))))
}

// trace begins the span of one run of a snapshot, which may take several.
func (s *snapshot) trace(ctx context.Context) (context.Context, trace.Span) {
	if !s.cfg.traced {
		return ctx, noop.Span{}
	}
	return s.cfg.Tracer.Start(ctx, SnapshotArgs{}.Kind(), trace.WithNewRoot(), trace.WithSpanKind(trace.SpanKindConsumer), trace.WithAttributes(
		span.Peer.String(s.peer), span.Reason.String(string(s.row.Reason))))
}

func (s *snapshot) endTrace(of trace.Span, err error) {
	if of.IsRecording() {
		of.SetAttributes(span.Phase.String(string(s.row.Phase)), span.Pushed.Int64(s.row.Pushed))
		if err != nil {
			span.Fail(of, "interrupted")
		}
	}
	of.End()
}
