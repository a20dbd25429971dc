package jobs

import (
	"context"
	"fmt"
	"slices"

	"github.com/jackc/pgx/v5"

	"quorumbox/internal/fault"
)

// ripeBatch is a batch that may be pruned.
type ripeBatch struct {
	Lane    int16
	Number  int64
	Entries []int64
}

// pruneLog deletes the oldest batches that nobody needs, and their entries, in one transaction.
func (p *Pruner) pruneLog(ctx context.Context) (done bool, err error) {
	found, err := p.ripe(ctx, p.pool, 1)
	if err != nil || len(found) == 0 {
		return true, err
	}
	var pruned []ripeBatch
	err = p.alone(ctx, func(tx pgx.Tx) error {
		var err error
		if pruned, err = p.ripe(ctx, tx, pruneBatches); err != nil || len(pruned) == 0 {
			return err
		}
		if err := pruneRows(ctx, tx, pruned); err != nil {
			return err
		}
		fault.Hit(fault.PruneChosen)
		return nil
	})
	if err != nil {
		return false, fmt.Errorf("log: %w", err)
	}
	if len(pruned) > 0 {
		fault.Hit(fault.PruneCommitted)
	}
	for _, b := range pruned {
		p.floors[b.Lane] = max(p.floors[b.Lane], b.Number)
	}
	return len(pruned) == 0, nil // none: another pruner is at it
}

// ripe returns the oldest batches that may go, of each lane a prefix, at most atMost of a lane, and no more than their first pruneEntries entries need. They
// were decided before the history, and neither they nor the batch after them is the last one that some peer has (the table lagging, whatever the
// peer's state), the last one before a push in doubt, or the lane's last decided one: a peer that misses the next batch gets a cursor there, and what it
// misses is the difference of two batches' positions.
// Everything that it looks at is of one snapshot, and what holds a batch back later, such as a refusal, was written before its peer got past the batch.
func (p *Pruner) ripe(ctx context.Context, db querier, atMost int) ([]ripeBatch, error) {
	lanes := make([]int16, len(p.floors))
	for i := range lanes {
		lanes[i] = int16(i)
	}
	rows, err := db.Query(ctx, `
		with held as materialized (
			select h.lane, min(h.number) as number
			from (select lane, cursor as number from lagging union all select lane, from_number from doubts) h
			group by h.lane
		), old as (
			select b.lane, b.number, b.entries, max(b.first_entry) over lane as front,
			       bool_and(b.decided_at < clock_timestamp() - $3::interval) over lane as ripe
			from unnest($1::smallint[], $2::bigint[]) f (lane, floor)
			left join held h on h.lane = f.lane
			cross join lateral (
				select d.number from batches d where d.lane = f.lane and d.verdict <> 'pending' order by d.number desc limit 1
			) newest
			cross join lateral (
				select b.lane, b.number, b.entries, b.first_entry, b.decided_at
				from batches b
				where b.lane = f.lane and b.number > f.floor and b.number < least(newest.number, h.number)
				order by b.number
				limit $4
			) b
			window lane as (partition by b.lane order by b.number)
		), sized as (
			select lane, number, entries, sum(cardinality(entries)) over (order by front, lane, number) - cardinality(entries) as before
			from old
			where ripe
		)
		select lane, number, entries from sized where before < $5`, lanes, p.floors[:], p.cfg.History, atMost, pruneEntries)
	if err != nil {
		return nil, fmt.Errorf("find old batches: %w", err)
	}
	list, err := pgx.CollectRows(rows, pgx.RowToStructByPos[ripeBatch])
	if err != nil {
		return nil, fmt.Errorf("find old batches: %w", err)
	}
	return list, nil
}

// pruneRows deletes batches and their entries. What is still needed of the entries is noted in the table kept.
func pruneRows(ctx context.Context, tx pgx.Tx, list []ripeBatch) error {
	lanes, numbers := make([]int16, len(list)), make([]int64, len(list))
	var entries []int64
	for i, b := range list {
		lanes[i], numbers[i] = b.Lane, b.Number
		entries = append(entries, b.Entries...)
	}
	needed, err := stillNeeded(ctx, tx, entries)
	if err != nil {
		return err
	}
	tag, err := tx.Exec(ctx, `
		delete from batches b
		using unnest($1::smallint[], $2::bigint[]) p (lane, number)
		where b.lane = p.lane and b.number = p.number`, lanes, numbers)
	if err != nil {
		return fmt.Errorf("delete batches: %w", err)
	}
	if tag.RowsAffected() != int64(len(list)) {
		return fmt.Errorf("delete batches: got %d, want %d", tag.RowsAffected(), len(list))
	}
	if len(needed) > 0 {
		if _, err := tx.Exec(ctx, `insert into kept (entry) select unnest($1::bigint[]) on conflict do nothing`, needed); err != nil {
			return fmt.Errorf("keep entries: %w", err)
		}
	}
	return deleteEntries(ctx, tx, without(entries, needed))
}

// pruneKept deletes kept entries that nobody needs any more.
func (p *Pruner) pruneKept(ctx context.Context) (done bool, err error) {
	done = true
	err = p.alone(ctx, func(tx pgx.Tx) error {
		rows, err := tx.Query(ctx, `select entry from kept`)
		if err != nil {
			return err
		}
		entries, err := pgx.CollectRows(rows, pgx.RowTo[int64])
		if err != nil || len(entries) == 0 {
			return err
		}
		needed, err := stillNeeded(ctx, tx, entries)
		if err != nil {
			return err
		}
		gone := without(entries, needed)
		if len(gone) > pruneEntries {
			gone, done = gone[:pruneEntries], false
		}
		if len(gone) == 0 {
			return nil
		}
		if _, err := tx.Exec(ctx, `delete from kept where entry = any ($1)`, gone); err != nil {
			return err
		}
		return deleteEntries(ctx, tx, gone)
	})
	if err != nil {
		return false, fmt.Errorf("kept entries: %w", err)
	}
	return done, nil
}

// deleteEntries deletes entries from the outbox, in the order of their ids, which is that of the table.
func deleteEntries(ctx context.Context, tx pgx.Tx, entries []int64) error {
	if _, err := tx.Exec(ctx, `delete from outbox where id = any ($1)`, entries); err != nil {
		return fmt.Errorf("delete entries: %w", err)
	}
	return nil
}

// without returns the entries that are not among others, in order.
func without(entries, others []int64) []int64 {
	entries, others = slices.Sorted(slices.Values(entries)), slices.Sorted(slices.Values(others))
	return slices.DeleteFunc(entries, func(id int64) bool {
		_, found := slices.BinarySearch(others, id)
		return found
	})
}
