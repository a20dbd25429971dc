package backlog

import (
	"slices"

	"github.com/prometheus/client_golang/prometheus"

	"quorumbox/internal/metrics"
	"quorumbox/internal/peer"
	"quorumbox/internal/status"
	"quorumbox/jobs"
)

// descs are what is shown, with their labels.
type descs struct {
	lag, oldest, lanes, failures, doubts, repairs *prometheus.Desc // peer
	state                                         *prometheus.Desc // peer, state
	refusals                                      *prometheus.Desc // peer, class
	snapshotAge, snapshotPushed, snapshotTotal    *prometheus.Desc // peer
	undispatched, undispatchedAge                 *prometheus.Desc
	undecided, undecidedAge                       *prometheus.Desc
	live, dead, bytes                             *prometheus.Desc // table
	jobs                                          *prometheus.Desc // kind, state
	oldestXmin                                    *prometheus.Desc
	unread                                        *prometheus.Desc
}

func newDescs() descs {
	desc := func(name, help string, labels ...string) *prometheus.Desc {
		return prometheus.NewDesc(name, help, labels, nil)
	}
	return descs{
		lag: desc("quorumbox_peer_lag_entries", "Dispatched entries that the peer misses.", "peer"),
		oldest: desc("quorumbox_peer_oldest_unacked_seconds",
			"Age of the oldest dispatched entry that the peer misses, 0 if none.", "peer"),
		lanes:    desc("quorumbox_peer_lanes_lagging", "Lanes of which the peer misses dispatched entries.", "peer"),
		failures: desc("quorumbox_peer_failures", "How often in a row a lagging peer, or its snapshot, has failed by now.", "peer"),
		doubts: desc("quorumbox_peer_doubts",
			"Pushes to the peer that may still be applied although nobody waits for their answer.", "peer"),
		repairs: desc("quorumbox_peer_repairs_waiting",
			"Memories, pending actions and namespaces of the peer that are to be written again; at least, from 100000.", "peer"),
		state: desc("quorumbox_peer_state",
			"1 for where the peer is, 0 for where it is not. A paused peer is not shown as lagging too.", "peer", "state"),
		snapshotAge: desc("quorumbox_snapshot_running_seconds",
			"How long the peer has been brought the current state by now, 0 if it is not.", "peer"),
		snapshotPushed: desc("quorumbox_snapshot_pushed", "What the peer was brought of the current state by now, 0 if it is not.", "peer"),
		snapshotTotal: desc("quorumbox_snapshot_size",
			"About how much the current state is that the peer is brought, 0 if it is not, or before that is known.", "peer"),
		refusals:     desc("quorumbox_refusals", "Entries that the peer refuses for good now; at least, from 100000.", "peer", "class"),
		undispatched: desc("quorumbox_undispatched_entries", "Entries that no batch names yet; at least, from 100000."),
		undispatchedAge: desc("quorumbox_undispatched_oldest_seconds",
			"Age of the oldest entry that no batch names yet, 0 if none."),
		undecided:    desc("quorumbox_batches_undecided", "Batches that are dispatched and have no verdict."),
		undecidedAge: desc("quorumbox_undecided_oldest_seconds", "Time since the oldest batch without a verdict was dispatched, 0 if none."),
		live:         desc("quorumbox_table_live_rows", "Rows of the table, as the server estimates.", "table"),
		dead:         desc("quorumbox_table_dead_rows", "Deleted or replaced rows of the table that are not cleaned yet, as the server estimates.", "table"),
		bytes:        desc("quorumbox_table_bytes", "Size of the table on the disk, with its indexes.", "table"),
		jobs: desc("quorumbox_river_jobs",
			"River jobs that are not completed; at least, where a state has 10000 of all kinds.", "kind", "state"),
		oldestXmin: desc("quorumbox_oldest_xmin_seconds",
			"Age of the oldest transaction that keeps deleted rows from being cleaned, 0 if none."),
		unread: desc("quorumbox_scrape_errors_total",
			"Readings of the database for metrics that failed. The gauges are missing meanwhile."),
	}
}

func (d descs) all() []*prometheus.Desc {
	return []*prometheus.Desc{
		d.lag, d.oldest, d.lanes, d.failures, d.doubts, d.repairs, d.state, d.refusals, d.snapshotAge, d.snapshotPushed, d.snapshotTotal,
		d.undispatched, d.undispatchedAge, d.undecided, d.undecidedAge, d.live, d.dead, d.bytes, d.jobs, d.oldestXmin, d.unread,
	}
}

// show leaves out the peers that are not configured: nobody is to catch them up.
func (c *Collector) show(ch chan<- prometheus.Metric, b status.Backlog) {
	gauge := gaugesTo(ch)
	gauge(c.undispatched, float64(b.Undispatched.Entries))
	gauge(c.undispatchedAge, float64(b.Undispatched.OldestAge))
	gauge(c.undecided, float64(b.Undecided.Batches))
	gauge(c.undecidedAge, float64(b.Undecided.OldestAge))
	gauge(c.oldestXmin, float64(b.OldestXmin))
	for _, t := range b.Tables {
		gauge(c.live, float64(t.Live), t.Name)
		gauge(c.dead, float64(t.Dead), t.Name)
		gauge(c.bytes, float64(t.Bytes), t.Name)
	}
	c.showJobs(gauge, b.Jobs)
	refused := refusals(b.Refusals)
	for _, p := range b.Peers {
		if gone(p.State) {
			continue
		}
		c.showPeer(gauge, p)
		for _, class := range peer.Classes() {
			if n, ok := refused[series{p.ID, string(class)}]; ok || class.Refusal() {
				gauge(c.refusals, float64(n), p.ID, string(class))
			}
		}
		if n, ok := refused[series{p.ID, metrics.Other}]; ok {
			gauge(c.refusals, float64(n), p.ID, metrics.Other)
		}
	}
}

// set shows one gauge.
type set func(d *prometheus.Desc, v float64, labels ...string)

func gaugesTo(ch chan<- prometheus.Metric) set {
	return func(d *prometheus.Desc, v float64, labels ...string) {
		ch <- metric(d, prometheus.GaugeValue, v, labels...)
	}
}

func (c *Collector) showPeer(gauge set, p status.Peer) {
	gauge(c.lag, float64(p.EntriesLagging), p.ID)
	gauge(c.oldest, float64(p.OldestAge), p.ID)
	gauge(c.lanes, float64(p.LanesLagging), p.ID)
	gauge(c.failures, float64(p.Failures), p.ID)
	gauge(c.doubts, float64(p.Doubts), p.ID)
	gauge(c.repairs, float64(p.Repairs), p.ID)
	var snapshot status.Snapshot
	if p.Snapshot != nil {
		snapshot = *p.Snapshot
	}
	gauge(c.snapshotAge, float64(snapshot.Running), p.ID)
	gauge(c.snapshotPushed, float64(snapshot.Pushed), p.ID)
	gauge(c.snapshotTotal, float64(snapshot.Total), p.ID)
	is := stateOf(p)
	for _, state := range States() {
		v := 0.0
		if state == is {
			v = 1
		}
		gauge(c.state, v, p.ID, state)
	}
}

// States are where a peer can be, each of them in one at a time.
func States() []string { return []string{"in_step", "lagging", "paused", "snapshot"} }

func stateOf(p status.Peer) string {
	switch {
	case p.Paused || p.State == "paused":
		return "paused"
	case p.Snapshot != nil:
		return "snapshot"
	case p.InStep:
		return "in_step"
	default:
		return "lagging"
	}
}

// showJobs shows 0 for the kinds and states of which there is no job. What this release does not know is one kind.
func (c *Collector) showJobs(gauge set, list []status.Jobs) {
	type series struct{ kind, state string }
	sums := map[series]int64{}
	for _, state := range status.JobStates() {
		for _, kind := range jobs.Kinds() {
			sums[series{kind, string(state)}] = 0
		}
	}
	for _, j := range list {
		kind := j.Kind
		if !slices.Contains(jobs.Kinds(), kind) {
			kind = metrics.Other
		}
		sums[series{kind, string(j.State)}] += j.Jobs
	}
	for s, n := range sums {
		gauge(c.jobs, float64(n), s.kind, s.state)
	}
}

// series names a series of the refusals.
type series struct{ peer, class string }

// refusals adds up what has the same labels: the classes that this release does not know are one.
func refusals(list []status.Refusals) map[series]int64 {
	sums := map[series]int64{}
	for _, r := range list {
		class := string(r.Class)
		if !slices.Contains(peer.Classes(), r.Class) {
			class = metrics.Other
		}
		sums[series{r.Peer, class}] += r.Entries
	}
	return sums
}

// metric makes a metric; one that cannot be made is an error of the scrape and does not keep the others from it.
func metric(d *prometheus.Desc, t prometheus.ValueType, v float64, labels ...string) prometheus.Metric {
	m, err := prometheus.NewConstMetric(d, t, v, labels...)
	if err != nil {
		return prometheus.NewInvalidMetric(d, err)
	}
	return m
}
