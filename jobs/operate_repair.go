package jobs

import (
	"context"
	"fmt"
)

// SubjectKind says what a subject of a repair is.
type SubjectKind string

// The kinds of subjects.
const (
	SubjectMemory    SubjectKind = "memory"    // with its links, its place in the archive and the standards that it is
	SubjectPending   SubjectKind = "pending"   // a pending action
	SubjectNamespace SubjectKind = "namespace" // the standard of a namespace
)

// RepairMethod says how a peer's copy is brought to the store's state.
type RepairMethod string

// The methods of repairs.
const (
	// RepairStore writes what the store has: enough for what the peer does not have.
	RepairStore RepairMethod = "store"
	// RepairRenew deletes the peer's copy first, so that nothing of it is left.
	RepairRenew RepairMethod = "renew"
	// RepairDelete is RepairRenew for a memory that the store never had: the id counts as deleted from now on.
	RepairDelete RepairMethod = "delete"
)

// Subject is one thing of which a peer's copy is to be made equal to the store's.
type Subject struct {
	Kind SubjectKind
	// Key is the id, or the namespace of a standard.
	Key string
	// Namespace is where the peer has it. It matters only where the store does not know.
	Namespace string
	Method    RepairMethod
}

// EnqueueRepairs asks for the peer's copies of the subjects to be made equal to the store's, and returns how many repairs that are. The sweeper gives
// them jobs within a second or so. A repair that waits already stays, and becomes a renewal if either asks for one; one that is put off stays put off. The
// peer must be known to the database, and no subject may be named twice. Do it outside of transactions that last: it locks the rows.
func EnqueueRepairs(ctx context.Context, db Database, peer string, subjects []Subject) (n int64, err error) {
	if len(subjects) == 0 {
		return 0, nil
	}
	kinds, keys := make([]string, len(subjects)), make([]string, len(subjects))
	namespaces, methods := make([]string, len(subjects)), make([]string, len(subjects))
	for i, s := range subjects {
		kinds[i], keys[i], namespaces[i], methods[i] = string(s.Kind), s.Key, s.Namespace, string(s.Method)
	}
	// One statement: a memory that is to be deleted is known as deleted to whoever sees its repair. What the log knows, and no table of ours, belongs
	// to an application's own tables; its repair is by the log.
	tag, err := db.Exec(ctx, `
		with wanted as materialized (
			select w.kind, w.key, w.method,
			       coalesce(
				case w.kind
				when 'memory' then coalesce(
					(select outbox_lane(m.namespace) from memories m where m.id = w.key),
					(select t.lane from tombstones t where t.id = w.key),
					(select outbox_lane(a.namespace) from archived_memories a where a.id = w.key))
				when 'pending' then (select outbox_lane(p.namespace) from pending_actions p where p.id = w.key)
				when 'namespace' then outbox_lane(w.key)
				end,
				outbox_lane(w.namespace)) as lane
			from unnest($2::text[], $3::text[], $4::text[], $5::text[]) w (kind, key, namespace, method)
		), buried as (
			insert into tombstones (id, lane, entry)
			select w.key, w.lane, coalesce(outbox_newest(w.lane), 0)
			from wanted w
			where w.method = 'delete' and w.kind = 'memory'
			  and not exists (select from memories m where m.id = w.key)
			  and not exists (select from archived_memories a where a.id = w.key)
			  and not exists (select from outbox o where o.key = w.key and o.kind in ('store', 'consolidate', 'archive', 'restore'))
			on conflict (id) do nothing
		)
		insert into repairs as r (peer, subject, key, lane, method, reason)
		select $1, w.kind, w.key, w.lane, case w.method when 'delete' then 'renew' else w.method end, 'verify'
		from wanted w
		order by w.kind, w.key
		on conflict (peer, subject, key) do update set
			method = case when excluded.method = 'renew' then 'renew' else r.method end, lane = excluded.lane,
			due_at = greatest(r.due_at, clock_timestamp()) -- other than it was: one that is being done now is done again`,
		peer, kinds, keys, namespaces, methods)
	if err != nil {
		return 0, fmt.Errorf("enqueue repairs of %s: %w", peer, err)
	}
	return tag.RowsAffected(), nil
}
