package jobs_test

import (
	"slices"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/jackc/pgx/v5"

	"quorumbox/internal/pgtest"
	"quorumbox/jobs"
	"quorumbox/outbox"
)

// Nothing comes back from the dead: the delete that has superseded a refused store outlives its batch.
func TestRefusedEntryIsSupersededByAPrunedOne(t *testing.T) {
	t.Parallel()
	f := start(t, func(c *jobs.Config) { c.Redeliver = jobs.Schedule{Initial: time.Hour, Max: time.Hour} })
	f.peers.refuse("m-1", "m-2")
	f.await(f.store("ns:m-1", "other:m-2")...) // in lanes of their own: one redelivery puts off another of its lane
	f.eventually("refused", func() bool { return f.scalar(`select count(*) from refusals`) == 2 && f.lagging() == 0 })
	f.peers.refuse()
	var deleted outbox.EntryID
	f.inTx(func(tx pgx.Tx) (err error) {
		deleted, err = outbox.Delete(t.Context(), tx, "m-1")
		return err
	})
	f.await(deleted)
	f.await(f.store("ns:m-3", "other:m-4")...)
	f.eventually("all in step", func() bool { return f.lagging() == 0 })
	prune(t, f.pool, noHistory())
	prune(t, f.pool, noHistory()) // looks at what was kept once more
	want := []string{"store m-1", "store m-2", "delete m-1"}
	if diff := cmp.Diff(want, column[string](t, f.pool, `select kind || ' ' || key from outbox join kept on entry = id order by id`)); diff != "" {
		t.Errorf("kept while they are refused (-want +got):\n%s", diff)
	}
	if _, err := jobs.RetryRefusals(t.Context(), f.pool, jobs.RefusalFilter{}); err != nil {
		t.Fatal(err)
	}
	f.eventually("tried again", func() bool { return f.scalar(`select count(*) from refusals`) == 0 && f.lagging() == 0 })
	if diff := cmp.Diff([]string{"delete m-1", "store m-2", "store m-3", "store m-4"}, slices.Sorted(slices.Values(f.peers.got("c")))); diff != "" {
		t.Errorf("c got (-want +got):\n%s", diff)
	}
	prune(t, f.pool, noHistory())
	if kept, entries := f.scalar(`select count(*) from kept`), f.scalar(`select count(*) from outbox`); kept != 0 || entries != 2 {
		t.Errorf("got %d kept of %d entries, want none kept, and the newest of both lanes", kept, entries)
	}
}

// Beside an entry that a peer refuses, what a redelivery asks the log for is kept, and no more.
func TestPruneKeepsWhatARedeliveryReads(t *testing.T) {
	t.Parallel()
	const from = `insert into repairs (peer, subject, key, lane, method, reason, entry) values `
	for name, c := range map[string]struct {
		entries string // kind, key, payload of the entries from 1 on, as rows
		needs   string // inserts refusals or repairs; empty: entry 2 is refused
		want    []int64
	}{
		"nothing": {
			entries: `('store', 'm', '{}'), ('store', 'm', '{}')`, needs: `select`, want: []int64{},
		},
		"only the newest later life of the same": {
			entries: `('store', 'm', '{}'), ('store', 'm', '{}'), ('delete', 'm', '{}'), ('store', 'other', '{}'), ('store', 'm', '{}')`,
			want:    []int64{2, 5},
		},
		"a life that ended in a consolidate": {
			entries: `('store', 'x', '{}'), ('store', 'm', '{}'), ('consolidate', 'new', '{"sources":[{"id":"m"}]}')`,
			want:    []int64{2, 3},
		},
		"a refused consolidate, with its sources": {
			entries: `('store', 'm', '{}'), ('consolidate', 'new', '{"sources":[{"id":"m"},{"id":"n"}]}'), ('store', 'n', '{}'), ('store', 'x', '{}')`,
			want:    []int64{2, 3},
		},
		"a link whose end has ended; other lives of it do not matter": {
			entries: `('delete', 't', '{}'), ('link', 'st', '{"source_id":"s","target_id":"t"}'), ('store', 's', '{}'), ('archive', 't', '{}'), ('store', 't', '{}')`,
			want:    []int64{2, 4},
		},
		"a namespace whose standard is another one, or has ended": {
			entries: `('store', 'x', '{}'), ('namespace_set', 'ns', '{"standard_id":"m"}'), ('namespace_set', 'other', '{"standard_id":"m"}'), ('namespace_clear', 'ns', '{}'),
				('delete', 'm', '{}')`,
			want: []int64{2, 4, 5},
		},
		"a pending action with all its decisions": {
			entries: `('decision', 'p', '{}'), ('pending', 'p', '{}'), ('decision', 'p', '{}'), ('decision', 'q', '{}'), ('decision', 'p', '{}')`,
			want:    []int64{2, 3, 5},
		},
		"a memory is not a namespace": {
			entries: `('store', 'x', '{}'), ('store', 'm', '{}'), ('namespace_set', 'm', '{"standard_id":"m"}'), ('link', 'm', '{"source_id":"m","target_id":"m"}')`,
			want:    []int64{2},
		},
		"refused by two": {
			entries: `('store', 'm', '{}'), ('store', 'n', '{}'), ('store', 'm', '{}')`,
			needs:   `insert into refusals (peer, entry, lane, class) values ('a', 1, 3, 'skipped'), ('gone', 1, 3, 'skipped'), ('gone', 2, 3, 'skipped')`,
			want:    []int64{1, 2, 3},
		},
		"a repair of a memory that only the log has": {
			entries: `('delete', 'm', '{}'), ('store', 'm', '{}'), ('store', 'n', '{}'), ('store', 'm', '{}')`,
			needs:   from + `('a', 'memory', 'm', 3, 'store', 'doubt', 2)`,
			want:    []int64{4},
		},
		"a repair from the last entry of the memory on": {
			entries: `('store', 'm', '{}'), ('consolidate', 'new', '{"sources":[{"id":"m"}]}'), ('store', 'n', '{}')`,
			needs:   from + `('a', 'memory', 'm', 3, 'store', 'doubt', 2)`,
			want:    []int64{2},
		},
		"a repair of a memory, whatever the log has of it": {
			entries: `('store', 'm', '{}'), ('store', 'm', '{}')`,
			needs:   from + `('a', 'memory', 'm', 3, 'store', 'verify', 0)`,
			want:    []int64{2},
		},
		"a repair of a pending action that only the log has": {
			entries: `('pending', 'p', '{}'), ('decision', 'q', '{}'), ('decision', 'p', '{}')`,
			needs:   from + `('a', 'pending', 'p', 3, 'store', 'doubt', 1)`,
			want:    []int64{1, 3},
		},
		"a repair of a namespace, which is in a table of ours": {
			entries: `('namespace_set', 'ns', '{"standard_id":"m"}')`,
			needs:   from + `('a', 'namespace', 'ns', 3, 'store', 'doubt', 1)`,
			want:    []int64{},
		},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			pool := pgtest.New(t)
			fill(t, pool, 10) // the last ones are about nothing
			exec(t, pool, `delete from outbox where id < 10`)
			exec(t, pool, `
				insert into outbox (id, lane, namespace, kind, key, payload) overriding system value
				select row_number() over (), 3, 'ns', e.kind, e.key, e.payload::json from (values `+c.entries+`) e (kind, key, payload)`)
			if c.needs == "" {
				c.needs = `insert into refusals (peer, entry, lane, class) values ('a', 2, 3, 'skipped')`
			}
			exec(t, pool, c.needs)
			prune(t, pool, noHistory())
			if diff := cmp.Diff(c.want, column[int64](t, pool, `select id from outbox where id < 10 order by id`)); diff != "" {
				t.Errorf("left after the batches (-want +got):\n%s", diff)
			}
			prune(t, pool, noHistory())
			if diff := cmp.Diff(c.want, column[int64](t, pool, `select id from outbox where id < 10 order by id`)); diff != "" {
				t.Errorf("left after another look (-want +got):\n%s", diff)
			}
			exec(t, pool, `delete from refusals`)
			exec(t, pool, `delete from repairs`)
			prune(t, pool, noHistory())
			if n := len(column[int64](t, pool, `select id from outbox where id < 10 union all select entry from kept`)); n != 0 {
				t.Errorf("got %d rows left when nobody needs them, want none", n)
			}
		})
	}
}
