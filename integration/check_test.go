package integration

import (
	"context"
	"encoding/json"
	"fmt"
	"maps"
	"slices"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
)

// history says what a test has written, and so what the peers must equal.
type history int

const (
	// insertsOnly: every field of a memory is the same everywhere.
	insertsOnly history = iota
	// changes: peers merge an update into what they have, and only some fields arrive as they were sent (protocol, "insert_if_newer").
	changes
)

// fields are those that a peer takes from an update as they are.
func (h history) fields() []string {
	if h == insertsOnly {
		return nil // all
	}
	return []string{"id", "title", "namespace", "content", "tags", "source", "updated_at", "metadata"}
}

// row is a memory as JSON, without nulls.
type row map[string]any

func (r row) id() string {
	id, _ := r["id"].(string)
	return id
}

// parseRow reads a memory. Times other than updated_at, which peers compare as text, are brought to one form.
func parseRow(text []byte) (row, error) {
	var r row
	if err := json.Unmarshal(text, &r); err != nil {
		return nil, err
	}
	for field, value := range r {
		switch v := value.(type) {
		case nil:
			delete(r, field)
		case string:
			switch field {
			case "created_at", "last_accessed_at", "expires_at", "confidence_decayed_at", "requested_at":
				at, err := time.Parse(time.RFC3339, v)
				if err != nil {
					return nil, fmt.Errorf("%s: %w", field, err)
				}
				r[field] = at.UTC().Format(time.RFC3339Nano)
			}
		}
	}
	return r, nil
}

// only returns the row with some of its fields, or all of them.
func (r row) only(fields []string) row {
	if fields == nil {
		return r
	}
	part := row{}
	for _, f := range fields {
		if v, ok := r[f]; ok {
			part[f] = v
		}
	}
	return part
}

// stored are the writer's memories by id.
func (f *fleet) stored(ctx context.Context) (map[string]row, error) {
	texts, err := f.strings(ctx, `
		select (to_jsonb(m) || jsonb_build_object('updated_at',
			to_char(m.updated_at at time zone 'UTC', 'YYYY-MM-DD"T"HH24:MI:SS.US') || '+00:00'))::text
		from memories m`)
	if err != nil {
		return nil, err
	}
	rows := make(map[string]row, len(texts))
	for _, text := range texts {
		r, err := parseRow([]byte(text))
		if err != nil {
			return nil, err
		}
		rows[r.id()] = r
	}
	return rows, nil
}

// converge waits until nothing is left to do and every peer equals the writer's state (C1, C3, C6), and then checks the rest.
func (f *fleet) converge(t *testing.T, h history) {
	t.Helper()
	until(t, "the fleet has settled", func() []string { return f.unsettledOrRefused(t.Context()) })
	if left := f.differences(t.Context(), h); len(left) > 0 {
		t.Errorf("C1: peers differ from the writer although nothing is left to do:\n%s", list(left))
	}
	f.check(t)
}

// check looks at what must hold when nothing is left to do.
func (f *fleet) check(t *testing.T) {
	t.Helper()
	f.retriesMatch(t) // jobs that a dead worker left running are rescued after a while, and find that nothing is left to do
	for _, i := range f.inTheEnd() {
		if problems := i.find(t.Context()); len(problems) > 0 {
			t.Errorf("%s does not hold:\n%s", i.id, list(problems))
		}
	}
}

// liveJob is the condition for a job that somebody works or will work: one that a dead worker left running is not. $1 are [fleet.clients].
const liveJob = `(state in ('available', 'pending', 'retryable', 'scheduled')
	or state = 'running' and attempted_by[cardinality(attempted_by)] = any ($1))`

// clients are the ids under which the workers that live take jobs.
func (f *fleet) clients() []string {
	ids := []string{}
	if f.riverClients != nil {
		ids = append(ids, f.riverClients()...)
	}
	for _, w := range f.workers {
		if !w.hasEnded() {
			ids = append(ids, w.client())
		}
	}
	return ids
}

// unsettled is what is left to do (C6), and jobs that should not be there (C3).
func (f *fleet) unsettled(ctx context.Context) []string {
	left, err := f.strings(ctx, `
		select 'C6: entry ' || entry || ' of lane ' || lane || ' is not dispatched' from undispatched
		union all
		select 'C6: batch ' || number || ' of lane ' || lane || ' is not decided' from batches where verdict = 'pending'
		union all
		select 'C6: ' || peer || ' lags in lane ' || lane || ': ' || last_class from lagging
		union all
		select 'C6: ' || count(*) || ' doubts about ' || peer || ' until ' || max(until)::time from doubts group by peer
		union all
		select 'C6: ' || count(*) || ' repairs of ' || peer || ' are left' from repairs group by peer
		union all
		select 'C6: job ' || kind || ' ' || args || ' is ' || state
		from river_job
		where kind in ('fan_out', 'peer_retry') and `+liveJob, f.clients())
	if err != nil {
		return []string{err.Error()}
	}
	return left
}

// differences is where peers do not equal the writer's state (C1).
func (f *fleet) differences(ctx context.Context, h history) []string {
	want, err := f.stored(ctx)
	if err != nil {
		return []string{err.Error()}
	}
	var found []string
	for _, p := range f.peers {
		got, err := p.memories(ctx)
		if err != nil {
			found = append(found, err.Error())
			continue
		}
		for _, id := range slices.Sorted(maps.Keys(want)) {
			r, ok := got[id]
			if !ok {
				found = append(found, fmt.Sprintf("%s: %s is missing", p.id, id))
				continue
			}
			if diff := cmp.Diff(r.only(h.fields()), want[id].only(h.fields())); diff != "" {
				found = append(found, fmt.Sprintf("%s: %s (-peer +writer):\n%s", p.id, id, diff))
			}
		}
		for _, id := range slices.Sorted(maps.Keys(got)) {
			if _, ok := want[id]; !ok {
				found = append(found, fmt.Sprintf("%s: %s should not be there", p.id, id))
			}
		}
	}
	return found
}

// retryJobs is where lagging lanes and live retry jobs do not match one to one (C3). A lane that a fan-out still waits for has none yet.
func (f *fleet) retryJobs(ctx context.Context) []string {
	wrong, err := f.strings(ctx, `
		with live as (
			select args ->> 'peer' as peer, (args ->> 'lane')::smallint as lane, (args ->> 'retry')::bigint as retry, count(*) as jobs
			from river_job
			where kind = 'peer_retry' and `+liveJob+`
			group by 1, 2, 3
		)
		select 'C3: ' || coalesce(l.peer, j.peer) || ', lane ' || coalesce(l.lane, j.lane) || ': the row has retry '
			|| coalesce(l.retry::text, 'none') || ', and ' || coalesce(j.jobs, 0) || ' jobs have ' || coalesce(j.retry::text, 'it')
		from (select peer, lane, retry from lagging where retry is not null) l
		full join live j using (peer, lane, retry)
		where l.retry is null or coalesce(j.jobs, 0) <> 1
		union all
		select 'C3: ' || peer || ', lane ' || lane || ': the row has neither a retry nor a lease that lasts' from lagging
		where retry is null and (holder is null or leased_until < clock_timestamp())`, f.clients())
	if err != nil {
		return []string{err.Error()}
	}
	return wrong
}

// dispatchedTwice is entries that are not in exactly one batch. The batch of an entry that is kept is pruned.
func (f *fleet) dispatchedTwice(ctx context.Context) []string {
	wrong, err := f.strings(ctx, `
		select 'entry ' || coalesce(o.id, b.id) || ' is in ' || count(b.id) || ' batches'
		from outbox o
		full join (select unnest(entries) as id from batches) b using (id)
		where (o.id is null or not exists (select from undispatched u where u.entry = o.id)) and not exists (select from kept k where k.entry = o.id)
		group by o.id, b.id
		having count(b.id) <> 1 or o.id is null`)
	if err != nil {
		return []string{err.Error()}
	}
	return wrong
}
