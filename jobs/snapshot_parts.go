package jobs

import (
	"context"
	"fmt"
	"slices"
	"strings"

	"github.com/jackc/pgx/v5"

	"quorumbox/internal/peer"
)

// phase is what a snapshot pushes.
type phase string

// The phases, in their order. What the peer has of all ids that the store knows is deleted first, archived or live, and not part by part: a
// memory may have a title by now that the peer still has for another one, would be merged into that, and go when that is deleted. Archived
// memories come before the live ones, because each passes through its title.
const (
	phaseDeletions  phase = "deletions"
	phaseUnarchive  phase = "unarchive" // what the peer has archived is restored and deleted
	phaseArchived   phase = "archived"
	phaseMemories   phase = "memories"
	phaseLinks      phase = "links"
	phaseNamespaces phase = "namespaces"
	phasePendings   phase = "pendings"
	phaseChanges    phase = "changes" // what was written since the start: see loadChanges
	phaseEnd        phase = "end"     // waiting until that is dispatched, and letting the peer go
)

func (p phase) next() phase {
	all := []phase{
		phaseDeletions, phaseUnarchive, phaseArchived, phaseMemories, phaseLinks, phaseNamespaces, phasePendings, phaseChanges, phaseEnd,
	}
	return all[slices.Index(all, p)+1]
}

const (
	// snapshotIDs, snapshotRows and snapshotBytes bound a part: ids that are deleted, rows, and their contents.
	snapshotIDs   = 1000
	snapshotRows  = 500
	snapshotBytes = 1 << 20
)

// part is a part of a snapshot.
type part struct {
	items  []item
	state  *current          // in the phase changes, in place of items
	owners map[int64]subject // of the entries in items; see current.items
	count  int64             // of rows
	phase  phase             // that goes on
	after  string            // and from where
	lane   *advance          // in the phase changes: how far the lane's log is covered

	refused map[subject]peer.Class // what the peer refuses for good
	doubt   bool                   // a push of it may still arrive
}

// deliver pushes a part, and what follows from what the peer refuses of it.
func (s *snapshot) deliver(ctx context.Context, p *part) delivery {
	d := s.pushPart(ctx, p)
	for d.err == nil {
		refused := p.took(d)
		if len(refused) == 0 {
			break
		}
		more := p.of(refused)
		switch s.row.Phase {
		case phaseUnarchive:
			// Of several archived ones of one title only one can be restored at a time. What an id that the store does not know keeps from
			// that stays.
			if p.refused != nil && len(refused) >= len(p.refused) {
				return d
			}
			p.refused = refused
		case phaseArchived:
			// The copy that was to be archived must not stay.
			p.refused = refused
			more = slices.DeleteFunc(more, func(it item) bool { return it.list != deletions })
		case phaseDeletions, phaseMemories, phaseLinks, phaseNamespaces, phasePendings, phaseChanges, phaseEnd:
			p.refused = refused
			return d
		}
		doubt := d.inDoubt
		d = s.push(ctx, more)
		d.inDoubt = d.inDoubt || doubt
	}
	if s.row.Phase == phaseUnarchive {
		p.refused = nil
	}
	return d
}

// took notes what the peer made of a push of the part, and returns what it refuses.
func (p *part) took(d delivery) map[subject]peer.Class {
	p.doubt = p.doubt || d.inDoubt
	refused := map[subject]peer.Class{}
	for _, x := range d.refused {
		// A link is left out: it comes with the log, or with the repair of the end that is missing.
		if s, ok := p.owners[x.Entry]; ok {
			refused[s] = x.Class
		}
	}
	return refused
}

// of returns the items that are about the subjects.
func (p *part) of(subjects map[subject]peer.Class) []item {
	var list []item
	for _, it := range p.items {
		if _, ok := subjects[p.owners[it.entry.ID]]; ok {
			list = append(list, it)
		}
	}
	return list
}

// size bounds a part that pushes at most most rows: less and less while the peer refuses something and there was no time to find out what.
func (s *snapshot) size(most int) int {
	if s.row.LastClass.Refusal() || s.row.LastClass == peer.ClassQuota {
		return max(1, most>>min(s.row.Failures, 10))
	}
	return most
}

// load reads the next part, at one instant.
func (s *snapshot) load(ctx context.Context) (p *part, err error) {
	if s.row.Phase == phaseChanges {
		return s.loadChanges(ctx)
	}
	options := pgx.TxOptions{IsoLevel: pgx.RepeatableRead, AccessMode: pgx.ReadOnly}
	err = pgx.BeginTxFunc(ctx, s.store.pool, options, func(tx pgx.Tx) error {
		switch s.row.Phase {
		case phaseDeletions, phaseUnarchive:
			p, err = s.loadIDs(ctx, tx)
		case phaseArchived, phaseMemories:
			p, err = s.loadRows(ctx, tx)
		case phaseLinks, phaseNamespaces, phasePendings:
			p, err = s.loadUses(ctx, tx)
		case phaseChanges, phaseEnd:
		}
		return err
	})
	if err != nil {
		return nil, fmt.Errorf("load %s after %q: %w", s.row.Phase, s.row.After, err)
	}
	return p, nil
}

// partUpTo is a part that ends with the last of keys, of which there are at most most in one; if there are fewer the phase ends with it.
func (s *snapshot) partUpTo(keys []string, more bool) *part {
	p := &part{phase: s.row.Phase, count: int64(len(keys))}
	if !more {
		p.phase = p.phase.next()
		return p
	}
	p.after = keys[len(keys)-1]
	return p
}

// loadIDs is for what the peer may have of any id that the store knows.
func (s *snapshot) loadIDs(ctx context.Context, tx pgx.Tx) (*part, error) {
	most := s.size(snapshotIDs)
	rows, err := tx.Query(ctx, `
		select id::text
		from (
			(select id::text from memories where id > $1 order by id limit $2)
			union
			(select id::text from archived_memories where id > $1 order by id limit $2)
			union
			(select id::text from tombstones where id > $1 order by id limit $2)
		) known (id)
		order by id
		limit $2`, s.row.After, most)
	if err != nil {
		return nil, err
	}
	ids, err := pgx.CollectRows(rows, pgx.RowTo[string])
	if err != nil {
		return nil, err
	}
	p := s.partUpTo(ids, len(ids) == most)
	p.owners = map[int64]subject{}
	for i, id := range ids {
		p.owners[int64(i+1)] = subject{Kind: aMemory, Key: id, Method: renew}
		p.items = append(p.items, item{list: deletions, key: id, entry: entry{ID: int64(i + 1), Key: id}, touches: []string{touchID(id)}})
	}
	if s.row.Phase == phaseUnarchive {
		gone := p.items
		p.items = nil
		for _, it := range gone {
			it.list = restores
			p.items = append(p.items, it)
		}
		p.items = append(p.items, gone...)
	}
	return p, nil
}

// loadRows is for memories, archived ones or live ones.
func (s *snapshot) loadRows(ctx context.Context, tx pgx.Tx) (*part, error) {
	table := "memories"
	if s.row.Phase == phaseArchived {
		table = "archived_memories"
	}
	most := s.size(snapshotRows)
	rows, err := tx.Query(ctx, `
		select id::text
		from (
			select id, sum(octet_length(content)) over (order by id rows unbounded preceding) - octet_length(content) as before
			from `+table+`
			where id > $1
			order by id
			limit $2
		) m
		where before < $3
		order by id`, s.row.After, most, snapshotBytes)
	if err != nil {
		return nil, err
	}
	ids, err := pgx.CollectRows(rows, pgx.RowTo[string])
	if err != nil {
		return nil, err
	}
	p := s.partUpTo(ids, len(ids) > 0)
	c := newCurrent()
	if err := c.loadMemories(ctx, tx, ids); err != nil {
		return nil, err
	}
	clear(c.renewed) // the peer has nothing of them
	for _, m := range c.memories {
		if s.row.Phase == phaseArchived {
			m.live, m.embedding = nil, nil // it comes later
		} else {
			m.archived = nil // it has come already
		}
	}
	p.items, p.owners = c.items()
	return p, nil
}

// loadUses is for links, namespaces' standards or pending actions.
func (s *snapshot) loadUses(ctx context.Context, tx pgx.Tx) (*part, error) {
	most := s.size(snapshotIDs)
	c := newCurrent()
	list, sql, args := &c.pendings, pendingsAfter, []any{most, s.row.After}
	switch s.row.Phase {
	case phaseLinks:
		list, sql, args = &c.links, linksAfter, []any{most}
		for _, field := range strings.SplitN(s.row.After+"  ", " ", 4)[:3] { // as linksAfter makes it; of no link at the beginning
			args = append(args, field)
		}
	case phaseNamespaces:
		list, sql = &c.standards, standardsAfter
	case phasePendings, phaseDeletions, phaseUnarchive, phaseArchived, phaseMemories, phaseChanges, phaseEnd:
	}
	uses, err := queryUses(ctx, tx, sql, args...)
	if err != nil {
		return nil, err
	}
	*list = uses
	keys := make([]string, len(uses))
	for i, u := range uses {
		keys[i] = u.Key
	}
	p := s.partUpTo(keys, len(uses) == most)
	p.items, p.owners = c.items()
	return p, nil
}

// What comes after a key. That of a link is its ends and its relation, none of which has a blank in it.
const (
	linksAfter = `
		select l.source_id || ' ' || l.target_id || ' ' || l.relation, l.source_id, l.target_id, link_json(l)::text
		from memory_links l
		where (l.source_id, l.target_id, l.relation) > ($2, $3, $4)
		order by l.source_id, l.target_id, l.relation
		limit $1`
	standardsAfter = `
		select n.namespace, n.standard_id, '', namespace_json(n)::text
		from namespace_meta n
		where n.namespace > $2
		order by n.namespace
		limit $1`
	pendingsAfter = `
		select p.id, coalesce(p.memory_id, ''), '', pending_json(p)::text
		from pending_actions p
		where p.id > $2
		order by p.id
		limit $1`
)

// record writes down how far the snapshot has come, and what the peer refuses of it.
func (s *snapshot) record(ctx context.Context, p *part) error {
	err := pgx.BeginFunc(ctx, s.store.pool, func(tx pgx.Tx) error {
		row := tx.QueryRow(ctx, `
			update snapshots s
			set phase = $3, after_key = $4, pushed = pushed + $5, failures = 0, last_class = '', leased_until = clock_timestamp() + $8::interval,
			    phase_at = case when phase = $3 then phase_at else clock_timestamp() end,
			    phase_pushed = case when phase = $3 then phase_pushed + $5 else 0 end,
			    doubt_until = greatest(doubt_until, case when $6 then clock_timestamp() + $7::interval end)
			where peer = $1 and holder = $2 and leased_until > clock_timestamp()
			returning `+snapshotColumns, s.peer, s.token, string(p.phase), p.after, p.count, p.doubt, s.cfg.Zombie, retryLease)
		if err := s.scan(row); err != nil {
			return err
		}
		if p.lane != nil {
			_, err := tx.Exec(ctx, `
				update lagging set cursor = $3, pushed_to = greatest(pushed_to, $3) where peer = $1 and lane = $2 and retry is null and holder is null`,
				s.peer, p.lane.Lane, p.lane.Cursor)
			if err != nil {
				return err
			}
		}
		return s.recordRefused(ctx, tx, p.refused)
	})
	if err != nil {
		return fmt.Errorf("snapshot for %s: %w", s.peer, err)
	}
	return nil
}

// recordRefused makes repairs of what the peer refuses, to be tried when it follows the log, as slowly as an entry that is refused.
func (s *snapshot) recordRefused(ctx context.Context, tx pgx.Tx, refused map[subject]peer.Class) error {
	for what, class := range refused {
		_, err := tx.Exec(ctx, `
			insert into repairs (peer, subject, key, lane, method, reason, entry, due_at, attempts, class)
			select $1, $2, $3,
			       coalesce(
			           case $2 when 'namespace' then outbox_lane($3) when 'pending' then (select outbox_lane(p.namespace) from pending_actions p where p.id = $3)
			           else (select outbox_lane(m.namespace) from memories m where m.id = $3) end,
			           (select outbox_lane(a.namespace) from archived_memories a where a.id = $3), (select t.lane from tombstones t where t.id = $3), 0),
			       'renew', 'snapshot', $4, clock_timestamp() + $5::interval, 1, $6
			on conflict (peer, subject, key) do update set attempts = repairs.attempts + 1, class = excluded.class`,
			s.peer, string(what.Kind), what.Key, what.Entry, s.cfg.Redeliver.Delay(1, 0), string(class))
		if err != nil {
			return fmt.Errorf("note what is refused: %w", err)
		}
		s.cfg.Metrics.Refusal(s.peer, string(class))
	}
	return nil
}
