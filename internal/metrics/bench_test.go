package metrics_test

import (
	"testing"
	"time"

	"quorumbox/internal/metrics"
)

// What a fan-out of 100 entries and three peers counts in all: docs/metrics.md names the figure.
func BenchmarkFanOut(b *testing.B) {
	m := metrics.New()
	m.SetPeers([]string{"a", "b", "c"})
	b.ReportAllocs()
	for b.Loop() {
		for _, p := range []string{"a", "b", "c"} {
			m.Attempt(p, "ok", metrics.FirstAttempt, time.Millisecond, metrics.ReusedConnection)
		}
		m.Decided(100, time.Millisecond)
		m.QuorumAck("met")
		for range 100 {
			m.EntryDecided("met", time.Millisecond, time.Millisecond)
		}
	}
}
