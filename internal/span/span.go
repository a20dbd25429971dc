// Package span begins the spans of a replication, and knows how a trace context is written down: in an outbox row, a River job and a push.
//
// It knows OpenTelemetry's API only. Who exports spans, if anybody does, is package tracing's business.
package span

import (
	"context"
	"slices"

	"go.opentelemetry.io/otel/attribute"
	"go.opentelemetry.io/otel/codes"
	"go.opentelemetry.io/otel/propagation"
	"go.opentelemetry.io/otel/trace"
	"go.opentelemetry.io/otel/trace/noop"
)

// Header is the name of the header, and of the key in a job's metadata, that carries a trace context.
const Header = "traceparent"

// Scope is the instrumentation scope of all spans.
const Scope = "quorumbox"

// MaxLinks bounds the links of a span: the writers' spans of the entries that it is about.
const MaxLinks = 32

// The keys of attributes. Their values are numbers, ids of configured peers and words of closed lists: never payloads, keys, namespaces, URLs
// or error texts.
const (
	Peer     = attribute.Key("quorumbox.peer")     // id
	Class    = attribute.Key("quorumbox.class")    // how a push ended: peer.Class
	Attempt  = attribute.Key("quorumbox.attempt")  // 1, or 2: the single retry of a push
	Entries  = attribute.Key("quorumbox.entries")  // how many
	Batches  = attribute.Key("quorumbox.batches")  // how many
	Bytes    = attribute.Key("quorumbox.bytes")    // of a push's body
	Lane     = attribute.Key("quorumbox.lane")     // 0 to 31
	Lanes    = attribute.Key("quorumbox.lanes")    // how many
	Batch    = attribute.Key("quorumbox.batch")    // number of a batch in its lane
	FanOut   = attribute.Key("quorumbox.fan_out")  // number of a fan-out
	Verdict  = attribute.Key("quorumbox.verdict")  // quorum.Verdict
	Reason   = attribute.Key("quorumbox.reason")   // quorum.Reason, or jobs.SnapshotReason
	Acked    = attribute.Key("quorumbox.acked")    // how many peers acknowledged
	Needed   = attribute.Key("quorumbox.needed")   // W
	Members  = attribute.Key("quorumbox.members")  // N
	Refused  = attribute.Key("quorumbox.refused")  // how many entries the peer refuses
	Subjects = attribute.Key("quorumbox.subjects") // how many things a repair is about
	Phase    = attribute.Key("quorumbox.phase")    // of a snapshot
	Pushed   = attribute.Key("quorumbox.pushed")   // items of a snapshot so far
	Status   = attribute.Key("http.response.status_code")
)

// Result is what became of a span of a sampled trace.
type Result string

// The results.
const (
	Exported  Result = "exported"   // the receiver has it
	QueueFull Result = "queue_full" // dropped: too many were waiting
	Failed    Result = "failed"     // dropped: the receiver could not be reached or refused it
)

// None returns a tracer whose spans are nothing.
func None() trace.Tracer { return noop.NewTracerProvider().Tracer(Scope) }

// Format returns the context of the span that ctx carries as a traceparent; empty if there is none.
func Format(ctx context.Context) string {
	sc := trace.SpanContextFromContext(ctx)
	if !sc.IsValid() {
		return ""
	}
	return "00-" + sc.TraceID().String() + "-" + sc.SpanID().String() + "-" + (sc.TraceFlags() & trace.FlagsSampled).String()
}

// Parse returns the context that a traceparent names. It is not valid if the traceparent is not.
func Parse(traceparent string) trace.SpanContext {
	if traceparent == "" {
		return trace.SpanContext{}
	}
	ctx := propagation.TraceContext{}.Extract(context.Background(), propagation.MapCarrier{Header: traceparent})
	return trace.SpanContextFromContext(ctx)
}

// Origins are the writers' contexts of the entries that a span is about. The zero value is that of none.
type Origins struct {
	without bool // some entry has no context
	first   string
	several bool     // there are others than first
	sampled []string // each once, at most MaxLinks
}

// Add adds the context of one entry; empty or invalid: it has none.
func (o *Origins) Add(traceparent string) {
	switch {
	case traceparent == "":
		o.without = true
		return
	case traceparent == o.first:
		return
	case len(o.sampled) == MaxLinks && o.several:
		return // nothing to learn from one more
	}
	sc := Parse(traceparent)
	if !sc.IsValid() {
		o.without = true
		return
	}
	if o.first == "" {
		o.first = traceparent
	} else {
		o.several = true
	}
	if sc.IsSampled() && len(o.sampled) < MaxLinks && !slices.Contains(o.sampled, traceparent) {
		o.sampled = append(o.sampled, traceparent)
	}
}

// Start begins a span for entries of the origins:
//   - all of one context: a child of that;
//   - of several, or not all with one: the first of a trace of its own, linked to those that are sampled. If all have one and none is sampled, it is not
//     either;
//   - of none: the first of a trace of its own, without links.
//
// The caller must end the span.
func (o *Origins) Start(ctx context.Context, tracer trace.Tracer, name string, opts ...trace.SpanStartOption) (context.Context, trace.Span) {
	if o.first != "" && !o.without && (!o.several || len(o.sampled) == 0) {
		return tracer.Start(trace.ContextWithRemoteSpanContext(ctx, Parse(o.first)), name, opts...)
	}
	opts = append(opts, trace.WithNewRoot())
	if len(o.sampled) > 0 {
		links := make([]trace.Link, len(o.sampled))
		for i, traceparent := range o.sampled {
			links[i] = trace.Link{SpanContext: Parse(traceparent)}
		}
		opts = append(opts, trace.WithLinks(links...))
	}
	return tracer.Start(ctx, name, opts...)
}

// Fail marks a span as failed. what is a word of a closed list, never an error's text.
func Fail(s trace.Span, what string) { s.SetStatus(codes.Error, what) }
