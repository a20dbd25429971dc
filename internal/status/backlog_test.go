package status_test

import (
	"context"
	"errors"
	"slices"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"
	"github.com/jackc/pgx/v5"
	"github.com/riverqueue/river/rivertype"

	"quorumbox/internal/peer"
	"quorumbox/internal/pgtest"
	"quorumbox/internal/status"
)

func TestReadBacklog(t *testing.T) {
	t.Parallel()
	pool := pgtest.New(t)
	exec(t, pool, log, 3, 10, "100 seconds", "met", "")
	exec(t, pool, log, 11, 1, "50 seconds", "pending", "")
	exec(t, pool, `insert into peers (id, state) values ('a', 'active'), ('b', 'paused'), ('c', 'absent')`)
	exec(t, pool, `insert into lagging (peer, lane, cursor, pushed_to, retry) values ('b', 3, 4, 4, 1)`)
	exec(t, pool, `
		insert into refusals (peer, entry, lane, class)
		values ('a', 1, 3, 'skipped'), ('a', 2, 3, 'skipped'), ('a', 3, 3, 'bad_request'), ('b', 1, 3, 'skipped'), ('c', 1, 3, 'skipped')`)
	exec(t, pool, `insert into undispatched (lane, entry, bytes) select 9, id, 1 from outbox order by id limit 1`)
	exec(t, pool, `
		insert into river_job (state, kind, queue, max_attempts, args, finalized_at)
		select s::river_job_state, k, 'q', 25, '{}', case when s in ('completed', 'cancelled', 'discarded') then now() end
		from (values ('available', 'fan_out'), ('available', 'fan_out'), ('available', 'peer_retry'), ('discarded', 'of_a_later_release'), ('completed', 'fan_out')) j (s, k)`)

	got, err := status.ReadBacklog(t.Context(), pool)
	if err != nil {
		t.Fatal(err)
	}
	report := read(t, pool)
	want := status.Backlog{
		Peers: report.Peers, Undispatched: report.Undispatched, Undecided: report.Undecided,
		Refusals: []status.Refusals{
			{Peer: "a", Class: peer.ClassBadRequest, Entries: 1},
			{Peer: "a", Class: peer.ClassSkipped, Entries: 2},
			{Peer: "b", Class: peer.ClassSkipped, Entries: 1},
		},
		Tables: tables(),
		Jobs: []status.Jobs{
			{Kind: "fan_out", State: rivertype.JobStateAvailable, Jobs: 2},
			{Kind: "of_a_later_release", State: rivertype.JobStateDiscarded, Jobs: 1},
			{Kind: "peer_retry", State: rivertype.JobStateAvailable, Jobs: 1},
		},
	}
	for _, table := range got.Tables {
		if table.Bytes <= 0 {
			t.Errorf("%s: got %d bytes, want the size of its indexes at least", table.Name, table.Bytes)
		}
	}
	if diff := cmp.Diff(want, got, near(), cmpopts.IgnoreFields(status.Table{}, "Live", "Dead", "Bytes")); diff != "" {
		t.Errorf("(-want +got):\n%s", diff)
	}
	if b := got.Peers[1]; b.EntriesLagging != 6 || got.Undispatched.Entries != 1 || got.Undecided.Batches != 1 {
		t.Errorf("got %d, %d and %d, want 6 lagging and 1 undispatched entry and 1 undecided batch",
			b.EntriesLagging, got.Undispatched.Entries, got.Undecided.Batches)
	}
}

func tables() (list []status.Table) {
	for _, name := range status.Tables() {
		list = append(list, status.Table{Name: name})
	}
	return list
}

func TestReadBacklogTellsOfBloat(t *testing.T) {
	t.Parallel()
	pool := pgtest.New(t)
	exec(t, pool, log, 3, 10, "100 seconds", "met", "")
	exec(t, pool, `delete from outbox where id in (select id from outbox order by id limit 4)`)
	conn, err := pgx.Connect(t.Context(), pool.Config().ConnString())
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = conn.Close(context.WithoutCancel(t.Context())) }()
	if _, err := conn.Exec(t.Context(), `begin isolation level repeatable read; select`); err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	tick := time.NewTicker(20 * time.Millisecond)
	defer tick.Stop()
	want := status.Table{Name: "outbox", Live: 6, Dead: 4}
	shown := func(table status.Table) bool { table.Bytes = 0; return table == want }
	for {
		got, err := status.ReadBacklog(t.Context(), pool)
		if err != nil {
			t.Fatal(err)
		}
		if slices.ContainsFunc(got.Tables, shown) && got.OldestXmin > 0 { // the server counts with a delay
			return
		}
		select {
		case <-ctx.Done():
			t.Fatalf("got %+v and %v, want %+v and the age of the open transaction", got.Tables, got.OldestXmin, want)
		case <-tick.C:
		}
	}
}

func TestReadBacklogOfAnEmptyDatabase(t *testing.T) {
	t.Parallel()
	got, err := status.ReadBacklog(t.Context(), pgtest.New(t))
	if diff := cmp.Diff(status.Backlog{Tables: tables()}, got, cmpopts.EquateEmpty(), cmpopts.IgnoreFields(status.Table{}, "Bytes")); err != nil || diff != "" {
		t.Errorf("got %v (-want +got):\n%s", err, diff)
	}
}

func TestReadBacklogWithoutTables(t *testing.T) {
	t.Parallel()
	conn, err := pgx.Connect(t.Context(), pgtest.EmptyURL(t))
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = conn.Close(context.WithoutCancel(t.Context())) }()
	if _, err := status.ReadBacklog(t.Context(), conn); !errors.Is(err, status.ErrNoSchema) {
		t.Errorf("got %v, want ErrNoSchema", err)
	}
}
