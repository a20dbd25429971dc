package peer

import (
	"context"

	"go.opentelemetry.io/otel/trace"

	"quorumbox/internal/span"
)

// traced begins the span of one attempt, in the trace that ctx carries. ctx is what the request must be made with, so that it names the span to the
// peer. Without a tracer ctx stays as it is and the span is nil.
func (c *Client) traced(ctx context.Context, req Request, which turn) (context.Context, trace.Span) {
	if c.tracer == nil {
		return ctx, nil
	}
	ctx, s := c.tracer.Start(ctx, "push", trace.WithSpanKind(trace.SpanKindClient))
	if s.IsRecording() {
		s.SetAttributes(span.Peer.String(c.id), span.Attempt.Int(int(which)+1), span.Entries.Int(req.Entries), span.Bytes.Int(len(req.Body)))
	}
	return ctx, s
}

// endTraced ends the span of an attempt. It holds how the attempt ended, and nothing that the peer sent.
func endTraced(s trace.Span, status int, e *Error) {
	if s == nil {
		return
	}
	if s.IsRecording() {
		class := ClassOK
		if e != nil {
			class = e.Class
			span.Fail(s, string(class))
		}
		s.SetAttributes(span.Class.String(string(class)))
		if status != 0 {
			s.SetAttributes(span.Status.Int(status))
		}
	}
	s.End()
}
