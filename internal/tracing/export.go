package tracing

import (
	"context"
	"errors"
	"log/slog"
	"net/http"
	"sync/atomic"
	"time"

	sdktrace "go.opentelemetry.io/otel/sdk/trace"

	"quorumbox/internal/span"
)

// complainEvery is how often it is logged that spans cannot be exported. They are counted each time.
const complainEvery = time.Minute

// bounded drops spans that end while [QueueSize] wait, and counts them: the SDK's own queue would drop them in silence.
type bounded struct {
	sdktrace.SpanProcessor

	exporter *exporter
}

func (b *bounded) OnEnd(s sdktrace.ReadOnlySpan) {
	if !s.SpanContext().IsSampled() {
		return
	}
	if b.exporter.waiting.Add(1) > QueueSize {
		b.exporter.waiting.Add(-1)
		b.exporter.count(span.QueueFull, 1)
		return
	}
	b.SpanProcessor.OnEnd(s)
}

// exporter is an exporter whose failures end here. The SDK's handler of errors would print the answer's text.
type exporter struct {
	to      sdktrace.SpanExporter
	answers *lastStatus
	counter Counter
	logger  *slog.Logger
	waiting atomic.Int64

	stopped context.Context //nolint:containedctx // ends with the provider's last moment, whatever request is under way
	abort   context.CancelFunc

	complained time.Time // belongs to the goroutine that exports, as does down
	down       bool
}

// ExportSpans sends spans, once: those that cannot be sent are dropped. It always returns nil.
func (e *exporter) ExportSpans(ctx context.Context, spans []sdktrace.ReadOnlySpan) error {
	defer e.waiting.Add(-int64(len(spans)))
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	defer context.AfterFunc(e.stopped, cancel)()
	e.answers.reset()
	err := e.to.ExportSpans(ctx, spans)
	if err == nil {
		e.count(span.Exported, len(spans))
		if e.down {
			e.down, e.complained = false, time.Time{}
			e.logger.InfoContext(ctx, "traces are exported again")
		}
		return nil
	}
	e.count(span.Failed, len(spans))
	e.down = true
	if now := time.Now(); now.Sub(e.complained) >= complainEvery {
		e.complained = now
		e.logger.WarnContext(ctx, "traces not exported, their spans are dropped",
			slog.String("reason", reason(ctx, err, e.answers.status.Load())), slog.Int64("status", e.answers.status.Load()), slog.Int("spans", len(spans)))
	}
	return nil
}

// Shutdown ends the exporter below.
func (e *exporter) Shutdown(ctx context.Context) error { return e.to.Shutdown(ctx) }

func (e *exporter) count(r span.Result, n int) {
	if e.counter != nil {
		e.counter.Spans(string(r), n)
	}
}

// reason is why spans could not be exported, in words of ours: the error's text may hold what the receiver answered.
func reason(ctx context.Context, err error, status int64) string {
	switch {
	case status >= http.StatusOK && status < http.StatusMultipleChoices:
		return "the receiver refuses some spans"
	case status == http.StatusUnauthorized || status == http.StatusForbidden:
		return "the receiver refuses the credentials: see tracing.headers_file"
	case status == http.StatusNotFound:
		return "the receiver has no such path: see tracing.endpoint"
	case status != 0:
		return "the receiver refuses the request"
	case ctx.Err() != nil || errors.Is(err, context.DeadlineExceeded):
		return "the receiver did not answer in time"
	default:
		return "the receiver cannot be reached: see tracing.endpoint and the certificate files"
	}
}

// lastStatus remembers the status of the last answer.
type lastStatus struct {
	next   http.RoundTripper
	status atomic.Int64
}

func (l *lastStatus) reset() { l.status.Store(0) }

func (l *lastStatus) RoundTrip(r *http.Request) (*http.Response, error) {
	resp, err := l.next.RoundTrip(r)
	if err != nil {
		l.reset()
		return nil, err
	}
	l.status.Store(int64(resp.StatusCode))
	return resp, nil
}
