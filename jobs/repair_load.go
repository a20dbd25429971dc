package jobs

import (
	"context"
	"fmt"
	"slices"

	"github.com/jackc/pgx/v5"
)

// load reads what the store has of the subjects, but for those about which the log has something that the peer does not have yet: they are left for
// later. Otherwise the log would go on from before the state that the peer has: an archive, say, would take along the memory's next life.
func (r *repair) load(ctx context.Context) error {
	for {
		subjects := make([]subject, len(r.rows))
		var places []slot
		for i, row := range r.rows {
			subjects[i] = row.subject()
			places = append(places, row.Places...)
		}
		var ahead map[string]bool
		options := pgx.TxOptions{IsoLevel: pgx.RepeatableRead, AccessMode: pgx.ReadOnly}
		err := pgx.BeginTxFunc(ctx, r.store.pool, options, func(tx pgx.Tx) (err error) {
			if r.state, err = loadCurrent(ctx, tx, subjects, places); err != nil {
				return err
			}
			ahead, err = r.ahead(ctx, tx)
			return err
		})
		if err == nil && len(ahead) == 0 {
			err = r.noteGuests(ctx)
		}
		if err != nil {
			return fmt.Errorf("repair %s: %w", r.at, err)
		}
		if len(ahead) == 0 {
			return nil
		}
		r.leave(ahead)
	}
}

// ahead returns the memories of the state of which the log has a life that the peer does not have yet.
func (r *repair) ahead(ctx context.Context, tx pgx.Tx) (map[string]bool, error) {
	ids := make([]string, len(r.state.memories))
	for i, m := range r.state.memories {
		ids[i] = m.id
	}
	rows, err := tx.Query(ctx, `
		with coming as materialized (
			select o.kind, o.key, o.payload
			from (
				select unnest(b.entries) as id from batches b where b.lane = $1 and b.number > $2
				union all
				select u.entry from undispatched u where u.lane = $1
			) e
			join outbox o on o.id = e.id
			where o.kind in ('store', 'delete', 'archive', 'restore', 'consolidate')
		)
		select c.key from coming c where c.key = any ($3)
		union
		select s ->> 'id' from coming c cross join lateral json_array_elements(c.payload -> 'sources') s
		where c.kind = 'consolidate' and s ->> 'id' = any ($3)`, r.at.Lane, r.hold.cursor, ids)
	if err != nil {
		return nil, fmt.Errorf("look for what comes: %w", err)
	}
	list, err := pgx.CollectRows(rows, pgx.RowTo[string])
	if err != nil {
		return nil, fmt.Errorf("look for what comes: %w", err)
	}
	ahead := map[string]bool{}
	for _, id := range list {
		ahead[id] = true
	}
	return ahead, nil
}

// leave takes rows out of this run: those of memories that are ahead, and, if one of those only came along, those that others come along with.
func (r *repair) leave(ahead map[string]bool) {
	before := len(r.rows)
	guest := slices.ContainsFunc(r.state.guests, func(id string) bool { return ahead[id] })
	archived := map[string]bool{}
	for _, m := range r.state.memories {
		archived[m.id] = m.archived != nil
	}
	r.rows = slices.DeleteFunc(r.rows, func(row repairRow) bool {
		mine := row.Subject == aMemory && (ahead[row.Key] || guest && (len(row.Places) > 0 || archived[row.Key]))
		if mine {
			r.left = append(r.left, row)
		}
		return mine
	})
	if len(r.rows) == before { // cannot be: whoever is ahead is a row, or came along with one
		r.rows, r.left = nil, append(r.left, r.rows...)
	}
}

// noteGuests writes down, before the first byte, that what is pushed of memories that only come along may arrive late: they are repaired when it cannot
// any more.
func (r *repair) noteGuests(ctx context.Context) error {
	if len(r.state.guests) == 0 {
		return nil
	}
	_, err := r.store.pool.Exec(ctx, `
		insert into repairs (peer, subject, key, lane, method, reason, due_at)
		select $1, 'memory', g.id, $2, 'renew', 'doubt', clock_timestamp() + $4::interval
		from unnest($3::text[]) g (id)
		order by g.id
		on conflict (peer, subject, key) do update set again_at = greatest(repairs.again_at, excluded.due_at)`,
		r.at.Peer, r.at.Lane, r.state.guests, r.cfg.JobTimeout+r.cfg.Zombie)
	return err
}
