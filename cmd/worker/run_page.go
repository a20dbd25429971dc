package main

import (
	"cmp"
	"context"
	"log/slog"
	"net/http"
	"os"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgxpool"
	"github.com/riverqueue/river"

	"quorumbox/internal/heartbeat"
	"quorumbox/internal/page"
)

// newStatusPage is what the admin listener serves at "/".
func newStatusPage(pool *pgxpool.Pool, client *river.Client[pgx.Tx], logger *slog.Logger) http.Handler {
	return page.New(page.Config{Pool: pool, Client: client, Logger: logger})
}

// startHeartbeat lets the fleet's status pages see this worker until stop is called, which must be.
func (w *worker) startHeartbeat(ctx context.Context) (stop func()) {
	host, _ := os.Hostname() // for people only
	h := &heartbeat.Heart{Pool: w.pool, Logger: w.logger, ID: w.client.ID(), Host: cmp.Or(host, "unknown"), Version: version()}
	return h.Start(ctx)
}
