package jobs

import (
	"context"
	"fmt"
	"maps"
	"slices"

	"github.com/jackc/pgx/v5"
)

// load reads what the store has of the subjects, but for those about which the log has something that the peer does not have yet: they are left for
// later. Otherwise the log would go on from before the state that the peer has: an archive, say, would take along the memory's next life. The lanes of the memories that come along
// are taken, too, before the state is read: what another repair or the log does to them must not come in between. Where one of them is somebody else's, what they come along
// with is left for later.
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
		var taken, all bool
		if err == nil {
			taken, all, err = r.holdGuests(ctx)
		}
		if err == nil && all && !taken && len(ahead) == 0 {
			err = r.noteGuests(ctx)
		}
		switch {
		case err != nil:
			return fmt.Errorf("repair %s: %w", r.at, err)
		case !all:
			r.leave(map[string]bool{}, withGuests)
		case taken: // what was read may have changed before
		case len(ahead) == 0:
			return nil
		default:
			r.leave(ahead, slices.ContainsFunc(r.state.guests, func(id string) bool { return ahead[id] }))
		}
	}
}

// holdGuests takes the lanes of the memories that come along, as far as the run does not hold them. taken says that it got some, all that it holds each of them now.
func (r *repair) holdGuests(ctx context.Context) (taken, all bool, err error) {
	held, want := map[int16]bool{}, map[int16]bool{}
	for _, h := range r.holds {
		held[h.Lane] = true
	}
	for _, m := range r.state.memories {
		if slices.Contains(r.state.guests, m.id) && !held[m.lane] {
			want[m.lane] = true
		}
	}
	if len(want) == 0 {
		return false, true, nil
	}
	var got []*hold
	err = pgx.BeginFunc(ctx, r.store.pool, func(tx pgx.Tx) error {
		for _, lane := range slices.Sorted(maps.Keys(want)) { // one order for all who lock lanes
			h, ok, err := r.store.takeLane(ctx, tx, peerLane{r.at.Peer, lane})
			if err != nil {
				return err
			}
			if ok {
				got = append(got, &h)
			}
		}
		return nil
	})
	if err != nil {
		return false, false, err
	}
	// All of them together may take what one lane may: the lease of the job's own is running.
	ctx, cancel := context.WithTimeout(ctx, decidedSoon)
	defer cancel()
	for _, h := range got {
		r.holds = append(r.holds, h)
		if err := r.store.awaitHead(ctx, h); err != nil {
			return false, false, err
		}
	}
	return len(got) > 0, len(got) == len(want), nil
}

// ahead returns the memories of the state of which the log has a life that the peer does not have yet.
func (r *repair) ahead(ctx context.Context, tx pgx.Tx) (map[string]bool, error) {
	lanes, cursors := make([]int16, len(r.holds)), make([]int64, len(r.holds))
	for i, h := range r.holds {
		lanes[i], cursors[i] = h.Lane, h.cursor
	}
	ids := make([]string, len(r.state.memories))
	for i, m := range r.state.memories {
		ids[i] = m.id
	}
	rows, err := tx.Query(ctx, `
		with coming as materialized (
			select o.kind, o.key, o.payload
			from (
				select unnest(b.entries) as id from unnest($1::smallint[], $2::bigint[]) h (lane, cursor) join batches b on b.lane = h.lane and b.number > h.cursor
				union all
				select u.entry from undispatched u where u.lane = any ($1)
			) e
			join outbox o on o.id = e.id
			where o.kind in ('store', 'delete', 'archive', 'restore', 'consolidate')
		)
		select c.key from coming c where c.key = any ($3)
		union
		select s ->> 'id' from coming c cross join lateral json_array_elements(c.payload -> 'sources') s
		where c.kind = 'consolidate' and s ->> 'id' = any ($3)`, lanes, cursors, ids)
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

// withGuests leaves the rows that others come along with.
const withGuests = true

// leave takes rows out of this run: those of memories that are ahead, and, if guests says so, those that others come along with.
func (r *repair) leave(ahead map[string]bool, guests bool) {
	before := len(r.rows)
	archived := map[string]bool{}
	for _, m := range r.state.memories {
		archived[m.id] = m.archived != nil
	}
	r.rows = slices.DeleteFunc(r.rows, func(row repairRow) bool {
		mine := row.Subject == aMemory && (ahead[row.Key] || guests && (len(row.Places) > 0 || archived[row.Key]))
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
