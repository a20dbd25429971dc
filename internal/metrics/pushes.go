package metrics

import (
	"slices"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/promauto"
)

// Retry says which attempt of a push it was.
type Retry uint8

const (
	// FirstAttempt is the first request of a push.
	FirstAttempt Retry = iota
	// SecondAttempt is the one retry inside a push, after a failure.
	SecondAttempt
)

// Reuse says what an attempt was sent over.
type Reuse uint8

const (
	// NoConnection means that there was none: it could not be made, or the request was not put on the wire. No connection is counted.
	NoConnection Reuse = iota
	// NewConnection was made for the attempt.
	NewConnection
	// ReusedConnection had carried a request before.
	ReusedConnection
)

// The values of the label reused.
const (
	labelNew    = "false"
	labelReused = "true"
)

func (m *Metrics) registerPushes(with promauto.Factory) {
	counter := func(name, help string, labels ...string) *prometheus.CounterVec {
		return with.NewCounterVec(prometheus.CounterOpts{Name: name, Help: help}, labels)
	}
	m.attempts = counter("quorumbox_push_attempts_total", "HTTP requests to a peer, by what became of them.", "peer", "class")
	m.retries = counter("quorumbox_push_retries_total", "Those of the attempts that were the one retry inside a push.", "peer")
	m.durations = with.NewHistogramVec(prometheus.HistogramOpts{
		Name:    "quorumbox_push_duration_seconds",
		Help:    "How long one attempt took, whatever became of it.",
		Buckets: seconds(),
	}, []string{"peer"})
	m.succeeded = with.NewGaugeVec(prometheus.GaugeOpts{
		Name: "quorumbox_push_last_success_timestamp_seconds",
		Help: "When this worker last had an acknowledgement of the peer, in Unix time by the worker's clock; 0 if it had none.",
	}, []string{"peer"})
	m.connections = counter("quorumbox_push_connections_total",
		"Attempts that had a connection, by whether it had carried a request before.", "peer", "reused")
	m.catchUp = counter("quorumbox_catchup_entries_total", "Entries that a lagging peer acknowledged when it was caught up.", "peer")
	m.repairs = counter("quorumbox_repairs_total",
		"Memories, pending actions and namespaces of a peer that a push in doubt may have set back: they are written again.", "peer")
	m.refusals = counter("quorumbox_refusals_total", "Times that a peer refused an entry for good, by its answer.", "peer", "class")
	m.snapshots = counter("quorumbox_snapshots_total",
		"Times that a peer was begun to be brought the current state, because it was new, was overdue, or an operator asked for it.", "peer", "reason")
	m.retryOutcomes = newClosed(with, "ai_memory_federation_fanout_retry_total",
		"What became of the one retry inside a push, for every kind of entry.", "outcome", "ok", "fail", "id_drift")
	m.takeovers = newClosed(with, "quorumbox_takeovers_total",
		"Jobs that took over work whose holder's lease had run out.", "kind", "fan_out", "peer_retry", "snapshot")
}

// seconds are the buckets of durations: from a push within a machine to the longest timeout of a request.
func seconds() []float64 {
	return []float64{.001, .0025, .005, .01, .025, .05, .1, .25, .5, 1, 2.5, 5, 10, 30, 60}
}

// Attempt counts one request to a peer, or one that could not be sent, with its [quorumbox/internal/peer.Class]. A negative elapsed counts
// as 0.
func (m *Metrics) Attempt(peer, class string, retry Retry, elapsed time.Duration, reused Reuse) {
	if m == nil {
		return
	}
	peer = m.peer(peer)
	m.attempts.WithLabelValues(peer, m.class(class)).Inc()
	m.durations.WithLabelValues(peer).Observe(max(elapsed, 0).Seconds())
	if acknowledged(class) {
		m.succeeded.WithLabelValues(peer).SetToCurrentTime()
	}
	if retry == SecondAttempt {
		m.retries.WithLabelValues(peer).Inc()
	}
	switch reused {
	case NewConnection:
		m.connections.WithLabelValues(peer, labelNew).Inc()
	case ReusedConnection:
		m.connections.WithLabelValues(peer, labelReused).Inc()
	case NoConnection:
	default: // no connection that is known of
	}
}

// RetryDone counts the outcome of the one retry inside a push: ok, fail or id_drift. A push without a retry has none.
func (m *Metrics) RetryDone(outcome string) {
	if m == nil {
		return
	}
	m.retryOutcomes.inc(outcome)
}

// CaughtUp counts entries that a lagging peer acknowledged at last. A negative number counts as 0.
func (m *Metrics) CaughtUp(peer string, entries int) {
	if m == nil {
		return
	}
	m.catchUp.WithLabelValues(m.peer(peer)).Add(float64(max(entries, 0)))
}

// Repairs counts subjects that a push in doubt may have set back at a peer. A negative number counts as 0.
func (m *Metrics) Repairs(peer string, subjects int) {
	if m == nil {
		return
	}
	m.repairs.WithLabelValues(m.peer(peer)).Add(float64(max(subjects, 0)))
}

// snapshotReasons are why peers get a snapshot, as jobs.SnapshotReason has them.
func snapshotReasons() []string { return []string{"new", "overdue", "asked"} }

// Snapshot counts a snapshot that begins, by its reason: new, overdue or asked.
func (m *Metrics) Snapshot(peer, reason string) {
	if m == nil {
		return
	}
	if !slices.Contains(snapshotReasons(), reason) {
		reason = Other
	}
	m.snapshots.WithLabelValues(m.peer(peer), reason).Inc()
}

// Refusal counts an entry that a peer refused for good.
func (m *Metrics) Refusal(peer, class string) {
	if m == nil {
		return
	}
	m.refusals.WithLabelValues(m.peer(peer), m.class(class)).Inc()
}

// Takeover counts work that was taken over from a holder whose lease had run out: fan_out, peer_retry or snapshot.
func (m *Metrics) Takeover(kind string) {
	if m == nil {
		return
	}
	m.takeovers.inc(kind)
}
