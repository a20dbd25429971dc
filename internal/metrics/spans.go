package metrics

import (
	"github.com/prometheus/client_golang/prometheus/promauto"

	"quorumbox/internal/span"
)

func (m *Metrics) registerSpans(with promauto.Factory) {
	m.spans = newClosed(with, "quorumbox_spans_total",
		"Spans of sampled traces, by what became of them: exported, or dropped because too many were waiting or the receiver did not take them.",
		"result", string(span.Exported), string(span.QueueFull), string(span.Failed))
}

// Spans counts n spans by what became of them; see [span.Result].
func (m *Metrics) Spans(result string, n int) {
	if m == nil {
		return
	}
	counter, ok := m.spans.series[result]
	if !ok {
		counter = m.spans.vec.WithLabelValues(Other)
	}
	counter.Add(float64(max(n, 0)))
}
