package jobs

import (
	"context"
	"fmt"

	"github.com/jackc/pgx/v5"
)

// stillNeeded returns those of the entries, whose batches are pruned, that somebody may still read: one that a peer refuses; what supersedes it, without which a
// redelivery would bring back what was replaced or deleted since; what a repair takes the state of a thing from that is in no table of ours (of each thing
// the newest that is said, and of a pending action all); and one that a writer is just about to wait for. The entries' notes in memory_uses are deleted.
func stillNeeded(ctx context.Context, tx pgx.Tx, entries []int64) ([]int64, error) {
	var asked bool
	if err := tx.QueryRow(ctx, `select exists (select from refusals) or exists (select from repairs)`).Scan(&asked); err != nil {
		return nil, fmt.Errorf("look for what is needed: %w", err)
	}
	needed, err := stillUsed(ctx, tx, entries)
	if err != nil || !asked {
		return needed, err
	}
	return appendIDs(ctx, tx, needed, stillAsked, entries)
}

// stillAsked has the conditions of livedLater, endedLater, standardLater and pendingLater, and those of loadForeign and loadPendings, the other way round: for all
// refused entries and all repairs at once, which things (class, id) they are about, and which of the entries $1 say something of them later.
const stillAsked = `
	with entries as materialized (
		select o.id, o.kind, o.key, o.payload from outbox o where o.id = any ($1)
	), refused as materialized (
		select o.id, o.kind, o.key, o.payload from (select distinct entry from refusals) r join outbox o on o.id = r.entry
	), wanted as (
		select w.class, w.id, min(w.entry) as entry
		from (
			select t.class, t.id, r.id as entry
			from refused r
			cross join lateral (
				select 'life', r.key where r.kind in ('store', 'delete', 'archive', 'restore', 'consolidate')
				union all
				select 'life', s ->> 'id' from json_array_elements(case when r.kind = 'consolidate' then r.payload -> 'sources' end) s
				union all
				select 'end', e.id from (values (r.payload ->> 'source_id'), (r.payload ->> 'target_id')) e (id) where r.kind = 'link'
				union all
				select 'end', r.payload ->> 'standard_id' where r.kind = 'namespace_set'
				union all
				select 'standard', r.key where r.kind in ('namespace_set', 'namespace_clear')
				union all
				select 'pending', r.key where r.kind = 'pending'
			) t (class, id)
			union all
			select case p.subject when 'memory' then 'life' else p.subject end, p.key, p.entry - 1 from repairs p where p.subject in ('memory', 'pending')
		) w
		group by w.class, w.id
	), said as (
		select e.id as entry, t.class, t.id
		from entries e
		cross join lateral (
			select 'life', e.key where e.kind in ('store', 'delete', 'archive', 'restore', 'consolidate')
			union all
			select 'end', e.key where e.kind in ('delete', 'archive')
			union all
			select c.class, s ->> 'id'
			from json_array_elements(case when e.kind = 'consolidate' then e.payload -> 'sources' end) s
			cross join (values ('life'), ('end')) c (class)
			union all
			select 'standard', e.key where e.kind in ('namespace_set', 'namespace_clear')
			union all
			select 'pending', e.key where e.kind in ('pending', 'decision')
		) t (class, id)
	), since as (
		select s.entry, s.class, s.id from said s join wanted w using (class, id) where s.entry > w.entry
	)
	select entry from refusals where entry = any ($1)
	union
	select max(entry) from since where class <> 'pending' group by class, id
	union
	select entry from since where class = 'pending'`

func appendIDs(ctx context.Context, tx pgx.Tx, list []int64, query string, entries []int64) ([]int64, error) {
	rows, err := tx.Query(ctx, query, entries)
	if err != nil {
		return nil, fmt.Errorf("look for what is needed: %w", err)
	}
	list, err = pgx.AppendRows(list, rows, pgx.RowTo[int64])
	if err != nil {
		return nil, fmt.Errorf("look for what is needed: %w", err)
	}
	return list, nil
}

// stillUsed deletes the notes that the entries are the last ones that need a memory of another lane: every peer has them. It returns those entries whose note a
// writer has locked, and whose note would otherwise stay: a writer may hold several such rows, so it is never waited for.
func stillUsed(ctx context.Context, tx pgx.Tx, entries []int64) ([]int64, error) {
	used, err := appendIDs(ctx, tx, nil, `
		select o.id
		from outbox o
		join memory_uses u on u.memory_id = coalesce(o.payload ->> 'target_id', o.payload ->> 'standard_id') and u.lane = o.lane and u.entry = o.id
		where o.id = any ($1) and o.kind in ('link', 'namespace_set')`, entries)
	if err != nil || len(used) == 0 {
		return nil, err
	}
	deleted, err := appendIDs(ctx, tx, nil, `
		with free as (
			select u.memory_id, u.lane
			from outbox o
			join memory_uses u on u.memory_id = coalesce(o.payload ->> 'target_id', o.payload ->> 'standard_id') and u.lane = o.lane and u.entry = o.id
			where o.id = any ($1)
			for update of u skip locked
		)
		delete from memory_uses u using free f where u.memory_id = f.memory_id and u.lane = f.lane
		returning u.entry`, used)
	return without(used, deleted), err
}
