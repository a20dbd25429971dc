package status_test

import (
	"context"
	"errors"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"
	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"
	"github.com/jackc/pgx/v5/pgxpool"

	"quorumbox/internal/peer"
	"quorumbox/internal/pgtest"
	"quorumbox/internal/status"
	"quorumbox/outbox"
)

func readFleet(t *testing.T, pool *pgxpool.Pool, marks status.Marks, limit int) status.Fleet {
	t.Helper()
	f, err := status.ReadFleet(t.Context(), pool, time.Minute, marks, limit)
	if err != nil {
		t.Fatal(err)
	}
	return f
}

func TestReadFleetOfAnEmptyDatabase(t *testing.T) {
	t.Parallel()
	f := readFleet(t, pgtest.New(t), status.Marks{}, 10)
	if len(f.Peers)+len(f.Lanes)+len(f.Refusals)+len(f.Workers)+len(f.Decided) > 0 || f.Unknown != (status.Leases{}) || f.At.IsZero() {
		t.Errorf("got %+v, want nothing", f)
	}
}

func TestReadFleetLanesAndRefusals(t *testing.T) {
	t.Parallel()
	pool := pgtest.New(t)
	exec(t, pool, log, 3, 10, "100 seconds", "met", "")
	exec(t, pool, log, 7, 20, "200 seconds", "met", "")
	exec(t, pool, `insert into peers (id, state) values ('a', 'active'), ('b', 'absent')`)
	exec(t, pool, `
		insert into lagging (peer, lane, cursor, pushed_to, holder, leased_until, retry, failures) values
			('a', 3, 4, 4, null, null, 1, 3),                              -- waits for its retry
			('a', 7, 18, 18, 77, now() + interval '1 minute', 2, 0),       -- is caught up
			('a', 9, 0, 0, null, null, 3, 0),                              -- has nothing to catch up
			('b', 3, 9, 9, 78, now() + interval '1 minute', null, 0)       -- a fan-out waits for its answer`)
	exec(t, pool, `
		insert into refusals (peer, entry, lane, class, first_at, next_at) values
			('a', 1, 3, 'skipped', now() - interval '500 seconds', now() + interval '200 seconds'),
			('a', 2, 3, 'skipped', now() - interval '300 seconds', now() + interval '100 seconds'),
			('a', 3, 3, 'too_large', now() - interval '300 seconds', now() - interval '1 hour'),
			('b', 1, 3, 'quota', now() - interval '300 seconds', now() + interval '300 seconds')`)
	f := readFleet(t, pool, status.Marks{}, 10)
	if diff := cmp.Diff([]status.Lane{
		{Peer: "a", Number: 3, Entries: 6, Age: 100, Failures: 3},
		{Peer: "a", Number: 7, Entries: 2, Age: 200, Pushing: true},
		{Peer: "b", Number: 3, InFlight: true},
	}, f.Lanes, near()); diff != "" {
		t.Errorf("lanes (-want +got):\n%s", diff)
	}
	if diff := cmp.Diff([]status.RefusalGroup{
		{Peer: "a", Class: peer.ClassSkipped, Entries: 2, FirstAge: 500, NextTry: 100},
		{Peer: "a", Class: peer.ClassTooLarge, Entries: 1, FirstAge: 300},
		{Peer: "b", Class: peer.ClassQuota, Entries: 1, FirstAge: 300, NextTry: 300},
	}, f.Refusals, near()); diff != "" {
		t.Errorf("refusals (-want +got):\n%s", diff)
	}
}

// Each lease is shown at the worker whose job holds it, and one that no running job names at nobody.
func TestReadFleetWorkers(t *testing.T) {
	t.Parallel()
	pool := pgtest.New(t)
	exec(t, pool, `insert into workers (id, host, version, started_at, seen_at) values
		('w1', 'h1', 'v', now() - interval '500 seconds', now()), ('w2', 'h2', 'v', now() - interval '900 seconds', now() - interval '100 seconds')`)
	exec(t, pool, `insert into peers (id) values ('a'), ('b')`)
	for lane := range 4 {
		exec(t, pool, log, lane, 1, "10 seconds", "pending", "")
	}
	exec(t, pool, `update batches set decided_at = null, fan_out = 100 + lane / 2`)
	exec(t, pool, `
		insert into lagging (peer, lane, cursor, pushed_to, holder, leased_until, retry) values
			('a', 0, 0, 0, 200, now() + interval '1 minute', 5),     -- of the retry
			('a', 1, 0, 0, 200, now() + interval '1 minute', 6),     -- taken along by it
			('a', 2, 0, 0, 300, now() + interval '1 minute', null),  -- a repair's
			('a', 3, 0, 0, 400, now() + interval '1 minute', null),  -- a redelivery's
			('b', 0, 0, 0, 100, now() + interval '1 minute', null),  -- a straggler of a fan-out
			('b', 1, 0, 0, 999, now() - interval '1 minute', 7),     -- of a worker that died
			('b', 2, 0, 0, null, null, 8)`)
	exec(t, pool, `insert into refusals (peer, entry, lane, class) values ('a', 44, 3, 'skipped')`)
	exec(t, pool, `insert into snapshots (peer, reason, phase, settled, holder, leased_until, retry) values ('b', 'asked', 'memories', true, 500, now() + interval '1 minute', 9)`)
	exec(t, pool, `
		insert into river_job (kind, state, args, attempted_by, attempt, max_attempts, queue, attempted_at, finalized_at) values
			('fan_out', 'running', '{"fan_out": 100}', '{old,w1}', 1, 25, 'fan_out', now(), null),
			('fan_out', 'running', '{"fan_out": 7}', '{w2}', 1, 25, 'fan_out', now(), null),
			('peer_retry', 'running', '{"peer": "a", "lane": 0, "retry": 5}', '{w1}', 1, 25, 'peer_a', now(), null),
			('peer_retry', 'available', '{"peer": "b", "lane": 2, "retry": 8}', '{w1}', 1, 25, 'peer_b', now(), null),
			('repair', 'running', '{"peer": "a", "lane": 2}', '{w2}', 1, 25, 'peer_a', now(), null),
			('redeliver', 'running', '{"peer": "a", "entry": 44}', '{w3}', 1, 25, 'peer_a', now(), null),
			('snapshot', 'running', '{"peer": "b", "retry": 9}', '{w2}', 1, 25, 'peer_b', now(), null),
			('fan_out', 'completed', '{"fan_out": 101}', '{w1}', 1, 25, 'fan_out', now(), now())`)
	f := readFleet(t, pool, status.Marks{}, 10)
	want := []status.Worker{
		{ID: "w1", Host: "h1", Version: "v", Running: 500, Leases: status.Leases{FanOuts: 1, Batches: 2, Retries: 1, Lanes: 3}},
		{ID: "w2", Host: "h2", Version: "v", Running: 900, Silent: 100, Leases: status.Leases{FanOuts: 1, Repairs: 1, Lanes: 1, Snapshots: 1}},
		{ID: "w3", Leases: status.Leases{Redeliveries: 1, Lanes: 1}}, // of a release without the table
	}
	if diff := cmp.Diff(want, f.Workers, near()); diff != "" {
		t.Errorf("workers (-want +got):\n%s", diff)
	}
	if diff := cmp.Diff(status.Leases{Batches: 2, Lanes: 1}, f.Unknown); diff != "" {
		t.Errorf("leased to nobody (-want +got):\n%s", diff)
	}
}

func TestReadFleetDecided(t *testing.T) {
	t.Parallel()
	pool := pgtest.New(t)
	exec(t, pool, log, 0, 5, "30 seconds", "met", "")
	exec(t, pool, log, 31, 3, "20 seconds", "not_met", "timeout")
	exec(t, pool, log, 31, 1, "10 seconds", "pending", "")
	exec(t, pool, `update batches set decided_at = decided_at + interval '2 seconds' where lane = 31 and verdict <> 'pending'`)
	exec(t, pool, `delete from outbox where lane = 0`)
	lane := func(number int16) status.Decision {
		return status.Decision{Lane: number, Entries: 1, Met: true}
	}
	missed := lane(31)
	missed.Met, missed.Reason, missed.Oldest, missed.Newest = false, outbox.ReasonTimeout, new(status.Seconds(2)), new(status.Seconds(2))
	numbered := func(d status.Decision, n int64) status.Decision { d.Number = n; return d }
	for _, c := range []struct {
		name  string
		marks status.Marks
		limit int
		want  []status.Decision
	}{
		{"the newest", status.Marks{}, 2, []status.Decision{numbered(lane(0), 4), numbered(lane(0), 5), numbered(missed, 2), numbered(missed, 3)}},
		{"behind marks", status.Marks{0: 5, 31: 2}, 2, []status.Decision{numbered(missed, 3)}},
	} {
		got := readFleet(t, pool, c.marks, c.limit).Decided
		if diff := cmp.Diff(c.want, got, near(), cmpopts.IgnoreFields(status.Decision{}, "At")); diff != "" {
			t.Errorf("%s (-want +got):\n%s", c.name, diff)
		}
	}
}

// A reading that the database cannot finish ends, and leaves nothing behind on the connection.
func TestReadFleetTimeout(t *testing.T) {
	t.Parallel()
	pool := pgtest.New(t)
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	conn, err := pgx.Connect(ctx, pool.Config().ConnString())
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = conn.Close(context.WithoutCancel(ctx)) }()
	if _, err := status.ReadFleet(ctx, conn, time.Minute, status.Marks{}, 10); err != nil { // prepares
		t.Fatal(err)
	}
	blocker, err := pool.Begin(ctx)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = blocker.Rollback(context.WithoutCancel(ctx)) }()
	if _, err := blocker.Exec(ctx, `lock table snapshots in access exclusive mode`); err != nil {
		t.Fatal(err)
	}
	_, err = status.ReadFleet(ctx, conn, 100*time.Millisecond, status.Marks{}, 10)
	if e, ok := errors.AsType[*pgconn.PgError](err); !ok || e.Code != "57014" {
		t.Errorf("got %v, want a cancelled statement", err)
	}
	var timeout string
	if err := conn.QueryRow(ctx, `show statement_timeout`).Scan(&timeout); err != nil || timeout != "0" {
		t.Errorf("got a statement timeout of %s, %v, afterwards, want none", timeout, err)
	}
}

// What a reading costs does not depend on how much there is.
func TestReadFleetScansNoLargeTable(t *testing.T) {
	t.Parallel()
	pool := pgtest.New(t)
	exec(t, pool, `insert into peers (id) values ('a'), ('b')`)
	for lane := range 8 {
		exec(t, pool, log, lane, 5000, "10 seconds", "met", "")
	}
	exec(t, pool, `insert into lagging (peer, lane, cursor, pushed_to, retry) select p, l, 17, 17, 1 from unnest('{a,b}'::text[]) p, generate_series(0, 7) l`)
	exec(t, pool, `
		insert into river_job (kind, state, args, attempted_by, attempt, max_attempts, queue, finalized_at)
		select 'fan_out', 'completed', '{"fan_out": 1}', '{w1}', 1, 25, 'fan_out', now() from generate_series(1, 20000)`)
	exec(t, pool, `vacuum analyze outbox, batches, lagging, river_job`)
	const limit = 50
	readFleet(t, pool, status.Marks{}, limit) // plans and caches
	err := pgx.BeginFunc(t.Context(), pool, func(tx pgx.Tx) error {
		count := func() (scanned, fetched int64) {
			err := tx.QueryRow(t.Context(), `
				select sum(seq_tup_read)::bigint, sum(coalesce(idx_tup_fetch, 0))::bigint
				from pg_stat_xact_user_tables
				where relname in ('outbox', 'batches', 'river_job')`).Scan(&scanned, &fetched)
			if err != nil {
				t.Fatal(err)
			}
			return scanned, fetched
		}
		scannedBefore, fetchedBefore := count()
		if _, err := status.ReadFleet(t.Context(), tx, time.Minute, status.Marks{}, limit); err != nil {
			return err
		}
		scanned, fetched := count()
		scanned, fetched = scanned-scannedBefore, fetched-fetchedBefore
		// A batch and its two entries; a few look-ups for each lagging lane, twice; and the heads of the lanes.
		if most := int64(8*limit*3 + 2*16*5 + 50); scanned > 0 || fetched > most || fetched < 8*limit*3 {
			t.Errorf("got %d rows by scans and %d by index, want none and at most %d", scanned, fetched, most)
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
}
