package jobs

import (
	"context"
	"fmt"
	"time"

	"github.com/jackc/pgx/v5"

	"quorumbox/internal/fault"
)

// which says which subjects of entries are repaired.
type which bool

const (
	supersededOnly which = false // those that later entries touch, too
	allSubjects    which = true
)

// repairSubjects makes repairs of what entries touch, due at an instant of the database's clock (nil: now), and returns how many. What such entries did last stands if nothing came after them: a
// push of them that arrives late does that once more. Otherwise it may have undone what came later:
//
//   - a store or a delete, of the title that the memory has, is put right by writing what is there now;
//   - anything else (another title, archives, restores, consolidations, a link of a memory that has ended since) by renewing it.
//
// The titles that a memory was to have go with its repair: see repairs.places.
func repairSubjects(ctx context.Context, tx pgx.Tx, p string, entries []int64, of which, due *time.Time) (int64, error) {
	tag, err := tx.Exec(ctx, `
		with e as materialized (
			select o.id, o.lane, o.namespace, o.kind, o.key, o.payload from outbox o where o.id = any ($2)
		), touched (entry, lane, subject, key, kind, namespace, title) as materialized (
			select e.id, e.lane, 'memory', e.key::text, e.kind::text, e.namespace::text,
			       case when e.kind = 'consolidate' then e.payload -> 'memory' ->> 'title' else e.payload ->> 'title' end
			from e where e.kind in ('store', 'delete', 'archive', 'restore', 'consolidate')
			union all
			select e.id, e.lane, 'memory', s ->> 'id', 'source', s ->> 'namespace', s ->> 'title'
			from e cross join lateral json_array_elements(e.payload -> 'sources') s where e.kind = 'consolidate'
			union all
			select e.id, e.lane, 'memory', l.id, 'link', '', ''
			from e cross join lateral (values (e.payload ->> 'source_id'), (e.payload ->> 'target_id')) l (id) where e.kind = 'link'
			union all
			select e.id, e.lane, 'pending', e.key, e.kind, e.namespace, '' from e where e.kind in ('pending', 'decision')
			union all
			select e.id, e.lane, 'namespace', e.key, e.kind, e.namespace, '' from e where e.kind in ('namespace_set', 'namespace_clear')
		), later (subject, key, entry) as materialized (
			select k.subject, k.key, max(k.entry)
			from (
				select case when o.kind in ('pending', 'decision') then 'pending' when o.kind in ('namespace_set', 'namespace_clear') then 'namespace' else 'memory' end,
				       o.key, o.id
				from outbox o
				where o.id > (select min(e.id) from e) and o.kind <> 'link'
				union all
				select 'memory', s ->> 'id', o.id
				from outbox o cross join lateral json_array_elements(o.payload -> 'sources') s
				where o.id > (select min(e.id) from e) and o.kind = 'consolidate'
				union all -- a namespace's standard that has ended took the standard along
				select 'namespace', t.key, o.id
				from touched t
				join e on e.id = t.entry and e.kind = 'namespace_set'
				join outbox o on o.id > e.id and o.kind in ('delete', 'archive') and o.key = e.payload ->> 'standard_id'
			) k (subject, key, entry)
			where (k.subject, k.key) in (select t.subject, t.key from touched t)
			group by k.subject, k.key
		)
		insert into repairs (peer, subject, key, lane, method, reason, entry, places, due_at)
		select $1, t.subject, t.key, coalesce(outbox_lane(min(coalesce(m.namespace, a.namespace))), min(b.lane), min(t.lane)),
		       case when t.subject <> 'memory' or (min(a.id) is null and bool_and(t.kind = 'delete' or (t.kind = 'store'
		           and (m.id is null or (m.namespace = t.namespace and m.title = t.title))))) then 'store' else 'renew' end,
		       'doubt', min(t.entry),
		       coalesce(jsonb_agg(distinct jsonb_build_array(t.namespace, t.title)) filter (where t.subject = 'memory' and t.title <> ''), '[]'),
		       coalesce($4::timestamptz, clock_timestamp())
		from touched t
		left join memories m on t.subject = 'memory' and m.id = t.key
		left join archived_memories a on t.subject = 'memory' and a.id = t.key
		left join tombstones b on t.subject = 'memory' and b.id = t.key
		where $3 or exists (select from later n where n.subject = t.subject and n.key = t.key and n.entry > t.entry)
		group by t.subject, t.key
		order by t.subject, t.key
		on conflict (peer, subject, key) do update
		set method = case when 'renew' in (repairs.method, excluded.method) then 'renew' else 'store' end,
		    entry = least(repairs.entry, excluded.entry), lane = excluded.lane,
		    places = (select coalesce(jsonb_agg(distinct p), '[]') from jsonb_array_elements(repairs.places || excluded.places) p),
		    -- A repair that is being done now is due again: it may have read the state before.
		    due_at = case when $4::timestamptz is null then excluded.due_at else least(repairs.due_at, excluded.due_at) end,
		    -- One that waits to be done once more still has to be, then.
		    again_at = case when $4::timestamptz is null then greatest(repairs.again_at, case when repairs.due_at > clock_timestamp() then repairs.due_at end)
		        else greatest(repairs.again_at, excluded.due_at) end`,
		p, entries, bool(of), due)
	if err != nil {
		return 0, fmt.Errorf("make repairs for %s: %w", p, err)
	}
	return tag.RowsAffected(), nil
}

// sweepDoubts turns doubts that are over into repairs, and gives repairs that are due a job, one for each lane in which the peer is in step.
func (s *Sweeper) sweepDoubts(ctx context.Context, tx pgx.Tx) error {
	if err := dropDoubts(ctx, tx, s.cfg.Peers); err != nil {
		return err
	}
	for _, p := range s.cfg.Peers {
		n, err := resolveDoubts(ctx, tx, p)
		if err != nil {
			return err
		}
		if n > 0 {
			fault.Hit(fault.SweepDoubts)
		}
		s.cfg.Metrics.Repairs(p, int(n))
	}
	rows, err := tx.Query(ctx, `
		select w.peer, w.lane
		from (select distinct peer, lane from repairs where due_at <= clock_timestamp() and peer = any ($1)) w
		where not exists (select from lagging l where l.peer = w.peer and l.lane = w.lane)
			and not exists (select from lagging l where l.peer = w.peer and l.last_class = any ($3)) -- its retries find out when it is back
			and not exists (
				select from river_job j
				where j.kind = 'repair' and j.state in ('available', 'pending', 'retryable', 'scheduled')
				  and j.args @> jsonb_build_object('peer', w.peer, 'lane', w.lane)
			)
		limit $2`, s.cfg.Peers, sweepLimit, peerClasses())
	if err != nil {
		return fmt.Errorf("find repairs: %w", err)
	}
	due, err := pgx.CollectRows(rows, pgx.RowToStructByPos[RepairArgs])
	if err != nil {
		return fmt.Errorf("find repairs: %w", err)
	}
	for _, args := range due {
		if _, err := s.client.InsertTx(ctx, tx, args, nil); err != nil {
			return fmt.Errorf("insert repair: %w", err)
		}
		fault.Hit(fault.SweepRepair)
	}
	return nil
}
