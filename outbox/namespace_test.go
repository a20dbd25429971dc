package outbox_test

import (
	"context"
	"errors"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/jackc/pgx/v5"

	"quorumbox/internal/pgtest"
	"quorumbox/outbox"
)

func TestNamespaceSetAndClear(t *testing.T) {
	t.Parallel()
	pool := pgtest.New(t)
	store(t, pool, memory("a"))
	store(t, pool, memory("b", in(there)))
	since := newest(t, pool)
	entry := must(t, pool, func(tx pgx.Tx) (outbox.EntryID, error) {
		return outbox.NamespaceSet(t.Context(), tx, outbox.NamespaceStandard{
			Namespace: here, StandardID: "b", ParentNamespace: "team", UpdatedAt: time.Date(2025, 1, 2, 3, 4, 5, 0, time.UTC),
		})
	})
	want := map[string]any{
		"namespace": here, "standard_id": "b", "parent_namespace": "team", "updated_at": "2025-01-02T03:04:05.000000+00:00",
	}
	if diff := cmp.Diff(want, payload(t, pool, entry)); diff != "" {
		t.Errorf("payload (-want +got):\n%s", diff)
	}
	entry = setStandard(t, pool, here, "a") // in place of b, and without a parent
	if got := payload(t, pool, entry); got["standard_id"] != "a" || len(got) != 3 {
		t.Errorf("got payload %v, want a as the standard", got)
	}
	cleared := must(t, pool, func(tx pgx.Tx) ([]outbox.EntryID, error) {
		return outbox.NamespaceClear(t.Context(), tx, here, there)
	})
	if len(cleared) != 2 || cleared[0] >= cleared[1] {
		t.Errorf("got entries %v, want one for each namespace in order", cleared)
	}
	if n := count(t, pool, `select count(*) from namespace_meta`); n != 0 {
		t.Errorf("got %d standards, want none", n)
	}
	del(t, pool, "b") // it was the standard once: a peer that deletes it first would skip that entry for ever
	wantLog(t, pool, since,
		"namespace_set team/notes team/notes < store b",
		"namespace_set team/notes team/notes",
		"namespace_clear team/notes team/notes",
		"namespace_clear other other",
		"delete other b < namespace_set team/notes",
	)
}

func TestNamespaceRefusals(t *testing.T) {
	t.Parallel()
	pool := pgtest.New(t)
	ctx := t.Context()
	store(t, pool, memory("a"))
	for name, c := range map[string]struct {
		standard outbox.NamespaceStandard
		field    string
	}{
		"namespace":           {outbox.NamespaceStandard{Namespace: "a b", StandardID: "a"}, "namespace"},
		"namespace not UTF-8": {outbox.NamespaceStandard{Namespace: "a\xff", StandardID: "a"}, "namespace"},
		"standard":            {outbox.NamespaceStandard{Namespace: "n"}, "standard_id"},
		"parent":              {outbox.NamespaceStandard{Namespace: "n", StandardID: "a", ParentNamespace: "/"}, "parent_namespace"},
		"its own parent":      {outbox.NamespaceStandard{Namespace: "n", StandardID: "a", ParentNamespace: "n"}, "parent_namespace"},
	} {
		_, err := try(ctx, pool, func(tx pgx.Tx) (outbox.EntryID, error) { return outbox.NamespaceSet(ctx, tx, c.standard) })
		wantRefused(t, name, err, c.field)
	}
	for _, wire := range []string{`{"namespace": "n", "standard_id": "a", "updated_at": "now"}`, `{"namespace": "n", "standard_id": "a", "x": 1}`, `null`} {
		if _, err := pool.Exec(ctx, `select namespace_set($1::jsonb)`, wire); err == nil {
			t.Errorf("namespace_set(%s): got no error", wire)
		}
	}
	_, err := try(ctx, pool, func(tx pgx.Tx) (outbox.EntryID, error) {
		return outbox.NamespaceSet(ctx, tx, outbox.NamespaceStandard{Namespace: "n", StandardID: "gone"})
	})
	if !errors.Is(err, outbox.ErrNotFound) {
		t.Errorf("unknown standard: got %v, want %v", err, outbox.ErrNotFound)
	}
	inTx(t, pool, func(tx pgx.Tx) {
		_, err := outbox.NamespaceClear(ctx, tx, "n", "/")
		wantRefused(t, "clear", err, "namespace")
	})
	if _, err := pool.Exec(ctx, `select namespace_clear('a b')`); err == nil {
		t.Error("namespace_clear: got no error for a bad namespace")
	}
}

// A clear waits for a set of the same namespace even where there was no standard before, so that the log has them in commit order.
func TestClearWaitsForSet(t *testing.T) {
	t.Parallel()
	pool := pgtest.New(t)
	ctx := context.WithoutCancel(t.Context())
	store(t, pool, memory("a"))
	since := newest(t, pool)
	err := during(t, pool,
		func(tx pgx.Tx) error {
			_, err := outbox.NamespaceSet(ctx, tx, outbox.NamespaceStandard{Namespace: there, StandardID: "a"})
			return err
		},
		func(tx pgx.Tx) error { _, err := outbox.NamespaceClear(ctx, tx, there); return err })
	if err != nil {
		t.Fatal(err)
	}
	wantLog(t, pool, since, "namespace_set other other < store a", "namespace_clear other other")
	if n := count(t, pool, `select count(*) from namespace_meta`); n != 0 {
		t.Errorf("got %d standards, want none", n)
	}
}

// A delete of the standard waits for a set that names it, and comes after it.
func TestDeleteOfAStandardWaitsForSet(t *testing.T) {
	t.Parallel()
	pool := pgtest.New(t)
	ctx := context.WithoutCancel(t.Context())
	store(t, pool, memory("a"))
	since := newest(t, pool)
	err := during(t, pool,
		func(tx pgx.Tx) error {
			_, err := outbox.NamespaceSet(ctx, tx, outbox.NamespaceStandard{Namespace: there, StandardID: "a"})
			return err
		},
		func(tx pgx.Tx) error { _, err := outbox.Delete(ctx, tx, "a"); return err })
	if err != nil {
		t.Fatal(err)
	}
	wantLog(t, pool, since, "namespace_set other other < store a", "delete team/notes a < namespace_set other")
}
