package jobs

import (
	"context"
	"fmt"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgxpool"

	"quorumbox/outbox"
)

// RegisterPeers makes the configured peers known, by their ids. A peer that is new starts with what is written from now on. One that is not
// configured any more becomes absent: where it stands is written down, so that it gets what it missed if it is configured again. All workers of
// a fleet should have the same peers; while they differ, those that are not common to all lag. A peer that is lost (its backlog passed a limit while
// it was absent, and nothing is kept for it any more) stays lost: it needs a snapshot before it is in step again.
func RegisterPeers(ctx context.Context, pool *pgxpool.Pool, peers []string) error {
	err := pgx.BeginFunc(ctx, pool, func(tx pgx.Tx) error {
		// With the lanes locked no batch is dispatched between the look at their heads and the commit.
		lanes := make([]int16, outbox.Lanes)
		for i := range lanes {
			lanes[i] = int16(i)
		}
		if err := outbox.LockLanes(ctx, tx, lanes); err != nil {
			return err
		}
		_, err := tx.Exec(ctx, `
			insert into peers (id)
			select unnest($1::text[])
			on conflict (id) do update set state = 'active' where peers.state = 'absent'`, peers)
		if err != nil {
			return err
		}
		// An undecided batch may or may not reach the peer: it is sent again.
		_, err = tx.Exec(ctx, `
			with gone as (
				update peers
				set state = 'absent'
				where id <> all ($1::text[]) and state not in ('absent', 'lost')
				returning id
			)
			insert into lagging (peer, lane, cursor, pushed_to)
			select gone.id, l.lane,
			       coalesce((select max(b.number) from batches b where b.lane = l.lane and b.verdict <> 'pending'), 0),
			       coalesce((select max(b.number) from batches b where b.lane = l.lane), 0)
			from gone
			cross join unnest($2::smallint[]) l (lane)
			on conflict (peer, lane) do nothing`, peers, lanes)
		return err
	})
	if err != nil {
		return fmt.Errorf("register peers: %w", err)
	}
	return nil
}
