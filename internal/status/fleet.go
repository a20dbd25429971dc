package status

import (
	"context"
	"time"

	"github.com/jackc/pgx/v5"

	"quorumbox/internal/peer"
)

// Fleet is what the status page shows: a [Report] without the verdicts and the summary, which follow from what was decided, and what is worth a look.
type Fleet struct {
	Report

	Lanes    []Lane         // that lag or wait for an answer, by peer and number
	Refusals []RefusalGroup // by peer and class, also of peers that are not configured
	Workers  []Worker       // by id
	Unknown  Leases         // what is leased to nobody that is seen to work: taken up this moment, or left by a worker that died
	Decided  []Decision     // what was decided since the marks, by lane and number

	// OldestXmin is that of [Backlog].
	OldestXmin Seconds
}

// Lane is where one peer stands in one lane in which it is not simply in step.
type Lane struct {
	Peer     string
	Number   int16
	Entries  int64   // dispatched ones that the peer misses; 0 while InFlight
	Age      Seconds // of the oldest of them
	InFlight bool    // a fan-out still waits for the peer's answer to the newest push
	Pushing  bool    // somebody is catching it up at this moment
	Failures int     // in a row
}

// RefusalGroup is what a peer refuses for good with one class of answer.
type RefusalGroup struct {
	Peer     string
	Class    peer.Class
	Entries  int64 // at least, where the peer has 100,000 of all classes
	FirstAge Seconds
	NextTry  Seconds // until the first of them is tried again, 0: due
}

// ReadFleet reads all of it in one round trip, as [Read] does. Each statement ends after timeout; what a connection waits for when it prepares them, the first time, ends
// with ctx. What was decided is read from behind the marks, at most
// limit batches a lane, the newest: a few index look-ups for each.
func ReadFleet(ctx context.Context, db DB, timeout time.Duration, marks Marks, limit int) (Fleet, error) {
	f := Fleet{Report: newReport()}
	var b pgx.Batch
	// Without a transaction block, the statements of one round trip are one transaction. To compile such a statement takes longer than to run it.
	b.Queue(`select set_config('statement_timeout', $1::int::text, true), set_config('jit', 'off', true)`, timeout.Milliseconds())
	f.queueClock(&b)
	f.queuePeers(&b)
	f.queueUndispatched(&b)
	f.queueUndecided(&b)
	f.queueLanes(&b)
	f.queueRefusals(&b)
	f.queueWorkers(&b)
	f.queueDecided(&b, marks, limit)
	queueOldestXmin(&b, &f.OldestXmin)
	if err := send(ctx, db, &b); err != nil {
		return Fleet{}, err
	}
	return f, nil
}

func (f *Fleet) queueLanes(b *pgx.Batch) {
	b.Queue(lagsQuery + `
		select peer, lane, case when in_flight then 0 else greatest(entries, 0) end, case when in_flight then 0 else coalesce(greatest(age, 0), 0) end,
		       in_flight, pushing, failures
		from lags
		where in_flight or entries > 0
		order by peer, lane`).Query(func(rows pgx.Rows) error {
		var err error
		f.Lanes, err = pgx.CollectRows(rows, pgx.RowToStructByPos[Lane])
		return err
	})
}

func (f *Fleet) queueRefusals(b *pgx.Batch) {
	b.Queue(`
		select p.id, f.class, count(*), extract(epoch from clock_timestamp() - min(f.first_at)),
		       greatest(extract(epoch from min(f.next_at) - clock_timestamp()), 0)
		from peers p
		cross join lateral (select r.class, r.first_at, r.next_at from refusals r where r.peer = p.id limit $1) f
		group by p.id, f.class
		order by p.id, f.class`, countLimit).Query(func(rows pgx.Rows) error {
		var err error
		f.Refusals, err = pgx.CollectRows(rows, pgx.RowToStructByPos[RefusalGroup])
		return err
	})
}
