// Package dbpool shows how one process uses its connections to the database as Prometheus metrics.
package dbpool

import (
	"github.com/jackc/pgx/v5/pgxpool"
	"github.com/prometheus/client_golang/prometheus"
)

// Collector is a [prometheus.Collector]. It asks the pool, never the database. It is safe for concurrent use.
type Collector struct {
	pool *pgxpool.Pool

	connections, limit        *prometheus.Desc // connections: state
	acquires, waits, canceled *prometheus.Desc
	waited                    *prometheus.Desc
	opened                    *prometheus.Desc
}

// New returns a collector of the pool, which may be closed before it.
func New(pool *pgxpool.Pool) *Collector {
	desc := func(name, help string, labels ...string) *prometheus.Desc {
		return prometheus.NewDesc(name, help, labels, nil)
	}
	return &Collector{
		pool:        pool,
		connections: desc("quorumbox_db_pool_connections", "Connections of this worker to the database.", "state"),
		limit:       desc("quorumbox_db_pool_max_connections", "Setting database.max_conns: the most connections of this worker."),
		acquires:    desc("quorumbox_db_pool_acquires_total", "Times that a connection was taken from the pool."),
		waits:       desc("quorumbox_db_pool_waits_total", "Those of the times that had to wait, because no connection was idle."),
		waited:      desc("quorumbox_db_pool_wait_seconds_total", "How long they waited altogether."),
		canceled:    desc("quorumbox_db_pool_canceled_acquires_total", "Times that somebody gave up to wait for a connection."),
		opened:      desc("quorumbox_db_pool_opened_total", "Connections that were opened."),
	}
}

// Describe implements [prometheus.Collector].
func (c *Collector) Describe(ch chan<- *prometheus.Desc) {
	for _, d := range []*prometheus.Desc{c.connections, c.limit, c.acquires, c.waits, c.waited, c.canceled, c.opened} {
		ch <- d
	}
}

// Collect implements [prometheus.Collector].
func (c *Collector) Collect(ch chan<- prometheus.Metric) {
	s := c.pool.Stat()
	gauge := func(d *prometheus.Desc, v int32, labels ...string) {
		ch <- prometheus.MustNewConstMetric(d, prometheus.GaugeValue, float64(v), labels...)
	}
	counter := func(d *prometheus.Desc, v float64) {
		ch <- prometheus.MustNewConstMetric(d, prometheus.CounterValue, v)
	}
	gauge(c.connections, s.AcquiredConns(), "acquired")
	gauge(c.connections, s.IdleConns(), "idle")
	gauge(c.connections, s.ConstructingConns(), "opening")
	gauge(c.limit, s.MaxConns())
	counter(c.acquires, float64(s.AcquireCount()))
	counter(c.waits, float64(s.EmptyAcquireCount()))
	counter(c.waited, s.EmptyAcquireWaitTime().Seconds())
	counter(c.canceled, float64(s.CanceledAcquireCount()))
	counter(c.opened, float64(s.NewConnsCount()))
}
