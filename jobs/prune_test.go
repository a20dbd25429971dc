package jobs_test

import (
	"bytes"
	"errors"
	"fmt"
	"log/slog"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgxpool"

	"quorumbox/internal/locks"
	"quorumbox/internal/pgtest"
	"quorumbox/jobs"
	"quorumbox/outbox"
)

// noHistory keeps nothing that every peer has.
func noHistory() jobs.PruneConfig { return jobs.PruneConfig{History: time.Nanosecond} }

// prune prunes until nothing is left to do.
func prune(t *testing.T, pool *pgxpool.Pool, cfg jobs.PruneConfig) {
	t.Helper()
	if cfg.Logger == nil {
		cfg.Logger = slog.New(slog.NewTextHandler(t.Output(), nil))
	}
	p := jobs.NewPruner(pool, cfg)
	for range 100 {
		done, err := p.Prune(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		if done {
			return
		}
	}
	t.Fatal("100 transactions were not enough")
}

func exec(t *testing.T, pool *pgxpool.Pool, sql string, args ...any) {
	t.Helper()
	if _, err := pool.Exec(t.Context(), sql, args...); err != nil {
		t.Fatal(err)
	}
}

func column[T any](t *testing.T, pool *pgxpool.Pool, sql string, args ...any) []T {
	t.Helper()
	rows, err := pool.Query(t.Context(), sql, args...)
	if err != nil {
		t.Fatal(err)
	}
	list, err := pgx.CollectRows(rows, pgx.RowTo[T])
	if err != nil {
		t.Fatal(err)
	}
	return list
}

// fill makes the peers a and gone (which is absent), and in lane 3 the batches 1 to n of one entry each, which has the batch's number. They were decided an
// hour ago and dispatched two hours ago.
func fill(t *testing.T, pool *pgxpool.Pool, n int) {
	t.Helper()
	exec(t, pool, `insert into peers (id, state) values ('a', 'active'), ('gone', 'absent')`)
	exec(t, pool, `
		insert into outbox (id, lane, namespace, kind, key, payload) overriding system value
		select i, 3, 'ns', 'store', 'm-' || i, '{}' from generate_series(1, $1::int) i`, n)
	exec(t, pool, `
		insert into batches (lane, number, entries, first_entry, last_entry, bytes, position, fan_out, leased_until, verdict, needed, dispatched_at, decided_at)
		select 3, i, array[i], i, i, 0, i, i, now(), 'met', 1, now() - interval '2 hours', now() - interval '1 hour'
		from generate_series(1, $1::int) i`, n)
}

func TestPruneDeletesWhatNobodyNeeds(t *testing.T) {
	t.Parallel()
	lag := func(peer string, cursor int) string {
		return fmt.Sprintf(`insert into lagging (peer, lane, cursor, pushed_to) values ('%s', 3, %d, 10)`, peer, cursor)
	}
	for name, c := range map[string]struct {
		also    string
		history time.Duration
		first   int // the first batch that is left
	}{
		"all peers in step":                      {first: 10},
		"within the history":                     {history: 2 * time.Hour, first: 1},
		"a peer lags":                            {also: lag("a", 4), first: 4},
		"a peer has nothing":                     {also: lag("a", 0), first: 1},
		"an absent peer lags":                    {also: lag("gone", 7), first: 7},
		"two peers lag":                          {also: lag("a", 6) + `;` + lag("gone", 3), first: 3},
		"a peer lags in another lane":            {also: `insert into lagging (peer, lane, cursor, pushed_to) values ('a', 4, 0, 0)`, first: 10},
		"a push is in doubt":                     {also: `insert into doubts values ('a', 3, 5, 6, now() + interval '1 hour')`, first: 5},
		"the newest batch is undecided":          {also: `update batches set verdict = 'pending', decided_at = null where number = 10`, first: 9},
		"one in the middle was decided just now": {also: `update batches set decided_at = now() + interval '1 hour' where number = 6`, first: 6},
		"an entry is gone already":               {also: `delete from outbox where id = 2`, first: 10},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			pool := pgtest.New(t)
			fill(t, pool, 10)
			if c.also != "" {
				exec(t, pool, c.also)
			}
			var want []int64
			for i := c.first; i <= 10; i++ {
				want = append(want, int64(i))
			}
			prune(t, pool, jobs.PruneConfig{History: max(c.history, time.Nanosecond)})
			if diff := cmp.Diff(want, column[int64](t, pool, `select number from batches order by number`)); diff != "" {
				t.Errorf("batches (-want +got):\n%s", diff)
			}
			if c.first > 2 || c.also == "" {
				if diff := cmp.Diff(want, column[int64](t, pool, `select id from outbox order by id`)); diff != "" {
					t.Errorf("entries (-want +got):\n%s", diff)
				}
			}
		})
	}
}

// One transaction is small, however much there is, and the lanes' turns follow the ids.
func TestPruneInSmallTransactions(t *testing.T) {
	t.Parallel()
	pool := pgtest.New(t)
	fill(t, pool, 1)
	exec(t, pool, `
		insert into batches (lane, number, entries, first_entry, last_entry, bytes, position, fan_out, leased_until, verdict, needed, decided_at)
		select l, n, array(select l * 1000000 + n * 100 + i from generate_series(1, 100) i), n * 100, n * 100 + 99, 0, n * 100, 1, now(), 'met', 1, now()
		from generate_series(5, 8) l, generate_series(1, 60) n`)
	left := func() int {
		return len(column[int64](t, pool, `select number from batches where lane between 5 and 8`))
	}
	p := jobs.NewPruner(pool, noHistory())
	for want := 240 - 20; want > 4; want -= 20 {
		if done, err := p.Prune(t.Context()); err != nil || done {
			t.Fatalf("got done %t, %v, want more to do", done, err)
		}
		if got := left(); got != want {
			t.Fatalf("got %d batches left of 100 entries each, want %d", got, want)
		}
		if d := column[int64](t, pool, `select max(first) - min(first) from (select min(number) as first from batches where lane between 5 and 8 group by lane) f`); d[0] > 1 {
			t.Fatalf("got lanes that are %d batches apart, want the oldest entries to go first", d[0])
		}
	}
	prune(t, pool, noHistory())
	if got := left(); got != 4 {
		t.Errorf("got %d batches left, want the newest of each lane", got)
	}
}

// What the rest of the program reads is still there: a fleet goes on as before.
func TestPruneBesideAFleet(t *testing.T) {
	t.Parallel()
	f := start(t)
	var first []outbox.EntryID
	for i := range 20 {
		first = append(first, f.store(fmt.Sprintf("ns%d:m-%d", i%3, i))...)
		f.await(first[i])
	}
	f.eventually("all in step", func() bool { return f.lagging() == 0 })
	prune(t, f.pool, noHistory())
	if lanes, left := f.scalar(`select count(distinct lane) from batches`), f.scalar(`select count(*) from batches`); left != lanes {
		t.Errorf("got %d batches left in %d lanes, want the newest of each", left, lanes)
	}
	if entries, named := f.scalar(`select count(*) from outbox`), f.scalar(`select sum(cardinality(entries)) from batches`); entries != named {
		t.Errorf("got %d entries left, want the %d of the batches", entries, named)
	}
	if _, err := outbox.Await(t.Context(), f.pool, first[0]); !errors.Is(err, outbox.ErrUnknownEntry) {
		t.Errorf("got %v for a pruned entry, want %v", err, outbox.ErrUnknownEntry)
	}

	// A peer that lags from here on misses what was written from here on, no less and no more.
	f.peers.set("c", refusing("unavailable"))
	before := f.peers.count("c")
	for i := range 5 {
		f.await(f.store(fmt.Sprintf("ns0:n-%d", i))...)
		prune(t, f.pool, noHistory())
	}
	behind := f.scalar(`
		select (select max(position) from batches b where b.lane = l.lane)
		       - coalesce((select position from batches b where b.lane = l.lane and b.number = l.cursor), 0)
		from lagging l where peer = 'c'`)
	if behind != 5 {
		t.Errorf("got a backlog of %d entries, want 5", behind)
	}
	f.peers.set("c", nil)
	f.eventually("c in step", func() bool { return f.lagging() == 0 })
	if diff := cmp.Diff(stores("n-0", "n-1", "n-2", "n-3", "n-4"), f.peers.got("c")[20:]); diff != "" {
		t.Errorf("c got, after %d pushes (-want +got):\n%s", before, diff)
	}
}

// An entry that must come after a pruned one is not held up: every peer has that one.
func TestPrunedEntriesHoldNobodyUp(t *testing.T) {
	t.Parallel()
	f := start(t)
	f.await(f.store("ns:m-1", "ns:m-2")...)
	var deleted outbox.EntryID
	f.inTx(func(tx pgx.Tx) (err error) {
		deleted, err = outbox.Delete(t.Context(), tx, "m-1")
		return err
	})
	f.await(deleted)
	f.await(f.store("ns:m-3")...) // the newest batch of the lane stays
	f.eventually("all in step", func() bool { return f.lagging() == 0 })
	prune(t, f.pool, noHistory())
	if n := f.scalar(fmt.Sprintf(`select count(*) from outbox where id = %d`, deleted)); n != 0 {
		t.Fatal("the delete is still there")
	}
	if v := f.await(f.store("other:m-1")...); !v.IsMet() { // after its delete in another lane, by the tombstone
		t.Errorf("got %+v, want met", v)
	}
	if v := f.await(f.store("other:m-2")...); !v.IsMet() { // a move: after the delete that it makes itself
		t.Errorf("got %+v, want met", v)
	}
}

// What an entry must come after may be pruned between its commit and its dispatch.
func TestPrunedBetweenCommitAndDispatch(t *testing.T) {
	t.Parallel()
	pool := pgtest.New(t)
	fill(t, pool, 10)
	exec(t, pool, `
		insert into outbox (id, lane, namespace, kind, key) overriding system value values (100, 4, 'other', 'delete', 'm')`)
	exec(t, pool, `insert into undispatched values (4, 100, 10, '{3}', '{5}')`)
	prune(t, pool, noHistory())
	f := &fleet{t: t, pool: pool, peers: newScripted()}
	f.run()
	// Whether it is met is not the question: b and c are new, and brought the current state first.
	f.eventually("dispatched and decided", func() bool {
		return f.scalar(`select count(*) from batches where lane = 4 and verdict <> 'pending'`) == 1
	})
}

func TestOnePrunerAtATime(t *testing.T) {
	t.Parallel()
	pool := pgtest.New(t)
	fill(t, pool, 10)
	err := pgx.BeginFunc(t.Context(), pool, func(tx pgx.Tx) error {
		if _, err := tx.Exec(t.Context(), `select pg_advisory_xact_lock($1)`, locks.Prune); err != nil {
			return err
		}
		prune(t, pool, noHistory())
		if n := len(column[int64](t, pool, `select number from batches`)); n != 10 {
			t.Errorf("got %d batches left beside another pruner, want all 10", n)
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	var both sync.WaitGroup
	for range 2 {
		both.Go(func() { prune(t, pool, noHistory()) })
	}
	both.Wait()
	if n := len(column[int64](t, pool, `select number from batches`)); n != 1 {
		t.Errorf("got %d batches left after two pruners, want 1", n)
	}
}

func TestPruneTombstones(t *testing.T) {
	t.Parallel()
	pool := pgtest.New(t)
	fill(t, pool, 2)
	exec(t, pool, `insert into tombstones values
		('old', 3, 99, now() - interval '3 hours'), ('young', 3, 99, now() - interval '1 hour'), ('undelivered', 3, 2, now() - interval '3 hours')`)
	prune(t, pool, jobs.PruneConfig{Tombstones: 2 * time.Hour})
	if diff := cmp.Diff([]string{"undelivered", "young"}, column[string](t, pool, `select id from tombstones order by id`)); diff != "" {
		t.Errorf("tombstones (-want +got):\n%s", diff)
	}
}

// The notes that a memory is used go with the entries that they name.
func TestPruneMemoryUses(t *testing.T) {
	t.Parallel()
	f := start(t)
	f.await(f.store("ns:m-1", "other:m-2")...)
	link := func() {
		t.Helper()
		var entry outbox.EntryID
		f.inTx(func(tx pgx.Tx) (err error) {
			entry, err = outbox.Link(t.Context(), tx, outbox.MemoryLink{SourceID: "m-1", TargetID: "m-2", Relation: "related_to"})
			return err
		})
		f.await(entry)
		f.await(f.store("ns:later")...)
		f.eventually("all in step", func() bool { return f.lagging() == 0 })
	}
	link()
	if n := f.scalar(`select count(*) from memory_uses`); n != 1 {
		t.Fatalf("got %d notes of a use, want 1", n)
	}
	// A writer that holds the note is not waited for, and nothing is lost track of.
	f.inTx(func(tx pgx.Tx) error {
		_, err := tx.Exec(t.Context(), `select from memory_uses for update`)
		prune(t, f.pool, noHistory())
		return err
	})
	if diff := cmp.Diff([]string{"link"}, column[string](t, f.pool, `select kind from outbox join kept on entry = id`)); diff != "" {
		t.Errorf("kept (-want +got):\n%s", diff)
	}
	prune(t, f.pool, noHistory())
	if uses, kept := f.scalar(`select count(*) from memory_uses`), f.scalar(`select count(*) from kept`); uses != 0 || kept != 0 {
		t.Errorf("got %d notes and %d kept entries, want none", uses, kept)
	}
	link()
	prune(t, f.pool, noHistory())
	if uses, kept := f.scalar(`select count(*) from memory_uses`), f.scalar(`select count(*) from kept`); uses != 0 || kept != 0 {
		t.Errorf("got %d notes and %d kept entries after the second link, want none", uses, kept)
	}
}

// lines collects log lines.
type lines struct {
	mu  sync.Mutex
	buf bytes.Buffer
}

func (l *lines) Write(b []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.buf.Write(b)
}

func (l *lines) logger() *slog.Logger { return slog.New(slog.NewTextHandler(l, nil)) }

func (l *lines) with(text string) []string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return slices.DeleteFunc(strings.Split(l.buf.String(), "\n"), func(s string) bool { return !strings.Contains(s, text) })
}
