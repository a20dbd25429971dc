// Package heartbeat lets a worker say that it is alive, in the table workers, for people who look at the fleet. Nothing else depends on it: work
// is taken over by leases.
package heartbeat

import (
	"context"
	"fmt"
	"log/slog"
	"sync"
	"time"

	"github.com/jackc/pgx/v5/pgxpool"
)

const (
	// Every is how often a worker says so.
	Every = 5 * time.Second

	// Silent is after how long without a sign a worker is taken for gone: three signs, and some time for a slow database.
	Silent = 18 * time.Second

	// Forget is after how long without a sign any other worker removes the row.
	Forget = time.Hour

	// statementTimeout bounds one sign, and the removal of the row.
	statementTimeout = 2 * time.Second
)

// Heart is one worker that says that it is alive. All fields must be set.
type Heart struct {
	Pool    *pgxpool.Pool
	Logger  *slog.Logger
	ID      string // of the worker's River client
	Host    string // cut at 255 bytes
	Version string // of the program, cut at 200 bytes
}

// Start says so at once and then every few seconds, until stop is called, which must be and which removes the row. A sign that fails, such as while the database is
// away, is left out; the first of several in a row is logged. The end of ctx changes nothing: a worker that stops is alive until it has stopped.
func (h *Heart) Start(ctx context.Context) (stop func()) {
	ctx, cancel := context.WithCancel(context.WithoutCancel(ctx))
	var beating sync.WaitGroup
	beating.Go(func() { h.beat(ctx) })
	return func() {
		cancel()
		beating.Wait()
		h.remove(context.WithoutCancel(ctx))
	}
}

func (h *Heart) beat(ctx context.Context) {
	ticker := time.NewTicker(Every)
	defer ticker.Stop()
	silent := false
	for {
		err := h.Beat(ctx)
		if err != nil && ctx.Err() == nil && !silent {
			h.Logger.WarnContext(ctx, "worker could not say that it is alive", slog.String("error", err.Error()))
		}
		silent = err != nil
		select {
		case <-ctx.Done():
			return
		case <-ticker.C:
		}
	}
}

// Beat says once that the worker is alive, and removes the workers that have not for [Forget].
func (h *Heart) Beat(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, statementTimeout)
	defer cancel()
	_, err := h.Pool.Exec(ctx, `
		with gone as (
			delete from workers where seen_at < clock_timestamp() - $4::interval and id <> $1
		)
		insert into workers (id, host, version) values ($1, $2, $3)
		on conflict (id) do update set seen_at = clock_timestamp()`, h.ID, cut(h.Host, 255), cut(h.Version, 200), Forget)
	if err != nil {
		return fmt.Errorf("heartbeat: %w", err)
	}
	return nil
}

func (h *Heart) remove(ctx context.Context) {
	ctx, cancel := context.WithTimeout(ctx, statementTimeout)
	defer cancel()
	if _, err := h.Pool.Exec(ctx, `delete from workers where id = $1`, h.ID); err != nil {
		h.Logger.WarnContext(ctx, "worker could not say that it has stopped: it is shown as silent for an hour", slog.String("error", err.Error()))
	}
}

// cut returns at most n bytes of s, and no part of a character.
func cut(s string, n int) string {
	if len(s) <= n {
		return s
	}
	for n > 0 && s[n]&0xC0 == 0x80 { // inside a character of UTF-8
		n--
	}
	return s[:n]
}
