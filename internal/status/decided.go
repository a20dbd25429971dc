package status

import (
	"time"

	"github.com/jackc/pgx/v5"

	"quorumbox/outbox"
)

// Marks is, by lane, the number of the newest decided batch that somebody has seen. The zero value has seen nothing.
type Marks [outbox.Lanes]int64

// Decision is the verdict on one batch.
type Decision struct {
	Lane    int16
	Number  int64
	Entries int64
	Met     bool
	Reason  outbox.Reason // of one that is not met
	At      time.Time

	// Oldest and Newest are how long the first and the last entry of the batch took from being written to the verdict; nil where the entry was pruned.
	Oldest, Newest *Seconds
}

// queueDecided walks each lane from its newest batch back to the mark, so that no index on the time of the decision is needed, and what is read is what is new.
func (f *Fleet) queueDecided(b *pgx.Batch, marks Marks, limit int) {
	b.Queue(`
		select m.lane, d.number, cardinality(d.entries), d.verdict = 'met', d.reason, d.decided_at,
		       extract(epoch from d.decided_at - first.created_at), extract(epoch from d.decided_at - last.created_at)
		from unnest($1::bigint[]) with ordinality u (number, place)
		cross join lateral (select u.place::smallint - 1 as lane, u.number) m
		cross join lateral (
			select x.number, x.entries, x.first_entry, x.last_entry, x.verdict, x.reason, x.decided_at
			from batches x
			where x.lane = m.lane and x.number > m.number and x.verdict <> 'pending'
			order by x.number desc
			limit $2
		) d
		left join outbox first on first.id = d.first_entry
		left join outbox last on last.id = d.last_entry
		order by m.lane, d.number`, marks[:], limit).Query(func(rows pgx.Rows) error {
		var err error
		f.Decided, err = pgx.CollectRows(rows, pgx.RowToStructByPos[Decision])
		return err
	})
}
