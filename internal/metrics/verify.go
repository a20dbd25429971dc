package metrics

import (
	"slices"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/promauto"
)

// verifyKinds are the values of the label kind: the kinds of differences, and what did not come to rest.
func verifyKinds() []string {
	return []string{
		"missing", "extra", "unknown", "differs", "not_archived", "archived", "link_missing", "link_extra", "standard", "standard_extra", "pending",
		"unsettled",
	}
}

func (m *Metrics) registerVerify(with promauto.Factory) {
	m.differences = with.NewCounterVec(prometheus.CounterOpts{
		Name: "quorumbox_verify_differences_total",
		Help: "Differences between a peer and the store that a comparison in the background found.",
	}, []string{"peer", "kind"})
	m.verified = with.NewGaugeVec(prometheus.GaugeOpts{
		Name: "quorumbox_verify_finished_timestamp_seconds",
		Help: "When the last comparison of the peer in the background was finished, in Unix time; 0 if this worker did none.",
	}, []string{"peer"})
}

// Verified counts what a finished comparison of a peer found, by kind.
func (m *Metrics) Verified(peer string, differences map[string]int64, finished time.Time) {
	if m == nil {
		return
	}
	peer = m.peer(peer)
	for kind, n := range differences {
		if !slices.Contains(verifyKinds(), kind) {
			kind = Other
		}
		m.differences.WithLabelValues(peer, kind).Add(float64(max(n, 0)))
	}
	m.verified.WithLabelValues(peer).Set(float64(finished.Unix()))
}
