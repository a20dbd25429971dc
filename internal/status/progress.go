package status

import (
	"context"
	"time"

	"github.com/jackc/pgx/v5"

	"quorumbox/jobs"
	"quorumbox/outbox"
)

// Limits say how long work may wait before it counts as standing still.
type Limits struct {
	Dispatch time.Duration // an entry, in a lane in which nothing has been dispatched meanwhile
	Decision time.Duration // a batch, from its dispatch to its verdict
}

// Progress is whether what is due is done. A lane that has nothing to do makes progress.
type Progress struct {
	FanOutPaused bool // an operator has paused the queue fan_out: nothing is decided, and that is no fault
	Undispatched bool // some lane has an entry that has waited for longer than the limit, and nothing of the lane was dispatched for as long
	Undecided    bool // some batch has had no verdict for longer than the limit
}

// ReadProgress returns whether replication moves, by the database's clock, in one round trip and a few index look-ups for each lane. [ErrNoSchema] where the
// tables are missing.
//
// A long queue is no standstill as long as it moves. A lane whose last batch is undecided waits for that, so it is counted there.
func ReadProgress(ctx context.Context, db DB, limits Limits) (Progress, error) {
	var (
		p Progress
		b pgx.Batch
	)
	b.Queue(`
		select exists (select from river_queue where name = $1 and paused_at is not null),
		       exists (
			select
			from generate_series(0, $2::smallint - 1) f (lane)
			cross join lateral (select u.entry from undispatched u where u.lane = f.lane order by u.entry limit 1) u
			join outbox o on o.id = u.entry
			left join lateral (
				select b.dispatched_at, b.verdict from batches b where b.lane = f.lane order by b.number desc limit 1
			) last on true
			where o.created_at < clock_timestamp() - $3::interval
			  and (last.verdict is null or last.verdict <> 'pending' and last.dispatched_at < clock_timestamp() - $3::interval)
		       ),
		       exists (select from batches where verdict = 'pending' and dispatched_at < clock_timestamp() - $4::interval)`,
		jobs.FanOutQueue, outbox.Lanes, limits.Dispatch, limits.Decision).QueryRow(func(row pgx.Row) error {
		return row.Scan(&p.FanOutPaused, &p.Undispatched, &p.Undecided)
	})
	if err := send(ctx, db, &b); err != nil {
		return Progress{}, err
	}
	return p, nil
}
