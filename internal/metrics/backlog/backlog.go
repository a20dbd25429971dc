// Package backlog shows what waits for dispatch, verdicts and peers as Prometheus metrics. The numbers are read from the database when
// somebody asks for them, so they are those of the whole fleet, and every worker shows the same.
package backlog

import (
	"context"
	"fmt"
	"log/slog"
	"sync/atomic"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgxpool"
	"github.com/prometheus/client_golang/prometheus"
	"golang.org/x/sync/singleflight"

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

	latest atomic.Pointer[reading] // nil: none yet
	flight singleflight.Group
	failed atomic.Int64

	descs
}

// reading is what was read, or err, and when.
type reading struct {
	at      time.Time
	backlog status.Backlog
	err     error
}

// New returns a collector that has read nothing yet. It logs readings that fail.
func New(read Read, logger *slog.Logger) *Collector {
	return &Collector{read: read, logger: logger, descs: newDescs()}
}

// Describe implements [prometheus.Collector].
func (c *Collector) Describe(ch chan<- *prometheus.Desc) {
	for _, d := range c.all() {
		ch <- d
	}
}

// Collect implements [prometheus.Collector]. It takes up to [ReadTimeout].
func (c *Collector) Collect(ch chan<- prometheus.Metric) {
	if r := c.reading(); r.err == nil {
		c.show(ch, r.backlog)
	}
	ch <- metric(c.unread, prometheus.CounterValue, float64(c.failed.Load()))
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
			c.failed.Add(1)
			c.logger.WarnContext(ctx, "backlog not read for metrics", slog.String("error", err.Error()))
		}
		c.latest.Store(&reading{at: time.Now(), backlog: b, err: err})
		return nil, nil
	})
	return c.latest.Load()
}
