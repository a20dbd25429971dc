// Package backlog shows what waits for dispatch, verdicts and peers as Prometheus metrics. The numbers are read from the database when
// somebody asks for them, so they are those of the whole fleet, and every worker shows the same.
package backlog

import (
	"context"
	"fmt"
	"log/slog"
	"slices"
	"sync/atomic"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgxpool"
	"github.com/prometheus/client_golang/prometheus"
	"golang.org/x/sync/singleflight"

	"quorumbox/internal/metrics"
	"quorumbox/internal/peer"
	"quorumbox/internal/status"
)

const (
	// StatementTimeout is how long the database may work on one of the statements.
	StatementTimeout = 2 * time.Second

	// ReadTimeout bounds a whole reading, with the wait for a connection. It is well below the 10 s after which Prometheus gives a scrape up.
	ReadTimeout = 4 * time.Second

	// Fresh is how long a reading, or the failure to get one, answers further scrapes.
	Fresh = 5 * time.Second
)

// gone reports whether a peer in this state is not configured any more.
func gone(state string) bool { return state == "absent" || state == "lost" }

// Read returns what waits.
type Read func(ctx context.Context) (status.Backlog, error)

// FromPool reads from the database, in a read-only transaction whose statements end after [StatementTimeout].
func FromPool(pool *pgxpool.Pool) Read {
	begin := pgx.TxOptions{BeginQuery: fmt.Sprintf("begin read only; set local statement_timeout = %d", StatementTimeout.Milliseconds())}
	return func(ctx context.Context) (status.Backlog, error) {
		var b status.Backlog
		err := pgx.BeginTxFunc(ctx, pool, begin, func(tx pgx.Tx) error {
			var err error
			b, err = status.ReadBacklog(ctx, tx)
			return err
		})
		return b, err
	}
}

// Collector is a [prometheus.Collector]. While the database cannot be read it shows nothing but the count of failed readings, so that the
// other metrics of a scrape are served and no old number passes for a new one. It is safe for concurrent use; scrapes at the same time
// share a reading.
type Collector struct {
	read   Read
	logger *slog.Logger

	latest   atomic.Pointer[reading] // nil: none yet
	flight   singleflight.Group
	failures atomic.Int64

	lag, oldest, lanes      *prometheus.Desc // peer
	refusals                *prometheus.Desc // peer, class
	undispatched, undecided *prometheus.Desc
	live, dead              *prometheus.Desc // table
	oldestXmin              *prometheus.Desc
	failed                  *prometheus.Desc
}

// reading is what was read, or err, and when.
type reading struct {
	at      time.Time
	backlog status.Backlog
	err     error
}

// New returns a collector that has read nothing yet. It logs readings that fail.
func New(read Read, logger *slog.Logger) *Collector {
	desc := func(name, help string, labels ...string) *prometheus.Desc {
		return prometheus.NewDesc(name, help, labels, nil)
	}
	return &Collector{
		read:   read,
		logger: logger,
		lag:    desc("quorumbox_peer_lag_entries", "Dispatched entries that the peer misses.", "peer"),
		oldest: desc("quorumbox_peer_oldest_unacked_seconds",
			"Age of the oldest dispatched entry that the peer misses, 0 if none.", "peer"),
		lanes:        desc("quorumbox_peer_lanes_lagging", "Lanes of which the peer misses dispatched entries.", "peer"),
		refusals:     desc("quorumbox_refusals", "Entries that the peer refuses for good now; at least, from 100000.", "peer", "class"),
		undispatched: desc("quorumbox_undispatched_entries", "Entries that no batch names yet; at least, from 100000."),
		undecided:    desc("quorumbox_batches_undecided", "Batches that are dispatched and have no verdict."),
		live:         desc("quorumbox_table_live_rows", "Rows of the table, as the server estimates.", "table"),
		dead:         desc("quorumbox_table_dead_rows", "Deleted or replaced rows of the table that are not cleaned yet, as the server estimates.", "table"),
		oldestXmin: desc("quorumbox_oldest_xmin_seconds",
			"Age of the oldest transaction that keeps deleted rows from being cleaned, 0 if none."),
		failed: desc("quorumbox_scrape_errors_total",
			"Readings of the database for metrics that failed. The gauges are missing meanwhile."),
	}
}

// Describe implements [prometheus.Collector].
func (c *Collector) Describe(ch chan<- *prometheus.Desc) {
	for _, d := range []*prometheus.Desc{
		c.lag, c.oldest, c.lanes, c.refusals, c.undispatched, c.undecided, c.live, c.dead, c.oldestXmin, c.failed,
	} {
		ch <- d
	}
}

// Collect implements [prometheus.Collector]. It takes up to [ReadTimeout].
func (c *Collector) Collect(ch chan<- prometheus.Metric) {
	if r := c.reading(); r.err == nil {
		c.show(ch, r.backlog)
	}
	ch <- metric(c.failed, prometheus.CounterValue, float64(c.failures.Load()))
}

// reading returns a reading that is [Fresh], a new one if need be.
func (c *Collector) reading() *reading {
	if r := c.latest.Load(); r != nil && time.Since(r.at) < Fresh {
		return r
	}
	_, _, _ = c.flight.Do("", func() (any, error) {
		// Prometheus hands no context to a collector, and the reading is for everybody who waits.
		ctx, cancel := context.WithTimeout(context.Background(), ReadTimeout)
		defer cancel()
		b, err := c.read(ctx)
		if err != nil {
			c.failures.Add(1)
			c.logger.WarnContext(ctx, "backlog not read for metrics", slog.String("error", err.Error()))
		}
		c.latest.Store(&reading{at: time.Now(), backlog: b, err: err})
		return nil, nil
	})
	return c.latest.Load()
}

// show leaves out the peers that are not configured: nobody is to catch them up.
func (c *Collector) show(ch chan<- prometheus.Metric, b status.Backlog) {
	gauge := func(d *prometheus.Desc, v float64, labels ...string) {
		ch <- metric(d, prometheus.GaugeValue, v, labels...)
	}
	gauge(c.undispatched, float64(b.Undispatched.Entries))
	gauge(c.undecided, float64(b.Undecided.Batches))
	gauge(c.oldestXmin, float64(b.OldestXmin))
	for _, t := range b.Tables {
		gauge(c.live, float64(t.Live), t.Name)
		gauge(c.dead, float64(t.Dead), t.Name)
	}
	refused := refusals(b.Refusals)
	for _, p := range b.Peers {
		if gone(p.State) {
			continue
		}
		gauge(c.lag, float64(p.EntriesLagging), p.ID)
		gauge(c.oldest, float64(p.OldestAge), p.ID)
		gauge(c.lanes, float64(p.LanesLagging), p.ID)
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
