package integration

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/jackc/pgx/v5"
)

// change is what an entry does to a memory at a peer, as a peer's log shows it. Several entries may have the same.
type change struct {
	op, id, updatedAt string
}

// executed is the op of a change that a peer makes by itself, when it gets the approval of a delete. Its log shows the decision.
const executed = "executed"

// judged is a batch as the worker recorded it, with the changes of its entries.
type judged struct {
	Lane         int16
	Number       int64
	Verdict      string
	Acked        []string
	Needed       *int16
	Members      *int16
	DispatchedAt time.Time
	Deadline     *time.Time
	DecidedAt    *time.Time
	Kinds        []string // of the entry
	Ops          []string
	IDs          []string
	UpdatedAts   []string
}

func (b judged) name() string { return fmt.Sprintf("batch %d of lane %d", b.Number, b.Lane) }

func (b judged) changes() []change {
	all := make([]change, len(b.Ops))
	for i := range all {
		all[i] = change{b.Ops[i], b.IDs[i], b.UpdatedAts[i]}
	}
	return all
}

// effects are the last change of each memory: what a peer must have applied. The earlier ones need not be sent.
func (b judged) effects() []change {
	last := map[string]int{}
	all := b.changes()
	for i, c := range all {
		last[c.id] = i
	}
	var effects []change
	for i, c := range all {
		if last[c.id] == i && c.op != executed {
			effects = append(effects, c)
		}
	}
	return effects
}

// batches are all batches, lane by lane in order.
func (f *fleet) batches(ctx context.Context) ([]judged, error) {
	rows, err := f.pool.Query(ctx, `
		select b.lane, b.number, b.verdict, b.acked, b.needed, b.members, b.dispatched_at, b.deadline, b.decided_at,
		       e.kinds, e.ops, e.ids, e.updated_ats
		from batches b
		cross join lateral (
			select array_agg(o.kind::text order by x.n, c.part) as kinds, array_agg(c.op order by x.n, c.part) as ops,
			       array_agg(c.id order by x.n, c.part) as ids, array_agg(c.updated_at order by x.n, c.part) as updated_ats
			from unnest(b.entries) with ordinality x (id, n)
			join outbox o on o.id = x.id
			cross join lateral (
				-- A restored memory comes as a store in the end, because peers give it a time of their own.
				select 1 as part, case o.kind when 'restore' then 'store' else o.kind::text end as op, o.key::text as id,
				       case when o.kind in ('store', 'restore') then o.payload ->> 'updated_at' else '' end as updated_at
				where o.kind in ('store', 'delete', 'archive', 'restore')
				union all
				select 1, 'delete', s ->> 'id', ''
				from json_array_elements(case when o.kind = 'consolidate' then o.payload -> 'sources' end) s
				union all
				select 2, 'store', o.key, o.payload -> 'memory' ->> 'updated_at' where o.kind = 'consolidate'
				union all
				select 1, '`+executed+`', a.memory_id, ''
				from pending_actions a
				where o.kind = 'decision' and a.id = o.key and a.action_type = 'delete' and a.memory_id is not null
			) c
		) e
		order by b.lane, b.number`)
	if err != nil {
		return nil, err
	}
	return pgx.CollectRows(rows, pgx.RowToStructByPos[judged])
}

// falseVerdicts is where a verdict, or an acknowledgement that it rests on, does not agree with the peers' own logs (C2). The peers and the
// database read the same clock here.
func (f *fleet) falseVerdicts(ctx context.Context) []string {
	batches, err := f.batches(ctx)
	if err != nil {
		return []string{err.Error()}
	}
	logs := map[string]map[change][]time.Time{}
	var found []string
	for _, p := range f.peers {
		log, err := p.log(ctx)
		if err != nil {
			found = append(found, err.Error())
		}
		logs[p.id] = map[change][]time.Time{}
		for _, a := range log {
			if a.Result != "skipped" {
				c := change{a.Op, a.ID, a.UpdatedAt}
				logs[p.id][c] = append(logs[p.id][c], a.At)
			}
		}
	}
	for _, b := range batches {
		if b.Verdict == "pending" {
			continue
		}
		found = append(found, f.falseVerdict(b, logs)...)
	}
	return found
}

func (f *fleet) falseVerdict(b judged, logs map[string]map[change][]time.Time) []string {
	var found []string
	if b.DecidedAt == nil || b.Deadline == nil || b.Needed == nil || b.Members == nil {
		return []string{fmt.Sprintf("C2: %s is %s without a time, deadline, W or N", b.name(), b.Verdict)}
	}
	if int(*b.Members) != 1+len(f.peers) {
		found = append(found, fmt.Sprintf("C2: %s was judged by %d members, want %d", b.name(), *b.Members, 1+len(f.peers)))
	}
	distinct := slices.Compact(slices.Sorted(slices.Values(b.Acked)))
	if len(distinct) != len(b.Acked) {
		found = append(found, fmt.Sprintf("C2: %s counts a peer twice: %v", b.name(), b.Acked))
	}
	if met := 1+len(distinct) >= int(*b.Needed); met != (b.Verdict == "met") {
		found = append(found, fmt.Sprintf("C2: %s is %s with %v, W is %d", b.name(), b.Verdict, b.Acked, *b.Needed))
	}
	for _, p := range distinct {
		log, known := logs[p]
		if !known {
			found = append(found, fmt.Sprintf("C2: %s was acknowledged by the unknown peer %s", b.name(), p))
			continue
		}
		for _, c := range b.effects() {
			inTime := slices.ContainsFunc(log[c], func(at time.Time) bool {
				return !at.Before(b.DispatchedAt) && !at.After(*b.DecidedAt) && !at.After(*b.Deadline)
			})
			if !inTime {
				found = append(found, fmt.Sprintf("C2: %s (%s, acked by %v, dispatched %s, decided %s, deadline %s): %s had not applied %v in time: %v",
					b.name(), b.Verdict, b.Acked, stamp(b.DispatchedAt), stamp(*b.DecidedAt), stamp(*b.Deadline), p, c, log[c]))
			}
		}
	}
	return found
}

func stamp(at time.Time) string { return at.UTC().Format("15:04:05.000000") }

// outOfOrder is where a peer got changes of one memory in another order than that of its lane's batches (I3). What is pushed together may be
// arranged anew, but not so that one memory's changes pass each other. Peers apply the memories of a push before its deletions, so
// pushes are what is compared: where a later change first came, and where the earlier one first did something. Changes that cannot be told apart are left out, and memories that had others than stores and deletes.
// A repair brings the store's state, ahead of the log: after one there is nothing to compare, nor when the log was pruned.
func (f *fleet) outOfOrder(ctx context.Context) []string {
	incomparable, err := f.strings(ctx, `
		select 'repaired' from river_job where kind = 'repair'
		union
		select 'pruned' from batches group by lane having min(number) > 1`)
	if err != nil {
		return []string{err.Error()}
	}
	if len(incomparable) > 0 {
		return nil // what is repaired is pushed ahead of the log; and what is pruned cannot be told from what was repeated
	}
	batches, err := f.batches(ctx)
	if err != nil {
		return []string{err.Error()}
	}
	times := map[change]int{}
	several := map[string]bool{} // memories that entries of other kinds change, which come as several changes
	for _, b := range batches {
		for i, c := range b.changes() {
			times[c]++
			if b.Kinds[i] != "store" && b.Kinds[i] != "delete" {
				several[c.id] = true
			}
		}
	}
	var found []string
	for _, p := range f.peers {
		log, err := p.log(ctx)
		if err != nil {
			found = append(found, err.Error())
		}
		first, did := map[change]int64{}, map[change]int64{} // pushes count from 1
		for _, a := range log {
			c := change{a.Op, a.ID, a.UpdatedAt}
			if _, seen := first[c]; !seen && a.Result != "skipped" {
				first[c] = a.Push
			}
			if _, seen := did[c]; !seen && a.Result != "skipped" && a.Result != "lost" && a.Result != "noop" {
				did[c] = a.Push
			}
		}
		found = append(found, nonceTwice(p.id, log)...)

		type memory struct {
			lane int16
			id   string
		}
		last := map[memory]change{}
		for _, b := range batches {
			for _, c := range b.changes() {
				if first[c] == 0 || times[c] > 1 || several[c.id] {
					continue
				}
				m := memory{b.Lane, c.id}
				if before, seen := last[m]; seen && first[c] < did[before] {
					found = append(found, fmt.Sprintf("I3: %s, lane %d: %v came in push %d, before %v in push %d",
						p.id, b.Lane, c, first[c], before, did[before]))
				}
				last[m] = c
			}
		}
	}
	return found
}

// nonceTwice is nonces that came with more than one push: a request that was sent again as it was.
func nonceTwice(peer string, log []applied) []string {
	var found []string
	push := map[string]int64{}
	for _, a := range log {
		if before, seen := push[a.Nonce]; seen && before != a.Push && a.Nonce != "" { // an unsigned push has none
			found = append(found, fmt.Sprintf("%s: pushes %d and %d have the nonce %s", peer, before, a.Push, a.Nonce))
		}
		push[a.Nonce] = a.Push
	}
	return found
}

// sentTwice is changes that a peer got more often than they were written. Allowed where something failed, but not otherwise.
func (f *fleet) sentTwice(ctx context.Context) []string {
	batches, err := f.batches(ctx)
	if err != nil {
		return []string{err.Error()}
	}
	written := map[change]int{}
	for _, b := range batches {
		for _, c := range b.changes() {
			written[c]++
		}
	}
	var found []string
	for _, p := range f.peers {
		log, err := p.log(ctx)
		if err != nil {
			found = append(found, err.Error())
		}
		got := map[change][]string{}
		for _, a := range log {
			c := change{a.Op, a.ID, a.UpdatedAt}
			got[c] = append(got[c], fmt.Sprintf("in push %d at %s: %s", a.Push, stamp(a.At), a.Result))
		}
		for c, times := range got {
			if len(times) > written[c] {
				found = append(found, fmt.Sprintf("%s got %v, written %d times, %s", p.id, c, written[c], strings.Join(times, ", ")))
			}
		}
	}
	slices.Sort(found)
	return found
}
