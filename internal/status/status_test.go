package status_test

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"math"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"
	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgxpool"

	"quorumbox/internal/peer"
	"quorumbox/internal/pgtest"
	"quorumbox/internal/status"
	"quorumbox/outbox"
)

func exec(t *testing.T, pool *pgxpool.Pool, sql string, args ...any) {
	t.Helper()
	if _, err := pool.Exec(t.Context(), sql, args...); err != nil {
		t.Fatal(err)
	}
}

func read(t *testing.T, pool *pgxpool.Pool) status.Report {
	t.Helper()
	r, err := status.Read(t.Context(), pool)
	if err != nil {
		t.Fatal(err)
	}
	return r
}

// lead makes River's table say that a worker runs.
const lead = `insert into river_leader (name, leader_id, elected_at, expires_at) values ('default', 'test', now(), now() + interval '1 minute')`

// log writes n entries of one lane, each in a batch of its own, decided as verdict says, written and dispatched ago.
const log = `
	with written as (
		insert into outbox (lane, namespace, kind, key, created_at)
		select $1, 'n', 'delete', 'k', now() - $3::interval from generate_series(1, $2)
		returning id
	), numbered as (
		select id, row_number() over (order by id) as i from written
	)
	insert into batches (lane, number, entries, first_entry, last_entry, bytes, position, fan_out, leased_until, verdict, reason, needed,
		acked, dispatched_at, decided_at)
	select $1, h.number + i, array[id], id, id, 1, h.position + i, 0, now(), $4, $5, 1, '{}', now() - $3::interval, now() - $3::interval
	from numbered,
	     (select coalesce(max(number), 0) as number, coalesce(max(position), 0) as position from batches where lane = $1) h`

// near compares reports but for the time at which tests run.
func near() cmp.Option {
	return cmp.Options{
		cmp.Comparer(func(a, b status.Seconds) bool { return math.Abs(float64(a-b)) < 20 }),
		cmpopts.IgnoreFields(status.Report{}, "At", "Summary"),
		cmpopts.EquateEmpty(),
	}
}

func TestReadOfAnEmptyDatabase(t *testing.T) {
	t.Parallel()
	pool := pgtest.New(t)
	r := read(t, pool)
	if diff := cmp.Diff(status.Report{Verdicts: status.Verdicts{Window: 300}}, r, near()); diff != "" {
		t.Errorf("(-want +got):\n%s", diff)
	}
	if want := "no peers are known yet: start `worker run` with peers in its configuration"; r.Summary != want {
		t.Errorf("got  %s\nwant %s", r.Summary, want)
	}
	if d := time.Since(r.At); d.Abs() > time.Minute || r.At.Location() != time.UTC {
		t.Errorf("got the clock %s, want now in UTC", r.At)
	}
}

func TestReadWithoutTables(t *testing.T) {
	t.Parallel()
	conn, err := pgx.Connect(t.Context(), pgtest.EmptyURL(t))
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = conn.Close(context.WithoutCancel(t.Context())) }()
	if _, err := status.Read(t.Context(), conn); !errors.Is(err, status.ErrNoSchema) {
		t.Errorf("got %v, want ErrNoSchema", err)
	}
}

// One peer of each kind: in step, down, being caught up, paused, answering late, refusing, left.
func TestRead(t *testing.T) {
	t.Parallel()
	pool := pgtest.New(t)
	exec(t, pool, lead)
	exec(t, pool, log, 3, 10, "100 seconds", "met", "")
	exec(t, pool, log, 7, 1500, "200 seconds", "met", "")
	exec(t, pool, log, 7, 4, "40 seconds", "not_met", "timeout")
	exec(t, pool, log, 9, 2, "1 hour", "not_met", "refused") // outside the window
	exec(t, pool, log, 9, 1, "20 seconds", "not_met", "unreachable")
	exec(t, pool, log, 11, 1, "50 seconds", "pending", "")
	exec(t, pool, `update batches set decided_at = null where verdict = 'pending'`)
	exec(t, pool, `
		insert into peers (id, state, last_error_class, last_error_at) values
			('peer-a', 'active', '', null),
			('peer-b', 'active', 'refused_connection', now() - interval '40 seconds'),
			('peer-c', 'active', 'timeout', now() - interval '1000 seconds'),
			('peer-d', 'active', '', null),
			('peer-e', 'active', '', null),
			('peer-f', 'absent', '', null)`)
	exec(t, pool, `
		insert into lagging (peer, lane, cursor, pushed_to, holder, leased_until, retry, not_before, failures, last_class) values
			('peer-b', 3, 4, 4, null, null, 1, now() + interval '500 seconds', 3, 'refused_connection'),
			('peer-b', 7, 300, 300, null, null, 2, now() + interval '100 seconds', 8, 'refused_connection'),
			('peer-b', 9, 2, 2, 77, now() + interval '1 minute', null, now(), 0, ''),
			('peer-c', 7, 1503, 1503, 78, now() + interval '1 minute', 3, now() - interval '5 seconds', 0, ''),
			('peer-d', 7, 0, 0, null, null, 4, now() - interval '5 seconds', 0, ''),
			('peer-e', 9, 2, 2, 79, now() + interval '1 minute', null, now(), 0, '')`)
	exec(t, pool, `insert into refusals (peer, entry, lane, class) values ('peer-a', 1, 3, 'skipped'), ('peer-a', 2, 3, 'skipped')`)
	exec(t, pool, `insert into river_queue (name, created_at, updated_at, paused_at) values ('peer_peer-d', now(), now(), now()), ('fan_out', now(), now(), null)`)
	exec(t, pool, `
		with written as (
			insert into outbox (lane, namespace, kind, key, created_at)
			select lane, 'n', 'delete', 'k', now() - age * interval '1 second' from (values (30, 70), (30, 60), (31, 400), (0, 80)) v (lane, age)
			returning lane, id
		)
		insert into undispatched (lane, entry, bytes) select lane, id, 1 from written`)

	r := read(t, pool)
	want := status.Report{
		WorkerRuns: true,
		Peers: []status.Peer{
			{ID: "peer-a", State: "active", InStep: true, Refusals: 2},
			{
				ID: "peer-b", State: "active", LanesLagging: 2, EntriesLagging: 6 + 1204, OldestAge: 200, Failures: 8, NextTry: 100, InFlight: 1,
				LastError: &status.LastError{Class: peer.ClassRefusedConnection, Hint: peer.ClassRefusedConnection.Hint(), Age: 40},
			},
			{
				ID: "peer-c", State: "active", LanesLagging: 1, EntriesLagging: 1, OldestAge: 40, Pushing: true,
				LastError: &status.LastError{Class: peer.ClassTimeout, Hint: peer.ClassTimeout.Hint(), Age: 1000},
			},
			{ID: "peer-d", State: "active", Paused: true, LanesLagging: 1, EntriesLagging: 1504, OldestAge: 200},
			{ID: "peer-e", State: "active", InStep: true, InFlight: 1},
			{ID: "peer-f", State: "absent", InStep: true},
		},
		Undispatched: status.Undispatched{Entries: 4, OldestAge: 400},
		Undecided:    status.Undecided{Batches: 1, Entries: 1, OldestAge: 50},
		Verdicts: status.Verdicts{
			// Lane 7 has more batches than are looked at: the window ends at the oldest of those, for all lanes. Of that one only the time
			// counts, because its entries are the difference to the one before.
			Window: 200, Met: 495 + 10, NotMet: map[outbox.Reason]int64{outbox.ReasonTimeout: 4, outbox.ReasonUnreachable: 1},
		},
	}
	if diff := cmp.Diff(want, r, near()); diff != "" {
		t.Errorf("(-want +got):\n%s", diff)
	}
	if diff := cmp.Diff([]string{"peer-b", "peer-d"}, r.Late(time.Minute)); diff != "" {
		t.Errorf("later than a minute (-want +got):\n%s", diff)
	}
	if late := r.Late(time.Hour); late != nil {
		t.Errorf("got %v later than an hour, want none", late)
	}
}

// What Read costs does not depend on how much there is: no plan may scan a large table.
func TestReadScansNoLargeTable(t *testing.T) {
	t.Parallel()
	pool := pgtest.New(t)
	exec(t, pool, `insert into peers (id) values ('a'), ('b')`)
	for lane := range 8 {
		exec(t, pool, log, lane, 5000, "10 seconds", "met", "")
	}
	exec(t, pool, `
		insert into lagging (peer, lane, cursor, pushed_to, retry) select p, l, 17, 17, 1 from unnest('{a,b}'::text[]) p, generate_series(0, 7) l`)
	exec(t, pool, `insert into undispatched (lane, entry, bytes) select 9, id, 1 from outbox limit 10`)
	exec(t, pool, `vacuum analyze outbox, batches, lagging, undispatched`)
	read(t, pool) // plans and caches

	var before, after [2]int64 // rows by scans, rows by index
	err := pgx.BeginFunc(t.Context(), pool, func(tx pgx.Tx) error {
		look := func(at *[2]int64) error {
			return tx.QueryRow(t.Context(), `
				select sum(seq_tup_read)::bigint, sum(coalesce(idx_tup_fetch, 0))::bigint
				from pg_stat_xact_user_tables
				where relname in ('outbox', 'batches')`).Scan(&at[0], &at[1])
		}
		if err := look(&before); err != nil {
			return err
		}
		if _, err := status.Read(t.Context(), tx); err != nil {
			return err
		}
		return look(&after)
	})
	if err != nil {
		t.Fatal(err)
	}
	seq, index := after[0]-before[0], after[1]-before[1]
	if seq != 0 || index > 8*500+1000 {
		t.Errorf("read %d rows by scans and %d by index, want none and a few look-ups beside the newest 500 batches of 8 lanes", seq, index)
	}
}

func TestSentence(t *testing.T) {
	t.Parallel()
	inStep := func(ids ...string) (list []status.Peer) {
		for _, id := range ids {
			list = append(list, status.Peer{ID: id, State: "active", InStep: true})
		}
		return list
	}
	down := status.Peer{
		ID: "peer-b", State: "active", LanesLagging: 3, EntriesLagging: 1204, OldestAge: 34, Failures: 5, NextTry: 4.2,
		LastError: &status.LastError{Class: peer.ClassRefusedConnection, Hint: "start it", Age: 2.7},
	}
	lagging := func(id string, age status.Seconds) status.Peer {
		return status.Peer{ID: id, State: "active", LanesLagging: 1, EntriesLagging: 1, OldestAge: age, Pushing: true}
	}
	tests := []struct {
		name   string
		report status.Report
		want   string
	}{
		{"in step", status.Report{WorkerRuns: true, Peers: inStep("a", "b", "c")}, "all 3 peers are in step"},
		{"one peer", status.Report{WorkerRuns: true, Peers: inStep("a")}, "the one peer is in step"},
		{
			"one down",
			status.Report{WorkerRuns: true, Peers: append(inStep("a", "c"), down)},
			"peer-b misses 1,204 entries for 34s: refused connection 2s ago, next try in 4s; 2 other peers are in step",
		},
		{
			"many lag, the worst first",
			status.Report{WorkerRuns: true, Peers: []status.Peer{lagging("a", 1), lagging("b", 90), lagging("c", 7200), lagging("d", 0.25), lagging("e", 100000)}},
			"e misses 1 entry for 1d3h, catching up; c misses 1 entry for 2h00m, catching up; b misses 1 entry for 1m30s, catching up; 2 peers more lag too",
		},
		{
			"paused",
			status.Report{WorkerRuns: true, Peers: []status.Peer{{ID: "a", State: "active", Paused: true, EntriesLagging: 2, OldestAge: 60}}},
			"a misses 2 entries for 1m, paused by an operator (`worker peers resume a`)",
		},
		{
			"due",
			status.Report{WorkerRuns: true, Peers: []status.Peer{{ID: "a", State: "active", EntriesLagging: 2, OldestAge: 0.04}}},
			"a misses 2 entries for 40ms, next try now",
		},
		{
			"quorum missed",
			status.Report{
				WorkerRuns: true, Peers: inStep("a", "b"),
				Verdicts: status.Verdicts{Window: 300, Met: 988, NotMet: map[outbox.Reason]int64{"timeout": 10, "refused": 2}},
			},
			"all 2 peers are in step; in the last 5m 12 of 1,000 entries missed the quorum (refused 2, timeout 10)",
		},
		{
			"refusals",
			status.Report{WorkerRuns: true, Peers: []status.Peer{{ID: "a", State: "active", InStep: true, Refusals: 1}}},
			"the one peer is in step; a refuses 1 entry for good",
		},
		{
			"no worker",
			status.Report{Peers: inStep("a", "b"), Undispatched: status.Undispatched{Entries: 5, OldestAge: 60}},
			"all 2 peers are in step; no worker is running, so 5 entries wait: start `worker run`",
		},
		{
			"no worker and nothing to do",
			status.Report{Peers: inStep("a", "b")},
			"all 2 peers are in step; no worker is running, so nothing is sent: start `worker run`",
		},
		{
			"slow dispatch",
			status.Report{WorkerRuns: true, Peers: inStep("a", "b"), Undispatched: status.Undispatched{Entries: 5, OldestAge: 60}},
			"all 2 peers are in step; 5 entries wait for dispatch, the oldest for 1m",
		},
		{
			"slow verdict",
			status.Report{WorkerRuns: true, Peers: inStep("a", "b"), Undecided: status.Undecided{Batches: 1, Entries: 1, OldestAge: 61}},
			"all 2 peers are in step; 1 entry waits for a verdict, the oldest for 1m01s",
		},
		{
			"on the way",
			status.Report{
				WorkerRuns: true, Peers: inStep("a", "b"),
				Undispatched: status.Undispatched{Entries: 5, OldestAge: 0.1}, Undecided: status.Undecided{Batches: 1, Entries: 7, OldestAge: 0.1},
			},
			"all 2 peers are in step; 12 entries are on the way",
		},
		{
			"fan-out paused, migrations",
			status.Report{WorkerRuns: true, FanOutPaused: true, Peers: inStep("a", "b"), Migrations: "2 migrations are pending: run it"},
			"all 2 peers are in step; the queue fan_out is paused by an operator, so nothing is pushed: resume it in River UI; 2 migrations are pending: run it",
		},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			if got := tt.report.Sentence(); got != tt.want {
				t.Errorf("got  %s\nwant %s", got, tt.want)
			}
		})
	}
}

func TestWriteText(t *testing.T) {
	t.Parallel()
	r := status.Report{
		WorkerRuns: true,
		Peers: []status.Peer{
			{ID: "peer-a", State: "active", InStep: true},
			{
				ID: "peer-b", State: "active", LanesLagging: 3, EntriesLagging: 1204, OldestAge: 34.6, Failures: 5, NextTry: 4.2, Refusals: 2,
				LastError: &status.LastError{Class: peer.ClassRefusedConnection, Hint: "start it", Age: 11},
			},
			{ID: "peer-c", State: "absent", InStep: true},
		},
		Undecided: status.Undecided{Batches: 1, Entries: 1, OldestAge: 0.2},
		Verdicts:  status.Verdicts{Window: 300, Met: 12345, NotMet: map[outbox.Reason]int64{"timeout": 10}},
	}
	var got strings.Builder
	if err := r.WriteText(&got); err != nil {
		t.Fatal(err)
	}
	const want = `
PEER    STATE    LANES  ENTRIES  OLDEST  FAILURES  NEXT TRY  REFUSED  LAST ERROR
peer-a  in step  -      -        -       -         -         -        -
peer-b  lagging  3      1,204    34s     5         4s        2        refused_connection, 11s ago
peer-c  absent   -      -        -       -         -         -        -

undispatched       none
undecided          1 entry, oldest 200ms
verdicts, last 5m  12,345 met, 10 not met (timeout 10)

peer-b: start it
peer-b misses 1,204 entries for 34s: refused connection 11s ago, next try in 4s; 2 other peers are in step; peer-b refuses 2 entries for good; in the last 5m 10 of 12,355 entries missed the quorum (timeout 10); 1 entry is on the way
`
	if diff := cmp.Diff(strings.TrimPrefix(want, "\n"), got.String()); diff != "" {
		t.Errorf("(-want +got):\n%s", diff)
	}
}

// A peer that is brought the current state says so, and how far that is; its parked lanes are no retries in a hundred years.
func TestReadOfASnapshot(t *testing.T) {
	t.Parallel()
	pool := pgtest.New(t)
	exec(t, pool, lead)
	exec(t, pool, log, 3, 5, time.Minute, "met", "")
	exec(t, pool, `
		insert into peers (id) values ('a'), ('b'), ('c');
		insert into lagging (peer, lane, cursor, pushed_to, not_before)
		select p, l, 1, 1, now() + interval '100 years' from unnest('{a,b}'::text[]) p, generate_series(0, 31) l;
		insert into snapshots (peer, reason, phase, settled, pushed, total, started_at, holder, leased_until)
		values ('a', 'new', 'memories', true, 1200, 5000, now() - interval '1 minute', 1, now() + interval '1 minute');
		insert into snapshots (peer, reason, phase, settled, doubt_until, not_before)
		values ('b', 'overdue', 'deletions', true, now() + interval '90 seconds', now() + interval '90 seconds')`)
	r := read(t, pool)
	want := []status.Peer{
		{
			ID: "a", State: "active", LanesLagging: 32, EntriesLagging: 4, OldestAge: 60, Pushing: true,
			Snapshot: &status.Snapshot{Reason: "new", Phase: "memories", Pushed: 1200, Total: 5000, Running: 60},
		},
		{
			ID: "b", State: "active", LanesLagging: 32, EntriesLagging: 4, OldestAge: 60, NextTry: 90,
			Snapshot: &status.Snapshot{Reason: "overdue", Phase: "deletions", Waits: 90},
		},
		{ID: "c", State: "active", InStep: true},
	}
	if diff := cmp.Diff(want, r.Peers, near()); diff != "" {
		t.Errorf("(-want +got):\n%s", diff)
	}
	for _, part := range []string{
		"a is brought the current state (new): memories, 1,200 of about 5,000 pushed in 1m",
		"b is brought the current state (away for too long): deletions, 0 of about 0 pushed in ",
		"until nothing that was pushed before can arrive any more", "1 other peer is in step",
	} {
		if !strings.Contains(r.Summary, part) {
			t.Errorf("got %q, want %q in it", r.Summary, part)
		}
	}
	var b strings.Builder
	if err := r.WriteText(&b); err != nil || !strings.Contains(b.String(), "a     snapshot") {
		t.Errorf("got %v\n%s\nwant the state snapshot", err, b.String())
	}
}

// The JSON is an interface: this is what scripts may rely on.
func TestReportJSON(t *testing.T) {
	t.Parallel()
	r := status.Report{
		At: time.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC), Summary: "words", WorkerRuns: true,
		Peers: []status.Peer{
			{ID: "a", State: "active", InStep: true},
			{
				ID: "b", State: "active", LanesLagging: 1, EntriesLagging: 2, OldestAge: 1.23456, Failures: 3, NextTry: 1,
				LastError: &status.LastError{Class: peer.ClassTLS, Hint: "h", Age: 4},
			},
		},
		Verdicts: status.Verdicts{Window: 300, Met: 1, NotMet: map[outbox.Reason]int64{"timeout": 2}},
	}
	got, err := json.Marshal(r)
	if err != nil {
		t.Fatal(err)
	}
	const peerA = `{"id":"a","state":"active","paused":false,"in_step":true,"lanes_lagging":0,"entries_lagging":0,"oldest_age_seconds":0,` +
		`"failures":0,"pushing":false,"next_try_seconds":0,"lanes_in_flight":0,"last_error":null,"refusals":0,"doubts":0,"repairs":0}`
	const peerB = `{"id":"b","state":"active","paused":false,"in_step":false,"lanes_lagging":1,"entries_lagging":2,"oldest_age_seconds":1.235,` +
		`"failures":3,"pushing":false,"next_try_seconds":1,"lanes_in_flight":0,"last_error":{"class":"tls","hint":"h","age_seconds":4},"refusals":0,"doubts":0,"repairs":0}`
	want := fmt.Sprintf(`{"at":"2026-01-02T03:04:05Z","summary":"words","worker_running":true,"peers":[%s,%s],`+
		`"undispatched":{"entries":0,"oldest_age_seconds":0},"undecided":{"batches":0,"entries":0,"oldest_age_seconds":0},`+
		`"verdicts":{"window_seconds":300,"met":1,"not_met":{"timeout":2}},"fan_out_paused":false}`, peerA, peerB)
	if diff := cmp.Diff(want, string(got)); diff != "" {
		t.Errorf("(-want +got):\n%s", diff)
	}
}
