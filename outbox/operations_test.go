package outbox_test

import (
	"context"
	"errors"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"
	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgxpool"

	"quorumbox/internal/pgtest"
	"quorumbox/outbox"
)

// The namespaces of these tests; each is a lane of its own, which [TestNamespacesOfTheTestsAreLanesOfTheirOwn] keeps true.
const (
	here  = "team/notes" // that of memory()
	there = "other"
	far   = "third"
)

// entryLog returns the log since entry "since", an entry a line: "kind namespace key < kind key", with what it must come after behind the "<".
func entryLog(t *testing.T, pool *pgxpool.Pool, since outbox.EntryID) []string {
	t.Helper()
	rows, err := pool.Query(t.Context(), `
		select o.kind || ' ' || o.namespace || ' ' || o.key
			|| coalesce((select ' < ' || string_agg(a.kind || ' ' || a.key, ', ' order by a.id)
			             from unnest(u.after_lanes, u.after_entries) d (lane, entry) join outbox a on a.id = d.entry and a.lane = d.lane), '')
		from outbox o
		join undispatched u on u.entry = o.id and u.lane = o.lane
		where o.id > $1
		order by o.id`, since)
	if err != nil {
		t.Fatal(err)
	}
	lines, err := pgx.CollectRows(rows, pgx.RowTo[string])
	if err != nil {
		t.Fatal(err)
	}
	return lines
}

// newest is the log's last entry.
func newest(t *testing.T, pool *pgxpool.Pool) (id outbox.EntryID) {
	t.Helper()
	if err := pool.QueryRow(t.Context(), `select coalesce(max(id), 0) from outbox`).Scan(&id); err != nil {
		t.Fatal(err)
	}
	return id
}

// payload is what an entry carries.
func payload(t *testing.T, pool *pgxpool.Pool, id outbox.EntryID) (p map[string]any) {
	t.Helper()
	if err := pool.QueryRow(t.Context(), `select payload from outbox where id = $1`, id).Scan(&p); err != nil {
		t.Fatal(err)
	}
	return p
}

// count is the one number that a query returns.
func count(t *testing.T, pool *pgxpool.Pool, sql string, args ...any) (n int) {
	t.Helper()
	if err := pool.QueryRow(t.Context(), sql, args...).Scan(&n); err != nil {
		t.Fatalf("%s: %v", sql, err)
	}
	return n
}

// try runs one writer in a transaction that is committed if it returns no error.
func try[T any](ctx context.Context, pool *pgxpool.Pool, do func(tx pgx.Tx) (T, error)) (result T, err error) {
	err = pgx.BeginFunc(ctx, pool, func(tx pgx.Tx) error {
		result, err = do(tx)
		return err
	})
	return result, err
}

// must is try where an error ends the test.
func must[T any](t *testing.T, pool *pgxpool.Pool, do func(tx pgx.Tx) (T, error)) T {
	t.Helper()
	result, err := try(t.Context(), pool, do)
	if err != nil {
		t.Fatal(err)
	}
	return result
}

func wantLog(t *testing.T, pool *pgxpool.Pool, since outbox.EntryID, want ...string) {
	t.Helper()
	if diff := cmp.Diff(want, entryLog(t, pool, since), cmpopts.EquateEmpty()); diff != "" {
		t.Errorf("log (-want +got):\n%s", diff)
	}
}

// wantRefused fails unless err refuses the field.
func wantRefused(t *testing.T, name string, err error, field string) {
	t.Helper()
	if invalid, ok := errors.AsType[*outbox.InvalidError](err); !ok || invalid.Field != field || invalid.Rule == "" {
		t.Errorf("%s: got %v, want a refusal of %s", name, err, field)
	}
}

func del(t *testing.T, pool *pgxpool.Pool, id string) outbox.EntryID {
	t.Helper()
	return must(t, pool, func(tx pgx.Tx) (outbox.EntryID, error) { return outbox.Delete(t.Context(), tx, id) })
}

func link(t *testing.T, pool *pgxpool.Pool, source, target string) {
	t.Helper()
	must(t, pool, func(tx pgx.Tx) (outbox.EntryID, error) {
		return outbox.Link(t.Context(), tx, outbox.MemoryLink{SourceID: source, TargetID: target, Relation: "related_to"})
	})
}

func setStandard(t *testing.T, pool *pgxpool.Pool, namespace, id string) outbox.EntryID {
	t.Helper()
	return must(t, pool, func(tx pgx.Tx) (outbox.EntryID, error) {
		return outbox.NamespaceSet(t.Context(), tx, outbox.NamespaceStandard{Namespace: namespace, StandardID: id})
	})
}

// blocked waits until a transaction of this database waits for a lock.
func blocked(t *testing.T, pool *pgxpool.Pool) {
	t.Helper()
	eventually(t, "a transaction waits for a lock", func() bool {
		return count(t, pool, `
			select count(*) from pg_stat_activity
			where datname = current_database() and wait_event_type = 'Lock'`) > 0
	})
}

// during runs first in a transaction, starts second in another, waits until that waits for the first's locks, commits the first, and returns the second's error.
func during(t *testing.T, pool *pgxpool.Pool, first, second func(tx pgx.Tx) error) error {
	t.Helper()
	tx, err := pool.Begin(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	if err := first(tx); err != nil {
		t.Fatal(err)
	}
	done := make(chan error, 1)
	go func() { done <- pgx.BeginFunc(context.WithoutCancel(t.Context()), pool, second) }()
	blocked(t, pool)
	if err := tx.Commit(t.Context()); err != nil {
		t.Fatal(err)
	}
	return <-done
}

func TestNamespacesOfTheTestsAreLanesOfTheirOwn(t *testing.T) {
	t.Parallel()
	pool := pgtest.New(t)
	n := count(t, pool, `select count(distinct outbox_lane(n)) from unnest($1::text[]) n`, []string{here, there, far, "app"})
	if n != 4 {
		t.Errorf("got %d lanes, want 4", n)
	}
}

// Every writer returns an error that says what it was doing, and to what.
func TestErrorsNameTheOperation(t *testing.T) {
	t.Parallel()
	pool := pgtest.New(t)
	ctx := t.Context()
	for want, do := range map[string]func(tx pgx.Tx) (any, error){
		`archive "gone"`: func(tx pgx.Tx) (any, error) { return outbox.Archive(ctx, tx, "gone", "") },
		`restore "gone"`: func(tx pgx.Tx) (any, error) { return outbox.Restore(ctx, tx, "gone") },
		`link "gone" to "m"`: func(tx pgx.Tx) (any, error) {
			return outbox.Link(ctx, tx, outbox.MemoryLink{SourceID: "gone", TargetID: "m", Relation: "related_to"})
		},
		`consolidate into "m"`:  func(tx pgx.Tx) (any, error) { return outbox.Consolidate(ctx, tx, memory("m"), []string{"gone"}) },
		`pending action "gone"`: func(tx pgx.Tx) (any, error) { return outbox.Pending(ctx, tx, outbox.PendingAction{ID: "gone"}) },
		`decide "gone"`: func(tx pgx.Tx) (any, error) {
			return outbox.Decide(ctx, tx, outbox.Decision{ID: "gone", Decider: "ai:a"})
		},
		`set standard of "gone"`: func(tx pgx.Tx) (any, error) {
			return outbox.NamespaceSet(ctx, tx, outbox.NamespaceStandard{Namespace: "gone", StandardID: "m"})
		},
		`clear standard of "g one"`: func(tx pgx.Tx) (any, error) { return outbox.NamespaceClear(ctx, tx, "g one") },
		`append archive of "gone"`: func(tx pgx.Tx) (any, error) {
			return outbox.Append(ctx, tx, outbox.Entry{Kind: outbox.KindArchive, Key: "gone"})
		},
	} {
		_, err := try(ctx, pool, do)
		if err == nil || !strings.HasPrefix(err.Error(), "outbox: ") || !strings.Contains(err.Error(), want) {
			t.Errorf("got %v, want an error with %s", err, want)
		}
	}
	if got := entryLog(t, pool, 0); len(got) != 0 {
		t.Errorf("got entries %v of refused writes, want none", got)
	}
}
