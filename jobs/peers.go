package jobs

import (
	"context"
	"errors"
	"fmt"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"
	"github.com/jackc/pgx/v5/pgxpool"

	"quorumbox/outbox"
)

// RegisterPeers makes the configured peers known, by their ids. One that is new when others have been written to is brought the current
// state ([SnapshotNew]); before that it starts with what is written. One that is not configured any more becomes absent: where it stands is
// written down, so that it gets what it missed if it is configured again; if it is lost then, because the log was not kept for so long, it
// is brought the current state ([SnapshotOverdue]). All workers of a fleet should have the same peers; while they differ, those that are
// not common to all lag.
func RegisterPeers(ctx context.Context, pool *pgxpool.Pool, peers []string) error {
	for attempt := 1; ; attempt++ {
		err := registerPeers(ctx, pool, peers)
		if err == nil {
			return nil
		}
		// It locks all lanes while the fleet works, so that it can be the one that Postgres chooses to end a deadlock.
		if e, ok := errors.AsType[*pgconn.PgError](err); !ok || e.Code != deadlockDetected || attempt == registerAttempts {
			return fmt.Errorf("register peers: %w", err)
		}
	}
}

const (
	// deadlockDetected is Postgres' code for that.
	deadlockDetected = "40P01"

	// registerAttempts is how often a worker that starts tries to register its peers.
	registerAttempts = 5
)

func registerPeers(ctx context.Context, pool *pgxpool.Pool, peers []string) error {
	return pgx.BeginFunc(ctx, pool, func(tx pgx.Tx) error {
		// With the lanes locked no batch is dispatched between the look at their heads and the commit.
		if err := outbox.LockLanes(ctx, tx, allLanes()); err != nil {
			return err
		}
		if err := switchUnknown(ctx, tx, peers); err != nil {
			return err
		}
		_, err := tx.Exec(ctx, `update peers set state = 'active' where id = any ($1) and state in ('absent', 'lost')`, peers)
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
			on conflict (peer, lane) do nothing`, peers, allLanes())
		return err
	})
}

// switchUnknown inserts the peers that are new. They and those that are lost get a snapshot, unless nothing was ever dispatched: then the
// log has all.
func switchUnknown(ctx context.Context, tx pgx.Tx, peers []string) error {
	rows, err := tx.Query(ctx, `
		with lost as (
			select id from peers where id = any ($1) and state = 'lost'
		), added as (
			insert into peers (id) select unnest($1::text[]) on conflict (id) do nothing returning id
		)
		select id, 'overdue' from lost
		union all
		select id, 'new' from added where exists (select from batches)
		order by 1`, peers)
	if err != nil {
		return err
	}
	type switched struct {
		Peer   string
		Reason SnapshotReason
	}
	list, err := pgx.CollectRows(rows, pgx.RowToStructByPos[switched])
	if err != nil {
		return err
	}
	for _, s := range list {
		if err := SwitchToSnapshot(ctx, tx, s.Peer, s.Reason); err != nil {
			return err
		}
	}
	return nil
}
