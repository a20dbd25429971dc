package tracing

import (
	"fmt"
	"slices"

	sdktrace "go.opentelemetry.io/otel/sdk/trace"
	"go.opentelemetry.io/otel/trace"
)

// Sampler is the usual parent-based sampler: a span is kept if its parent is. A span without a parent that is linked to a kept one is kept, or the writers' traces would
// end wherever entries of several of them go in one batch; of the others ratio is the share that is kept, 0 to 1.
func Sampler(ratio float64) sdktrace.Sampler {
	return sdktrace.ParentBased(linked{sdktrace.TraceIDRatioBased(ratio)})
}

// linked keeps what is linked to a kept span.
type linked struct{ otherwise sdktrace.Sampler }

func (l linked) ShouldSample(p sdktrace.SamplingParameters) sdktrace.SamplingResult {
	if slices.ContainsFunc(p.Links, func(to trace.Link) bool { return to.SpanContext.IsSampled() }) {
		return sdktrace.SamplingResult{Decision: sdktrace.RecordAndSample, Tracestate: trace.SpanContextFromContext(p.ParentContext).TraceState()}
	}
	return l.otherwise.ShouldSample(p)
}

func (l linked) Description() string { return fmt.Sprintf("LinkedOr{%s}", l.otherwise.Description()) }
