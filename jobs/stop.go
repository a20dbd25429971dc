package jobs

import (
	"context"
	"fmt"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/riverqueue/river"
)

// leaveTime bounds what a job writes down that was cancelled: its worker is told to stop and has waited for it, or its time is over.
const leaveTime = time.Second

// leaving returns a context for that, which the end of ctx does not end.
func leaving(ctx context.Context) (context.Context, context.CancelFunc) {
	return context.WithTimeout(context.WithoutCancel(ctx), leaveTime)
}

// handBack gives back every lane of lagging that token holds, so that another worker goes on at once instead of when the lease runs out. What token may
// have pushed beyond the cursors may still arrive, and is in doubt from here on, by the same transaction. Nobody may push for token any more.
func (s *store) handBack(ctx context.Context, token int64) error {
	err := pgx.BeginFunc(ctx, s.pool, func(tx pgx.Tx) error {
		if err := s.doubtHeld(ctx, tx, token); err != nil {
			return err
		}
		rows, err := tx.Query(ctx, `
			with held as materialized (
				select peer, lane, retry is null as orphan
				from lagging
				where holder = $1
				order by peer, lane
				for update
			), freed as (
				update lagging l
				set holder = null, leased_until = null, not_before = clock_timestamp(), retry = coalesce(l.retry, nextval('tokens'))
				from held h
				where l.peer = h.peer and l.lane = h.lane
				returning l.peer, l.lane, l.retry, h.orphan
			)
			select peer, lane, retry from freed where orphan`, token)
		if err != nil {
			return err
		}
		retries, err := collectRetries(rows)
		if err != nil {
			return err
		}
		return insertRetries(ctx, river.ClientFromContext[pgx.Tx](ctx), tx, retries)
	})
	if err != nil {
		return fmt.Errorf("hand lanes back: %w", err)
	}
	return nil
}
