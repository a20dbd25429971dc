package outbox_test

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgxpool"

	"quorumbox/internal/pgtest"
	"quorumbox/outbox"
)

// recorder is an enqueuer that remembers what it was handed, and fails when told to.
type recorder struct {
	mu      sync.Mutex
	fanOuts []int64
	fail    error
}

func (r *recorder) EnqueueFanOut(_ context.Context, _ pgx.Tx, fanOut int64) error {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.fail != nil {
		return r.fail
	}
	r.fanOuts = append(r.fanOuts, fanOut)
	return nil
}

func (r *recorder) setFail(err error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.fail = err
}

// startRelay runs a relay until the test ends.
func startRelay(t *testing.T, pool *pgxpool.Pool, e outbox.Enqueuer, cfg outbox.RelayConfig) (stop func()) {
	t.Helper()
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error, 1)
	relay := outbox.NewRelay(pool, e, cfg)
	go func() { done <- relay.Run(ctx) }()
	stop = sync.OnceFunc(func() {
		cancel()
		if err := <-done; !errors.Is(err, context.Canceled) {
			t.Errorf("relay ended with %v, want the context's cause", err)
		}
	})
	t.Cleanup(stop)
	return stop
}

// madeBatch is a batch as the tests look at it.
type madeBatch struct {
	Lane, Number, Position int64
	Keys                   []string
	After                  string // "lane/number lane/number"
}

func batches(t *testing.T, pool *pgxpool.Pool) []madeBatch {
	t.Helper()
	rows, err := pool.Query(t.Context(), `
		select b.lane, b.number, b.position,
		       (select array_agg(o.key order by e.ord) from unnest(b.entries) with ordinality e (id, ord) join outbox o on o.id = e.id),
		       coalesce((select string_agg(a.lane || '/' || a.number, ' ') from unnest(b.after_lanes, b.after_numbers) a (lane, number)), '')
		from batches b
		order by b.dispatched_at, b.lane`)
	if err != nil {
		t.Fatal(err)
	}
	list, err := pgx.CollectRows(rows, pgx.RowToStructByPos[madeBatch])
	if err != nil {
		t.Fatal(err)
	}
	return list
}

// eventually polls cond; it fails the test after a minute, which no working relay needs.
func eventually(t *testing.T, what string, cond func() bool) {
	t.Helper()
	deadline := time.NewTimer(time.Minute)
	defer deadline.Stop()
	tick := time.NewTicker(5 * time.Millisecond)
	defer tick.Stop()
	for !cond() {
		select {
		case <-deadline.C:
			t.Fatalf("did not happen: %s", what)
		case <-tick.C:
		}
	}
}

func undispatched(t *testing.T, pool *pgxpool.Pool) (n int) {
	t.Helper()
	if err := pool.QueryRow(t.Context(), `select count(*) from undispatched`).Scan(&n); err != nil {
		t.Fatal(err)
	}
	return n
}

// decide gives every undecided batch a verdict, as a fan-out would.
func decide(t *testing.T, pool *pgxpool.Pool, verdict string) {
	t.Helper()
	_, err := pool.Exec(t.Context(), `update batches set verdict = $1, needed = 1, reason = case $1 when 'met' then '' else 'timeout' end where verdict = 'pending'`, verdict)
	if err != nil {
		t.Fatal(err)
	}
}

func in(ns string) func(*outbox.Memory) { return func(m *outbox.Memory) { m.Namespace = ns } }

func TestRelayKeepsOneUndecidedBatchPerLane(t *testing.T) {
	t.Parallel()
	pool := pgtest.New(t)
	e := &recorder{}
	store(t, pool, memory("m-1"))
	startRelay(t, pool, e, outbox.RelayConfig{})
	eventually(t, "m-1 dispatched", func() bool { return undispatched(t, pool) == 0 })

	for _, id := range []string{"m-2", "m-3", "m-4"} {
		store(t, pool, memory(id)) // they wait: the lane's first batch is undecided
	}
	store(t, pool, memory("o-1", in("other"))) // another lane does not
	eventually(t, "o-1 dispatched", func() bool { return undispatched(t, pool) == 3 })
	decide(t, pool, "met")
	eventually(t, "the rest dispatched together", func() bool { return undispatched(t, pool) == 0 })

	var keys [][]string
	for _, b := range batches(t, pool) {
		keys = append(keys, b.Keys)
	}
	if diff := cmp.Diff([][]string{{"m-1"}, {"o-1"}, {"m-2", "m-3", "m-4"}}, keys); diff != "" {
		t.Errorf("batches (-want +got):\n%s", diff)
	}
	if last := batches(t, pool)[2]; last.Number != 2 || last.Position != 4 {
		t.Errorf("got batch %d at position %d, want 2 at 4", last.Number, last.Position)
	}
}

// Ids commit out of order: an entry with a smaller id that becomes visible after a larger one was dispatched is dispatched all the same.
func TestRelayFindsEntriesCommittedOutOfOrder(t *testing.T) {
	t.Parallel()
	pool := pgtest.New(t)
	late, err := pool.Begin(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	if _, err := outbox.Store(t.Context(), late, memory("late")); err != nil { // takes the smaller id
		t.Fatal(err)
	}
	store(t, pool, memory("early"))
	e := &recorder{}
	startRelay(t, pool, e, outbox.RelayConfig{})
	eventually(t, "early dispatched", func() bool { return len(batches(t, pool)) == 1 })
	decide(t, pool, "met")
	if err := late.Commit(t.Context()); err != nil {
		t.Fatal(err)
	}
	eventually(t, "late dispatched", func() bool { return len(batches(t, pool)) == 2 })
	if got := batches(t, pool); got[0].Keys[0] != "early" || got[1].Keys[0] != "late" {
		t.Errorf("got %+v, want early, then late", got)
	}
}

func TestRelayCutsAtItemsAndBytes(t *testing.T) {
	t.Parallel()
	pool := pgtest.New(t)
	var many []outbox.Memory
	for i := range 25 {
		many = append(many, memory(fmt.Sprintf("m-%02d", i)))
	}
	large := memory("large", in("big"), func(m *outbox.Memory) { m.Content = string(slices.Repeat([]byte("x"), 60000)) })
	many = append(many, large)
	inTx(t, pool, func(tx pgx.Tx) {
		if _, err := outbox.StoreMany(t.Context(), tx, many); err != nil {
			t.Fatal(err)
		}
	})
	e := &recorder{}
	startRelay(t, pool, e, outbox.RelayConfig{MaxItems: 10, MaxBytes: 20000})
	for undispatched(t, pool) > 0 {
		decide(t, pool, "met")
	}
	sizes := map[string]int{}
	for _, b := range batches(t, pool) {
		if len(b.Keys) > 10 {
			t.Errorf("got a batch of %d entries, want at most 10", len(b.Keys))
		}
		for _, k := range b.Keys {
			sizes[k]++
		}
	}
	if len(sizes) != 26 {
		t.Errorf("got %d entries in batches, want 26, the one that is too large alone among them", len(sizes))
	}
	for k, n := range sizes {
		if n != 1 {
			t.Errorf("entry %s is in %d batches, want 1", k, n)
		}
	}
}

// A store that follows a delete in another lane waits until that is decided. If a peer misses the delete then, the store heads a batch that says what
// peers must have first; otherwise it goes along with the others.
func TestRelayWaitsForAnotherLane(t *testing.T) {
	t.Parallel()
	for name, c := range map[string]struct {
		lagging bool
		want    []string
	}{
		"every peer has the delete": {false, []string{"m-1", "m-1", "m-0 m-1 m-2"}},
		"a peer misses it":          {true, []string{"m-1", "m-1", "m-0 m-1 m-2 after 2"}},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			pool := pgtest.New(t)
			e := &recorder{}
			startRelay(t, pool, e, outbox.RelayConfig{})
			store(t, pool, memory("m-1"))
			eventually(t, "m-1 dispatched", func() bool { return undispatched(t, pool) == 0 })
			decide(t, pool, "met")
			inTx(t, pool, func(tx pgx.Tx) {
				for _, m := range []outbox.Memory{memory("m-0", in("other")), memory("m-1", in("other")), memory("m-2", in("other"))} {
					if _, err := outbox.Store(t.Context(), tx, m); err != nil {
						t.Fatal(err)
					}
				}
				// The lane is not free, so that its three entries are looked at together.
				if _, err := tx.Exec(t.Context(), `
					insert into batches (lane, number, entries, first_entry, last_entry, bytes, position, fan_out, leased_until)
					select outbox_lane('other'), 1, '{}', 0, 0, 0, 0, 0, now()`); err != nil {
					t.Fatal(err)
				}
			})
			eventually(t, "the delete dispatched", func() bool { return undispatched(t, pool) == 3 })
			if c.lagging {
				_, err := pool.Exec(t.Context(), `
					with p as (insert into peers (id) values ('a'))
					insert into lagging (peer, lane, cursor, pushed_to) values ('a', outbox_lane('team/notes'), 1, 1)`)
				if err != nil {
					t.Fatal(err)
				}
			}
			eventually(t, "all dispatched", func() bool {
				decide(t, pool, "not_met")
				return undispatched(t, pool) == 0
			})
			var got []string
			for _, b := range batches(t, pool) {
				if len(b.Keys) == 0 {
					continue // the one that kept the lane busy
				}
				text := strings.Join(b.Keys, " ")
				if _, number, ok := strings.Cut(b.After, "/"); ok {
					text += " after " + number
				}
				got = append(got, text)
			}
			if diff := cmp.Diff(c.want, got); diff != "" {
				t.Errorf("batches (-want +got):\n%s", diff)
			}
		})
	}
}

// If the job cannot be inserted, nothing is dispatched: both are one transaction.
func TestRelayDispatchesOnlyWithItsJob(t *testing.T) {
	t.Parallel()
	pool := pgtest.New(t)
	store(t, pool, memory("m-1"))
	e := &recorder{fail: errors.New("no queue")}
	stop := startRelay(t, pool, e, outbox.RelayConfig{})
	stop()
	if undispatched(t, pool) != 1 || len(batches(t, pool)) != 0 {
		t.Errorf("got %d undispatched and %d batches, want 1 and none", undispatched(t, pool), len(batches(t, pool)))
	}
	e.setFail(nil)
	startRelay(t, pool, e, outbox.RelayConfig{})
	eventually(t, "dispatched", func() bool { return undispatched(t, pool) == 0 })
}

// Of two relays one works, and the other takes over when it stops.
func TestRelayElectsOne(t *testing.T) {
	t.Parallel()
	pool := pgtest.New(t)
	first, second := &recorder{}, &recorder{}
	stop := startRelay(t, pool, first, outbox.RelayConfig{})
	store(t, pool, memory("m-1"))
	eventually(t, "dispatched by the first", func() bool { return undispatched(t, pool) == 0 })
	startRelay(t, pool, second, outbox.RelayConfig{})
	stop()
	decide(t, pool, "met")
	store(t, pool, memory("m-2"))
	eventually(t, "dispatched by the second", func() bool { return undispatched(t, pool) == 0 })
	if len(first.fanOuts) != 1 || len(second.fanOuts) != 1 {
		t.Errorf("got %d and %d fan-outs, want one each", len(first.fanOuts), len(second.fanOuts))
	}
}

func TestAwait(t *testing.T) {
	t.Parallel()
	pool := pgtest.New(t)
	a, b := store(t, pool, memory("a")), store(t, pool, memory("b", in("other")))

	ctx, cancel := context.WithTimeout(t.Context(), 20*time.Millisecond)
	defer cancel()
	if v, err := outbox.Await(ctx, pool, a.Entry, b.Entry); !errors.Is(err, context.DeadlineExceeded) || v.Entries() != 0 {
		t.Errorf("undecided: got %+v, %v, want the context's end", v, err)
	}
	if _, err := outbox.Await(t.Context(), pool, a.Entry, 1<<40); !errors.Is(err, outbox.ErrUnknownEntry) {
		t.Errorf("unknown entry: got %v, want %v", err, outbox.ErrUnknownEntry)
	}
	if v, err := outbox.Await(t.Context(), pool); err != nil || !v.IsMet() {
		t.Errorf("no entries: got %+v, %v", v, err)
	}

	e := &recorder{}
	startRelay(t, pool, e, outbox.RelayConfig{})
	eventually(t, "dispatched", func() bool { return undispatched(t, pool) == 0 })
	result := make(chan outbox.Verdict)
	go func() {
		v, err := outbox.Await(context.WithoutCancel(t.Context()), pool, a.Entry, b.Entry, a.Entry)
		if err != nil {
			t.Error(err)
		}
		result <- v
	}()
	decide(t, pool, "met")
	if v := <-result; !v.IsMet() || v.Met != 2 || v.Entries() != 2 {
		t.Errorf("got %+v, want two met", v)
	}

	c := store(t, pool, memory("c"))
	eventually(t, "dispatched", func() bool { return undispatched(t, pool) == 0 })
	decide(t, pool, "not_met")
	v, err := outbox.Await(t.Context(), pool, a.Entry, c.Entry)
	if err != nil || v.IsMet() || v.Met != 1 || v.NotMet[outbox.ReasonTimeout] != 1 {
		t.Errorf("got %+v, %v, want one met and one timed out", v, err)
	}
}
