package outbox_test

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgxpool"

	"quorumbox/internal/pgtest"
	"quorumbox/outbox"
)

// remove appends a delete, the smallest entry there is.
func remove(ctx context.Context, tx pgx.Tx, namespace, key string, after ...outbox.EntryID) (outbox.EntryID, error) {
	return outbox.Append(ctx, tx, outbox.Entry{Namespace: namespace, Kind: outbox.KindDelete, Key: key, After: after})
}

func isDispatched(t *testing.T, pool *pgxpool.Pool, key string) bool {
	t.Helper()
	return count(t, pool, `select count(*) from undispatched u join outbox o on o.id = u.entry where o.key = $1`, key) == 0
}

func lane(t *testing.T, pool *pgxpool.Pool, namespace string) int {
	t.Helper()
	return count(t, pool, `select outbox_lane($1)`, namespace)
}

// An entry with several dependencies waits until all of them are decided, and its batch names those that a peer misses.
func TestRelayWaitsForSeveralLanes(t *testing.T) {
	t.Parallel()
	for name, missed := range map[string][]string{
		"no peer misses them":   nil,
		"a peer misses the one": {there},
		"a peer misses both":    {here, there},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			pool := pgtest.New(t)
			ctx := t.Context()
			startRelay(t, pool, &recorder{}, outbox.RelayConfig{InFlight: 32})
			one := must(t, pool, func(tx pgx.Tx) (outbox.EntryID, error) { return remove(ctx, tx, here, "one") })
			two := must(t, pool, func(tx pgx.Tx) (outbox.EntryID, error) { return remove(ctx, tx, there, "two") })
			eventually(t, "both dispatched", func() bool { return undispatched(t, pool) == 0 })
			var want []string
			for _, ns := range missed {
				_, err := pool.Exec(ctx, `
					with p as (insert into peers (id) values ('a') on conflict do nothing)
					insert into lagging (peer, lane, cursor, pushed_to) values ('a', outbox_lane($1), 0, 1)`, ns)
				if err != nil {
					t.Fatal(err)
				}
				want = append(want, fmt.Sprintf("%d/1", lane(t, pool, ns)))
			}
			must(t, pool, func(tx pgx.Tx) (outbox.EntryID, error) { return remove(ctx, tx, "app", "waits", two, one) })
			decideLane := func(ns string) {
				t.Helper()
				_, err := pool.Exec(ctx, `update batches set verdict = 'not_met', reason = 'timeout', needed = 2 where lane = outbox_lane($1)`, ns)
				if err != nil {
					t.Fatal(err)
				}
			}
			decideLane(here)
			// When a later entry of another lane is dispatched, the relay has looked at this one too.
			must(t, pool, func(tx pgx.Tx) (outbox.EntryID, error) { return remove(ctx, tx, far, "later") })
			eventually(t, "the later one dispatched", func() bool { return isDispatched(t, pool, "later") })
			if isDispatched(t, pool, "waits") {
				t.Error("got the entry dispatched while one of its dependencies is undecided")
			}
			decideLane(there)
			eventually(t, "dispatched", func() bool { return isDispatched(t, pool, "waits") })
			all := batches(t, pool)
			got := strings.Fields(all[len(all)-1].After)
			slices.Sort(got)
			slices.Sort(want)
			if diff := cmp.Diff(want, got); diff != "" && len(want)+len(got) > 0 {
				t.Errorf("batch comes after (-want +got):\n%s", diff)
			}
		})
	}
}

// fast is the rule of these tests: namespaces that start with "fast/" have their own.
func fast(namespace string) int {
	if strings.HasPrefix(namespace, "fast/") {
		return 1
	}
	return 0
}

// sharedLane returns two namespaces of one lane that have different rules.
func sharedLane(t *testing.T, pool *pgxpool.Pool) (slow, quick string) {
	t.Helper()
	err := pool.QueryRow(t.Context(), `
		select 'slow/1', 'fast/' || n from generate_series(1, 10000) n where outbox_lane('fast/' || n) = outbox_lane('slow/1') limit 1`).Scan(&slow, &quick)
	if err != nil {
		t.Fatal(err)
	}
	return slow, quick
}

func TestRelayKeepsRulesApart(t *testing.T) {
	t.Parallel()
	pool := pgtest.New(t)
	slow, quick := sharedLane(t, pool)
	inTx(t, pool, func(tx pgx.Tx) {
		for _, e := range [][2]string{{slow, "s1"}, {slow, "s2"}, {quick, "f1"}, {slow, "s3"}, {here, "h1"}, {"fast/other", "f2"}} {
			if _, err := remove(t.Context(), tx, e[0], e[1]); err != nil {
				t.Fatal(err)
			}
		}
	})
	startRelay(t, pool, &recorder{}, outbox.RelayConfig{Rule: fast})
	eventually(t, "all dispatched", func() bool {
		decide(t, pool, "met")
		return undispatched(t, pool) == 0
	})
	var got [][]string
	for _, b := range batches(t, pool) {
		if int(b.Lane) == lane(t, pool, slow) {
			got = append(got, b.Keys)
		}
	}
	if diff := cmp.Diff([][]string{{"s1", "s2"}, {"f1"}, {"s3"}}, got); diff != "" {
		t.Errorf("batches of the shared lane (-want +got):\n%s", diff)
	}
	mixed := count(t, pool, `
		select count(*) from (
			select b.fan_out
			from batches b
			cross join lateral unnest(b.entries) e (id)
			join outbox o on o.id = e.id
			group by b.fan_out
			having count(distinct o.namespace like 'fast/%') > 1
		) f`)
	if mixed != 0 {
		t.Errorf("got %d fan-outs with batches of two rules, want none", mixed)
	}
}

// A lane that always has work of one rule must not keep another rule's lane waiting: what was left out for its rule is first the next time.
func TestRelayRulesDoNotStarve(t *testing.T) {
	t.Parallel()
	for name, c := range map[string]struct{ busy, waiting string }{
		"the other rule waits": {"slow/1", "fast/1"},
		"and the other way":    {"fast/1", "slow/1"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			pool := pgtest.New(t)
			ctx := t.Context()
			// One fan-out at a time, so that no look finds the busy lane occupied.
			cfg := outbox.RelayConfig{Rule: fast, InFlight: 1, HoldFor: 1 << 62}
			inTx(t, pool, func(tx pgx.Tx) {
				for _, e := range [][2]string{{c.busy, "busy"}, {c.waiting, "waiting"}} {
					if _, err := remove(ctx, tx, e[0], e[1]); err != nil {
						t.Fatal(err)
					}
				}
			})
			startRelay(t, pool, &recorder{}, cfg)
			for round := 1; ; round++ {
				eventually(t, "a fan-out", func() bool { return len(batches(t, pool)) == round })
				if isDispatched(t, pool, "waiting") {
					break
				}
				if round == 3 {
					t.Fatal("not dispatched after three fan-outs of the busy lane")
				}
				inTx(t, pool, func(tx pgx.Tx) {
					if _, err := remove(ctx, tx, c.busy, "busy"); err != nil {
						t.Fatal(err)
					}
					if _, err := tx.Exec(ctx, `update batches set verdict = 'met', needed = 1 where verdict = 'pending'`); err != nil {
						t.Fatal(err)
					}
				})
			}
		})
	}
}

// The newest entry of a lane is the one that is dispatched last, whatever its id.
func TestNewestIsByDispatch(t *testing.T) {
	t.Parallel()
	pool := pgtest.New(t)
	newestOf := func() string {
		t.Helper()
		var key string
		err := pool.QueryRow(t.Context(), `select coalesce((select key from outbox where id = outbox_newest(outbox_lane($1))), 'none')`, here).Scan(&key)
		if err != nil {
			t.Fatal(err)
		}
		return key
	}
	want := func(key, when string) {
		t.Helper()
		if got := newestOf(); got != key {
			t.Errorf("%s: got %s, want %s", when, got, key)
		}
	}
	want("none", "empty lane")
	late, err := pool.Begin(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	if _, err := outbox.Store(t.Context(), late, memory("late")); err != nil { // takes the smaller id
		t.Fatal(err)
	}
	store(t, pool, memory("early"))
	want("early", "waiting")
	startRelay(t, pool, &recorder{}, outbox.RelayConfig{})
	eventually(t, "dispatched", func() bool { return undispatched(t, pool) == 0 })
	want("early", "dispatched")
	if err := late.Commit(t.Context()); err != nil {
		t.Fatal(err)
	}
	want("late", "waiting with a smaller id than what is dispatched")
	decide(t, pool, "met")
	eventually(t, "dispatched", func() bool { return undispatched(t, pool) == 0 })
	want("late", "dispatched last")
}
