package main

import (
	"log/slog"

	"github.com/jackc/pgx/v5/pgxpool"

	"quorumbox/internal/config"
	"quorumbox/internal/metrics"
	"quorumbox/internal/metrics/backlog"
	"quorumbox/internal/metrics/dbpool"
)

// newMetrics returns the metrics of a worker, all of whose series are there from the start.
func newMetrics(pool *pgxpool.Pool, cfg config.Config, logger *slog.Logger) *metrics.Metrics {
	counts := metrics.New()
	counts.SetPeers(cfg.PeerIDs())
	counts.SetBuild(build(stamp))
	counts.SetLimits(metrics.Limits{
		BacklogEntries: cfg.Retention.BacklogEntries,
		BacklogAge:     cfg.Retention.BacklogAge,
	})
	counts.Registry().MustRegister(backlog.New(backlog.FromPool(pool), logger), dbpool.New(pool))
	return counts
}
