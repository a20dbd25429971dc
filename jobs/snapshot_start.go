package jobs

import (
	"context"
	"errors"
	"fmt"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgxpool"

	"quorumbox/outbox"
)

// SnapshotReason is why a peer is brought the current state.
type SnapshotReason string

const (
	// SnapshotNew is for one that is configured for the first time, and others have been written to before.
	SnapshotNew SnapshotReason = "new"
	// SnapshotOverdue is for one that was away for so long that the log is not kept for it.
	SnapshotOverdue SnapshotReason = "overdue"
	// SnapshotAsked is for one of which an operator wants it.
	SnapshotAsked SnapshotReason = "asked"
)

// SwitchToSnapshot lets a peer be brought the store's current state and then follow the log from here, wherever it stands: what it misses
// of the log is not kept for it any more. One that is being brought the state already begins again. The sweeper gives it a job within a
// second or so; until the peer follows the log it acknowledges nothing. What it refused for good stays to be tried again.
//
// A fan-out or job that is pushing to the peer at this moment records nothing of what comes of that.
func SwitchToSnapshot(ctx context.Context, tx pgx.Tx, peer string, reason SnapshotReason) error {
	if err := outbox.LockLanes(ctx, tx, allLanes()); err != nil {
		return fmt.Errorf("snapshot for %s: %w", peer, err)
	}
	phase := phaseDeletions
	if reason == SnapshotNew {
		phase = phaseArchived // it has nothing
	}
	for _, statement := range []struct {
		sql  string
		args []any
	}{
		// What was pushed before this may still arrive, and do harm to what is pushed after it: the first run waits for as long. There is
		// nothing of the kind if the peer was not pushed to for long, or nobody holds a lane of it, every batch of a lane in which it is in
		// step is decided, and no push is in doubt.
		{`
			insert into snapshots as s (peer, reason, phase, settled, doubt_until)
			select $1, $2, $3,
			       $2 = 'new' or exists (select from peers p where p.id = $1 and p.state = 'lost')
			           or not exists (select from lagging l where l.peer = $1 and l.holder is not null)
			           and not exists (
					select from batches b
					where b.verdict = 'pending' and not exists (select from lagging l where l.peer = $1 and l.lane = b.lane)
			           )
			           and not exists (select from repairs r where r.peer = $1 and greatest(r.due_at, r.again_at) > clock_timestamp()),
			       (select max(d.until) from doubts d where d.peer = $1)
			on conflict (peer) do update
			set reason = excluded.reason, phase = 'deletions', after_key = '', phase_at = clock_timestamp(),
			    settled = s.settled and s.holder is null and excluded.settled, doubt_until = greatest(s.doubt_until, excluded.doubt_until),
			    holder = null, leased_until = null, retry = null, not_before = now(), failures = 0, last_class = '', phase_pushed = 0, pushed = 0, total = null,
			    started_at = now()`, []any{peer, reason, phase}},
		{`delete from doubts where peer = $1`, []any{peer}},
		{`delete from repairs where peer = $1`, []any{peer}},
		// Parked: no fan-out finds the lanes near, no retry is due for them, and what depends on them in other lanes waits. An undecided
		// batch may or may not reach the peer: it is sent again.
		{`
			insert into lagging (peer, lane, cursor, pushed_to, not_before)
			select $1, l.lane, coalesce(case when b.verdict = 'pending' then b.number - 1 else b.number end, 0), coalesce(b.number, 0),
			       now() + interval '100 years'
			from unnest($2::smallint[]) l (lane)
			left join lateral (select b.number, b.verdict from batches b where b.lane = l.lane order by b.number desc limit 1) b on true
			on conflict (peer, lane) do update
			set cursor = excluded.cursor, pushed_to = excluded.pushed_to, not_before = excluded.not_before, holder = null, leased_until = null, retry = null,
			    failures = 0, last_class = '', since = now()`, []any{peer, allLanes()}},
	} {
		if _, err := tx.Exec(ctx, statement.sql, statement.args...); err != nil {
			return fmt.Errorf("snapshot for %s: %w", peer, err)
		}
	}
	return nil
}

func allLanes() []int16 {
	lanes := make([]int16, outbox.Lanes)
	for i := range lanes {
		lanes[i] = int16(i)
	}
	return lanes
}

// sweepSnapshots gives a job to the snapshots that have none, and ends the leases of those whose worker died: what it pushed may still
// arrive.
func (s *Sweeper) sweepSnapshots(ctx context.Context, tx pgx.Tx) error {
	rows, err := tx.Query(ctx, `
		with due as materialized (
			select peer, leased_until is not null as died
			from snapshots s
			where s.peer = any ($1)
			  and (s.leased_until < clock_timestamp() or s.leased_until is null and (s.retry is null or s.not_before < clock_timestamp() - $2::interval))
			  and not exists (
				select from river_job j
				where j.kind = 'snapshot' and j.state in ('available', 'pending', 'retryable', 'scheduled')
				  and j.args @> jsonb_build_object('peer', s.peer, 'retry', s.retry)
			)
			order by s.peer
			for update skip locked
		)
		update snapshots s
		set retry = nextval('tokens'), holder = null, leased_until = null,
		    doubt_until = greatest(s.doubt_until, case when d.died then clock_timestamp() + $3::interval end)
		from due d
		where s.peer = d.peer
		returning s.peer, s.retry, d.died`, s.cfg.Peers, overdue, s.cfg.Zombie)
	if err != nil {
		return fmt.Errorf("find snapshots: %w", err)
	}
	var (
		args SnapshotArgs
		died bool
		list []SnapshotArgs
	)
	_, err = pgx.ForEachRow(rows, []any{&args.Peer, &args.Retry, &died}, func() error {
		list = append(list, args)
		if died {
			s.cfg.Metrics.Takeover("snapshot")
		}
		return nil
	})
	if err != nil {
		return fmt.Errorf("find snapshots: %w", err)
	}
	for _, args := range list {
		if _, err := s.client.InsertTx(ctx, tx, args, nil); err != nil {
			return fmt.Errorf("insert snapshot: %w", err)
		}
	}
	return nil
}

// ErrPeerAway says that a peer is not configured, so that nothing can be brought to it. The error says what to do.
var ErrPeerAway = errors.New("the peer is not configured")

// ResyncPeer lets a peer be brought the current state because an operator asks for it. The peer must be configured: [ErrUnknownPeer], [ErrPeerAway].
func ResyncPeer(ctx context.Context, pool *pgxpool.Pool, id string) error {
	err := pgx.BeginFunc(ctx, pool, func(tx pgx.Tx) error {
		state, err := knownState(ctx, tx, id, "")
		if err != nil {
			return err
		}
		if state != "active" {
			return fmt.Errorf("%w: %s is %s: add it to the configuration and restart the workers; if the log was not kept for it, it is brought the current "+
				"state then", ErrPeerAway, id, state)
		}
		return SwitchToSnapshot(ctx, tx, id, SnapshotAsked)
	})
	if err != nil {
		return fmt.Errorf("resync peer %s: %w", id, err)
	}
	return nil
}
