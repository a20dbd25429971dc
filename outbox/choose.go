package outbox

import (
	"context"
	"fmt"
	"slices"

	"github.com/jackc/pgx/v5"
)

// candidate is an undispatched entry at the head of a free lane.
type candidate struct {
	Lane         int16
	Entry        int64
	Bytes        int
	AfterLanes   []int16
	AfterEntries []int64
	Namespace    string // empty where all namespaces have the same rule
}

const (
	// lookAlike is the look of a relay without rules; lookRules also reads each entry's namespace.
	lookAlike = lookColumns + `''` + lookFrom
	lookRules = lookColumns + `(select o.namespace from outbox o where o.id = u.entry)` + lookFrom

	lookColumns = `
		with pace as materialized (
			select $4 or count(distinct fan_out) < $3 as go from batches where verdict = 'pending'
		)
		select u.lane, u.entry, u.bytes, u.after_lanes, u.after_entries, (select go from pace), `
	lookFrom = `
		from (
			select f.lane
			from unnest($1::smallint[]) f (lane)
			where not exists (select from batches b where b.lane = f.lane and b.verdict = 'pending')
			offset 0 -- keep it apart: lanes that are not free must not be looked into
		) f
		cross join lateral (
			select u.lane, u.entry, u.bytes, u.after_lanes, u.after_entries
			from undispatched u
			where u.lane = f.lane
			order by u.entry
			limit $2
		) u
		limit (select case when go then $2 else 1 end from pace)`
)

// look returns the lowest visible undispatched entries of the lanes that have no undecided batch, lane by lane, as many as one fan-out
// may carry. While enough fan-outs are undecided and the entries were not held long enough, it only says whether there are any:
// dispatchable is false. Claim is by state: an entry with a smaller id that is committed later is simply found by a later look.
func (r *Relay) look(ctx context.Context, conn *pgx.Conn, held bool) (ready []candidate, dispatchable bool, err error) {
	lanes := make([]int16, Lanes)
	for i := range lanes {
		lanes[i] = int16((r.turn + i) % Lanes)
	}
	query := lookAlike
	if r.cfg.Rule != nil {
		query = lookRules
	}
	rows, err := conn.Query(ctx, query, lanes, r.cfg.MaxItems, r.cfg.InFlight, held)
	if err != nil {
		return nil, false, fmt.Errorf("outbox: relay: look: %w", err)
	}
	var c candidate
	columns := []any{&c.Lane, &c.Entry, &c.Bytes, &c.AfterLanes, &c.AfterEntries, &dispatchable, &c.Namespace}
	_, err = pgx.ForEachRow(rows, columns, func() error {
		ready = append(ready, c)
		return nil
	})
	if err != nil {
		return nil, false, fmt.Errorf("outbox: relay: look: %w", err)
	}
	return ready, dispatchable, nil
}

// chosen is what one fan-out takes along: entries in lane order, and for a lane whose batch must come after other lanes', which.
type chosen struct {
	lanes   []int16
	entries []int64
	after   map[int16][]dependency // one a lane
	turn    int                    // the lane to begin the next look with
}

// choose cuts the candidates to what fits: up to MaxItems and MaxBytes in all (but at least one entry) and all of one rule, each lane a prefix of its
// entries. An entry that must come after others of other lanes is taken once all of those are decided. While a peer still misses one of them, it is kept
// from the whole batch.
func (r *Relay) choose(ctx context.Context, conn *pgx.Conn, ready []candidate) (chosen, error) {
	needs, err := dependencies(ctx, conn, ready)
	if err != nil {
		return chosen{}, err
	}
	c := chosen{after: map[int16][]dependency{}, turn: -1}
	size, rule := 0, 0
	closed := int16(-1) // a lane of which no more may be taken
	for i, e := range ready {
		if e.Lane == closed {
			continue
		}
		head := i == 0 || ready[i-1].Lane != e.Lane
		missed, decided := open(needs[e.Entry])
		if !decided {
			closed = e.Lane
			continue
		}
		first := len(c.entries) == 0
		full := !first && (len(c.entries) >= r.cfg.MaxItems || size+e.Bytes > r.cfg.MaxBytes)
		other := !first && r.rule(e) != rule
		if (full || other) && head && c.turn < 0 {
			c.turn = int(e.Lane) // it got nothing this time, so it is the first one next time
		}
		if full {
			break
		}
		if other {
			closed = e.Lane
			continue
		}
		c.after[e.Lane] = merge(c.after[e.Lane], missed)
		rule = r.rule(e)
		size += e.Bytes
		c.lanes = append(c.lanes, e.Lane)
		c.entries = append(c.entries, e.Entry)
	}
	if c.turn < 0 {
		c.turn = (int(ready[len(ready)-1].Lane) + 1) % Lanes
	}
	return c, nil
}

func (r *Relay) rule(e candidate) int {
	if r.cfg.Rule == nil {
		return 0
	}
	return r.cfg.Rule(e.Namespace)
}

// dependency is a batch of another lane that a peer must have first.
type dependency struct {
	lane    int16
	number  int64
	decided bool // so that the peers that miss it are known
	missed  bool // some peer does not have it yet
}

// open returns the dependencies that some peer misses, and whether all of them are decided.
func open(all []dependency) (missed []dependency, decided bool) {
	for _, d := range all {
		if !d.decided {
			return nil, false
		}
		if d.missed {
			missed = append(missed, d)
		}
	}
	return missed, true
}

// merge adds dependencies to those of a batch: of each lane the newest one counts.
func merge(all, more []dependency) []dependency {
	for _, d := range more {
		i := slices.IndexFunc(all, func(known dependency) bool { return known.lane == d.lane })
		if i < 0 {
			all = append(all, d)
		} else if d.number > all[i].number {
			all[i] = d
		}
	}
	return all
}

// dependencies returns what the candidates must come after, by entry. "After entry x of a lane" means after all of the lane that is visible by now and has
// no larger id: what such an entry needs was written by its own transaction or committed before its writer asked for x (outbox_newest), and may have a smaller
// id than x and be dispatched after it. One that is in no batch and not waiting either was pruned after every peer had it: decided, and missed by
// nobody.
func dependencies(ctx context.Context, conn *pgx.Conn, ready []candidate) (map[int64][]dependency, error) {
	var entries, afterEntries []int64
	var afterLanes []int16
	for _, e := range ready {
		for i, after := range e.AfterEntries {
			entries = append(entries, e.Entry)
			afterLanes = append(afterLanes, e.AfterLanes[i])
			afterEntries = append(afterEntries, after)
		}
	}
	if len(entries) == 0 {
		return nil, nil
	}
	rows, err := conn.Query(ctx, `
		select d.entry, d.after_lane, coalesce(b.number, 0),
		       coalesce(b.verdict, '') <> 'pending' and coalesce(w.entry > d.after_entry, true),
		       exists (select from lagging l where l.lane = d.after_lane and l.cursor < b.number)
		from unnest($1::bigint[], $2::smallint[], $3::bigint[]) d (entry, after_lane, after_entry)
		left join lateral (
			select u.entry from undispatched u where u.lane = d.after_lane order by u.entry limit 1
		) w on true
		left join lateral (
			select b.number, b.verdict
			from batches b
			where b.lane = d.after_lane and b.first_entry <= d.after_entry
			order by b.number desc
			limit 1
		) b on true`, entries, afterLanes, afterEntries)
	if err != nil {
		return nil, fmt.Errorf("outbox: relay: dependencies: %w", err)
	}
	needs := make(map[int64][]dependency, len(entries))
	var (
		entry int64
		d     dependency
	)
	_, err = pgx.ForEachRow(rows, []any{&entry, &d.lane, &d.number, &d.decided, &d.missed}, func() error {
		needs[entry] = append(needs[entry], d)
		return nil
	})
	if err != nil {
		return nil, fmt.Errorf("outbox: relay: dependencies: %w", err)
	}
	return needs, nil
}
