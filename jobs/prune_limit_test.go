package jobs_test

import (
	"context"
	"errors"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgxpool"

	"quorumbox/internal/pgtest"
	"quorumbox/jobs"
)

// lagging makes a peer lag from batch 2 on, with something of everything.
func lagging(t *testing.T, pool *pgxpool.Pool, peer string) {
	t.Helper()
	fill(t, pool, 10)
	exec(t, pool, `insert into lagging (peer, lane, cursor, pushed_to) values ($1, 3, 2, 4)`, peer)
	exec(t, pool, `insert into doubts values ($1, 3, 1, 4, now() + interval '1 hour')`, peer)
	exec(t, pool, `insert into repairs (peer, subject, key, lane, method, reason) values ($1, 'memory', 'm', 3, 'store', 'doubt')`, peer)
	exec(t, pool, `insert into refusals (peer, entry, lane, class) values ($1, 1, 3, 'skipped')`, peer)
}

// from batch 1, because a push is in doubt: 9 entries, the oldest dispatched 2 hours ago.
func limits() map[string]struct {
	entries int64
	age     time.Duration
	past    bool
} {
	return map[string]struct {
		entries int64
		age     time.Duration
		past    bool
	}{
		"at the limit of entries":   {entries: 9},
		"past the limit of entries": {entries: 8, past: true},
		"younger than the limit":    {age: 3 * time.Hour},
		"older than the limit":      {age: time.Hour, past: true},
	}
}

func TestAbsentPeerPastTheLimitIsLost(t *testing.T) {
	t.Parallel()
	for name, c := range limits() {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			pool := pgtest.New(t)
			lagging(t, pool, "gone")
			var log lines
			for range 2 {
				prune(t, pool, jobs.PruneConfig{
					History: time.Nanosecond, BacklogEntries: c.entries, BacklogAge: c.age, Logger: log.logger(),
					Overdue: func(_ context.Context, _ pgx.Tx, peer string) error { return errors.New("asked for " + peer) },
				})
			}
			want, batches := []string{"absent"}, 10
			if c.past {
				want, batches = []string{"lost"}, 1
			}
			if diff := cmp.Diff(want, column[string](t, pool, `select state from peers where id = 'gone'`)); diff != "" {
				t.Errorf("state (-want +got):\n%s", diff)
			}
			if n := len(column[int64](t, pool, `select number from batches`)); n != batches {
				t.Errorf("got %d batches left, want %d", n, batches)
			}
			rows := column[string](t, pool, `
				select peer from lagging union all select peer from doubts union all select peer from repairs union all select peer from refusals`)
			if (len(rows) == 0) != c.past {
				t.Errorf("got %d rows of the peer, want none: %t", len(rows), c.past)
			}
			if got := log.with("level=WARN"); (len(got) == 1) != c.past || len(got) > 1 || c.past && !strings.Contains(got[0], "peer=gone") || c.past && !strings.Contains(got[0], "entries=9 age=2h0m0s") {
				t.Errorf("got the lines %q, want one if it is past the limit: %t", got, c.past)
			}
			// It stays lost until somebody brings it a snapshot: no cursor that says that it has everything.
			if err := jobs.RegisterPeers(t.Context(), pool, []string{"a"}); err != nil {
				t.Fatal(err)
			}
			if diff := cmp.Diff(want, column[string](t, pool, `select state from peers where id = 'gone'`)); diff != "" {
				t.Errorf("state after a start of a worker (-want +got):\n%s", diff)
			}
		})
	}
}

func TestConfiguredPeerPastTheLimit(t *testing.T) {
	t.Parallel()
	for name, c := range limits() {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			pool := pgtest.New(t)
			lagging(t, pool, "a")
			var (
				log   lines
				asked []string
			)
			prune(t, pool, jobs.PruneConfig{
				History: time.Nanosecond, BacklogEntries: c.entries, BacklogAge: c.age, Logger: log.logger(),
				Overdue: func(ctx context.Context, tx pgx.Tx, peer string) error {
					asked = append(asked, peer)
					if _, err := tx.Exec(ctx, `delete from doubts`); err != nil {
						return err
					}
					_, err := tx.Exec(ctx, `update lagging set cursor = 10, pushed_to = 10`)
					return err
				},
			})
			var want []string
			batches := 10
			if c.past {
				want, batches = []string{"a"}, 1
			}
			if diff := cmp.Diff(want, asked); diff != "" {
				t.Errorf("asked for (-want +got):\n%s", diff)
			}
			if n := len(column[int64](t, pool, `select number from batches`)); n != batches {
				t.Errorf("got %d batches left, want %d: the log is let go at once", n, batches)
			}
			if got := log.with("level=WARN"); (len(got) == 1) != c.past {
				t.Errorf("got the lines %q, want one if it is past the limit: %t", got, c.past)
			}
		})
	}
}

// One peer's limit that cannot be enforced does not keep the rest of the log.
func TestOverdueThatFails(t *testing.T) {
	t.Parallel()
	pool := pgtest.New(t)
	lagging(t, pool, "a")
	p := jobs.NewPruner(pool, jobs.PruneConfig{History: time.Nanosecond, BacklogEntries: 1, Overdue: func(ctx context.Context, tx pgx.Tx, _ string) error {
		_, _ = tx.Exec(ctx, `delete from lagging`)
		return errors.New("no room")
	}})
	if _, err := p.Prune(t.Context()); err == nil || !strings.Contains(err.Error(), "limit of peer a: no room") {
		t.Errorf("got %v, want the error of Overdue", err)
	}
	if diff := cmp.Diff([]int64{1, 2, 3, 4, 5, 6, 7, 8, 9, 10}, column[int64](t, pool, `select number from batches order by number`)); diff != "" {
		t.Errorf("batches (-want +got):\n%s", diff)
	}
	exec(t, pool, `update lagging set cursor = 5, pushed_to = 5`)
	exec(t, pool, `delete from doubts`)
	if _, err := p.Prune(t.Context()); err == nil {
		t.Error("got no error, want that of Overdue")
	}
	if diff := cmp.Diff([]int64{5, 6, 7, 8, 9, 10}, column[int64](t, pool, `select number from batches order by number`)); diff != "" {
		t.Errorf("batches that no peer needs are pruned all the same (-want +got):\n%s", diff)
	}
}

// Without somebody who can do something about it, the log is kept, and one line says so.
func TestPastTheLimitWithoutOverdue(t *testing.T) {
	t.Parallel()
	pool := pgtest.New(t)
	lagging(t, pool, "a")
	var log lines
	p := jobs.NewPruner(pool, jobs.PruneConfig{History: time.Nanosecond, BacklogEntries: 1, Logger: log.logger()})
	for range 3 {
		jobs.TendAtOnce(p)
		if _, err := p.Prune(t.Context()); err != nil {
			t.Fatal(err)
		}
	}
	if got := log.with("level=WARN"); len(got) != 1 {
		t.Errorf("got the lines %q, want one", got)
	}
	exec(t, pool, `delete from lagging`)
	exec(t, pool, `delete from doubts`)
	jobs.TendAtOnce(p)
	if _, err := p.Prune(t.Context()); err != nil {
		t.Fatal(err)
	}
	exec(t, pool, `insert into lagging (peer, lane, cursor, pushed_to) values ('a', 3, 1, 1)`)
	exec(t, pool, `update batches set position = 100 where number = 10`)
	jobs.TendAtOnce(p)
	if _, err := p.Prune(t.Context()); err != nil {
		t.Fatal(err)
	}
	if got := log.with("level=WARN"); len(got) != 2 {
		t.Errorf("got the lines %q, want another one when the peer is past the limit again", got)
	}
}

func TestLongTransactionIsTold(t *testing.T) {
	t.Parallel()
	pool := pgtest.New(t)
	var log lines
	p := jobs.NewPruner(pool, jobs.PruneConfig{LongTransaction: time.Nanosecond, Logger: log.logger()})
	look := func() []string {
		t.Helper()
		jobs.TendAtOnce(p)
		if _, err := p.Prune(t.Context()); err != nil {
			t.Fatal(err)
		}
		return log.with("a long transaction")
	}
	conn, err := pgx.Connect(t.Context(), pool.Config().ConnString())
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = conn.Close(context.WithoutCancel(t.Context())) }()
	for _, sql := range []string{`set application_name = 'report'`, `begin isolation level repeatable read`, `select 'canary'`} {
		if _, err := conn.Exec(t.Context(), sql); err != nil {
			t.Fatal(err)
		}
	}
	for range 2 {
		got := look()
		if len(got) != 1 || !strings.Contains(got[0], "application_name=report") || !strings.Contains(got[0], `state="idle in transaction"`) ||
			!strings.Contains(got[0], "kind=transaction") || strings.Contains(got[0], "canary") {
			t.Errorf("got the lines %q, want one that names the session and not its statement", got)
		}
	}
}

// A transaction that holds nothing, or not for long, is nobody's concern.
func TestShortTransactionIsNotTold(t *testing.T) {
	t.Parallel()
	pool := pgtest.New(t)
	var log lines
	err := pgx.BeginTxFunc(t.Context(), pool, pgx.TxOptions{IsoLevel: pgx.RepeatableRead}, func(tx pgx.Tx) error {
		if _, err := tx.Exec(t.Context(), `select`); err != nil {
			return err
		}
		prune(t, pool, jobs.PruneConfig{Logger: log.logger()})
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	if got := log.with("level=WARN"); len(got) != 0 {
		t.Errorf("got the lines %q, want none", got)
	}
}
