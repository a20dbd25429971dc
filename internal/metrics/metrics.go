// Package metrics counts what the worker does, for Prometheus. What is waiting is read from the database instead: package backlog.
//
// Every label value is from a closed list or the id of a configured peer; anything else is counted as [Other]. So the number of series has
// a bound, and no error text, URL, key or payload can become a label. docs/metrics.md has all names.
package metrics

import (
	"sync/atomic"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/collectors"
	"github.com/prometheus/client_golang/prometheus/promauto"

	"quorumbox/internal/peer"
)

// Other is the label value of everything that is not in a label's list.
const Other = "other"

// Metrics counts. Make one with [New]. All methods are safe for concurrent use; those of a nil *Metrics do nothing.
type Metrics struct {
	registry *prometheus.Registry
	classes  map[string]bool
	peers    atomic.Pointer[map[string]bool]

	attempts    *prometheus.CounterVec   // peer, class
	retries     *prometheus.CounterVec   // peer
	durations   *prometheus.HistogramVec // peer
	succeeded   *prometheus.GaugeVec     // peer
	connections *prometheus.CounterVec   // peer, reused
	catchUp     *prometheus.CounterVec   // peer
	repairs     *prometheus.CounterVec   // peer
	refusals    *prometheus.CounterVec   // peer, class
	snapshots   *prometheus.CounterVec   // peer, reason

	differences *prometheus.CounterVec // peer, kind
	verified    *prometheus.GaugeVec   // peer

	retryOutcomes  closed
	dropped        closed
	acks           closed
	failures       closed
	takeovers      closed
	loginFailures  closed
	spans          closed
	partialQuorums prometheus.Counter
	idDrifts       prometheus.Counter

	decided      prometheus.Counter
	batchEntries prometheus.Histogram
	verdicts     prometheus.Histogram

	dispatches    prometheus.Histogram
	entries       map[string]prometheus.Observer // of entryVerdicts, by verdict
	entryVerdicts *prometheus.HistogramVec       // verdict

	build                      *prometheus.GaugeVec // version, revision, go_version
	backlogEntries, backlogAge prometheus.Gauge
}

// New returns metrics with a registry of their own, which also has those of the Go runtime and of the process. Series without a peer are
// there from the start, at 0; those of the peers from [Metrics.SetPeers] on.
func New() *Metrics {
	registry := prometheus.NewRegistry()
	registry.MustRegister(collectors.NewGoCollector(), collectors.NewProcessCollector(collectors.ProcessCollectorOpts{}))
	m := &Metrics{registry: registry, classes: map[string]bool{}}
	for _, c := range peer.Classes() {
		m.classes[string(c)] = true
	}
	m.peers.Store(new(map[string]bool))
	with := promauto.With(registry)
	m.registerPushes(with)
	m.registerQuorum(with)
	m.registerVerify(with)
	m.registerAdmin(with)
	m.registerInfo(with)
	m.registerSpans(with)
	return m
}

// Registry is where the metrics are gathered and further collectors are registered. It is nil if m is.
func (m *Metrics) Registry() *prometheus.Registry {
	if m == nil {
		return nil
	}
	return m.registry
}

// SetPeers says which peers are configured, by their ids, and starts their series at 0. Call it once, before the first push: until then all
// peers are [Other].
func (m *Metrics) SetPeers(ids []string) {
	if m == nil {
		return
	}
	known := make(map[string]bool, len(ids))
	for _, id := range ids {
		known[id] = true
		for _, c := range peer.Classes() {
			m.attempts.WithLabelValues(id, string(c))
			if c.Refusal() {
				m.refusals.WithLabelValues(id, string(c))
			}
		}
		m.retries.WithLabelValues(id)
		m.durations.WithLabelValues(id)
		m.succeeded.WithLabelValues(id)
		m.connections.WithLabelValues(id, labelNew)
		m.connections.WithLabelValues(id, labelReused)
		m.catchUp.WithLabelValues(id)
		m.verified.WithLabelValues(id)
		for _, kind := range verifyKinds() {
			m.differences.WithLabelValues(id, kind)
		}
		m.repairs.WithLabelValues(id)
		for _, reason := range snapshotReasons() {
			m.snapshots.WithLabelValues(id, reason)
		}
	}
	m.peers.Store(&known)
}

// peer returns id if it is configured, else [Other].
func (m *Metrics) peer(id string) string {
	if (*m.peers.Load())[id] {
		return id
	}
	return Other
}

// class returns c if it is one of [peer.Classes], else [Other].
func (m *Metrics) class(c string) string {
	if m.classes[c] {
		return c
	}
	return Other
}

func acknowledged(class string) bool { return class == string(peer.ClassOK) }

// closed is a counter with one label, whose values are a closed list.
type closed struct {
	vec    *prometheus.CounterVec
	series map[string]prometheus.Counter
}

func newClosed(with promauto.Factory, name, help, label string, values ...string) closed {
	c := closed{
		vec:    with.NewCounterVec(prometheus.CounterOpts{Name: name, Help: help}, []string{label}),
		series: make(map[string]prometheus.Counter, len(values)),
	}
	for _, v := range values {
		c.series[v] = c.vec.WithLabelValues(v)
	}
	return c
}

func (c closed) inc(value string) {
	counter, ok := c.series[value]
	if !ok {
		counter = c.vec.WithLabelValues(Other)
	}
	counter.Inc()
}
