package metrics

import (
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/promauto"
)

func (m *Metrics) registerQuorum(with promauto.Factory) {
	counter := func(name, help string) prometheus.Counter {
		return with.NewCounter(prometheus.CounterOpts{Name: name, Help: help})
	}
	m.dropped = newClosed(with, "ai_memory_federation_fanout_dropped_total",
		"Acknowledgements that did not arrive after the verdict was known. The peer gets the entries by a peer retry.",
		"reason", "peer_fail", "id_drift", "join_error", "shutdown", "panic")
	m.partialQuorums = counter("ai_memory_federation_partial_quorum_total",
		"Batches whose quorum was met while some peer had not acknowledged.")
	m.idDrifts = counter("replication_id_drift_total", "Answers that acknowledged other ids than were sent. They are no acknowledgements.")
	m.acks = newClosed(with, "replication_quorum_ack_total", "Verdicts, one for each batch.", "result", "met", "not_met")
	m.failures = newClosed(with, "replication_quorum_failures_total", "Verdicts not_met, by reason.",
		"reason", "unreachable", "timeout", "id_drift", "refused")
	m.decided = counter("quorumbox_entries_decided_total", "Entries that have a verdict.")
	m.batchEntries = with.NewHistogram(prometheus.HistogramOpts{
		Name:    "quorumbox_batch_entries",
		Help:    "Entries of a decided batch.",
		Buckets: []float64{1, 2, 5, 10, 20, 50, 100, 200, 500, 1000},
	})
	m.verdicts = with.NewHistogram(prometheus.HistogramOpts{
		Name:    "quorumbox_dispatch_to_verdict_seconds",
		Help:    "How long a batch waited for its verdict after its dispatch.",
		Buckets: seconds(),
	})
	m.dispatches = with.NewHistogram(prometheus.HistogramOpts{
		Name:    "quorumbox_write_to_dispatch_seconds",
		Help:    "How long a decided entry had waited for its dispatch after its writer inserted it: the writer's commit and the relay's delay.",
		Buckets: waits(),
	})
	m.entries = map[string]prometheus.Observer{}
	m.entryVerdicts = with.NewHistogramVec(prometheus.HistogramOpts{
		Name:    "quorumbox_write_to_verdict_seconds",
		Help:    "How long it took from an entry's insert by its writer to its verdict. With met it is the time from the commit to the quorum.",
		Buckets: waits(),
	}, []string{"verdict"})
	for _, v := range []string{"met", "not_met"} {
		m.entries[v] = m.entryVerdicts.WithLabelValues(v)
	}
}

// waits are the buckets of durations that an outage of the workers or the database counts into.
func waits() []float64 { return append(seconds(), 300, 1800, 7200) }

// Dropped counts an acknowledgement that did not arrive after the verdict was known: peer_fail, id_drift, join_error, shutdown or panic.
func (m *Metrics) Dropped(reason string) {
	if m == nil {
		return
	}
	m.dropped.inc(reason)
}

// PartialQuorum counts a batch that met its quorum without the acknowledgement of every peer.
func (m *Metrics) PartialQuorum() {
	if m == nil {
		return
	}
	m.partialQuorums.Inc()
}

// IDDrift counts an answer whose ids disagree, wherever it came up.
func (m *Metrics) IDDrift() {
	if m == nil {
		return
	}
	m.idDrifts.Inc()
}

// QuorumAck counts a verdict: met or not_met.
func (m *Metrics) QuorumAck(result string) {
	if m == nil {
		return
	}
	m.acks.inc(result)
}

// QuorumFailure counts the reason of a verdict not_met: unreachable, timeout, id_drift or refused. Call it beside [Metrics.QuorumAck].
func (m *Metrics) QuorumFailure(reason string) {
	if m == nil {
		return
	}
	m.failures.inc(reason)
}

// Decided counts a batch that has its verdict, whichever: its entries, and the time since its dispatch, both by the database's clock.
// Negative ones count as 0.
func (m *Metrics) Decided(entries int, dispatchToVerdict time.Duration) {
	if m == nil {
		return
	}
	n := float64(max(entries, 0))
	m.decided.Add(n)
	m.batchEntries.Observe(n)
	m.verdicts.Observe(max(dispatchToVerdict, 0).Seconds())
}

// EntryDecided counts an entry of a batch that has its verdict, met or not_met: how long it was from its insert by the writer to the dispatch of its
// batch, and from there to the verdict, both by the database's clock. Negative ones count as 0. Call it beside [Metrics.Decided].
func (m *Metrics) EntryDecided(verdict string, writeToDispatch, dispatchToVerdict time.Duration) {
	if m == nil {
		return
	}
	waited := max(writeToDispatch, 0)
	m.dispatches.Observe(waited.Seconds())
	series, ok := m.entries[verdict]
	if !ok {
		series = m.entryVerdicts.WithLabelValues(Other)
	}
	series.Observe((waited + max(dispatchToVerdict, 0)).Seconds())
}
