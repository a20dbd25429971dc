package outbox_test

import (
	"errors"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgxpool"

	"quorumbox/internal/pgtest"
	"quorumbox/outbox"
)

func archive(t *testing.T, pool *pgxpool.Pool, id string) outbox.EntryID {
	t.Helper()
	return must(t, pool, func(tx pgx.Tx) (outbox.EntryID, error) { return outbox.Archive(t.Context(), tx, id, "old") })
}

func restore(t *testing.T, pool *pgxpool.Pool, id string) outbox.EntryID {
	t.Helper()
	return must(t, pool, func(tx pgx.Tx) (outbox.EntryID, error) { return outbox.Restore(t.Context(), tx, id) })
}

func TestArchiveAndRestore(t *testing.T) {
	t.Parallel()
	pool := pgtest.New(t)
	stored := store(t, pool, memory("m-1", func(m *outbox.Memory) {
		m.Tags, m.Confidence, m.SourceURI = []string{"a"}, new(0.125), "uri:x"
		m.Metadata = []byte(`{"agent_id": "ai:x", "n": null}`)
		m.ExpiresAt = time.Date(2050, 1, 2, 3, 4, 5, 6000, time.UTC)
	}))
	entry := archive(t, pool, "m-1")
	before := payload(t, pool, stored.Entry)
	if diff := cmp.Diff(before, payload(t, pool, entry)); diff != "" {
		t.Errorf("archive's payload, against the store's (-store +archive):\n%s", diff)
	}
	if n := count(t, pool, `select count(*) from archived_memories where id = 'm-1' and archive_reason = 'old'`); n != 1 {
		t.Errorf("got %d archived rows, want 1 with its reason", n)
	}
	if n := count(t, pool, `select count(*) from memories`); n != 0 {
		t.Errorf("got %d live rows, want none", n)
	}
	if again := archive(t, pool, "m-1"); again != entry {
		t.Errorf("repeated archive: got entry %d, want %d again", again, entry)
	}

	entry = restore(t, pool, "m-1")
	after := payload(t, pool, entry)
	if after["version"] != 2.0 || after["updated_at"].(string) <= before["updated_at"].(string) {
		t.Errorf("restored: got version %v of %v, want 2, newer than %v", after["version"], after["updated_at"], before["updated_at"])
	}
	for _, changed := range []string{"version", "updated_at"} {
		delete(before, changed)
		delete(after, changed)
	}
	if diff := cmp.Diff(before, after); diff != "" {
		t.Errorf("restore's payload, against the store's (-store +restore):\n%s", diff)
	}
	if n := count(t, pool, `
		select (select count(*) from memories where id = 'm-1' and version = 2) + 10 * (select count(*) from archived_memories)
		       + 100 * (select count(*) from tombstones)`); n != 1 {
		t.Errorf("got %d, want one live row, none archived, no tombstone", n)
	}
	wantLog(t, pool, 0, "store team/notes m-1", "archive team/notes m-1", "restore team/notes m-1")
}

// A restored memory is newer than it was even if that was in the future, because peers keep the larger updated_at.
func TestRestoreIsNewerThanTheFuture(t *testing.T) {
	t.Parallel()
	pool := pgtest.New(t)
	store(t, pool, memory("m-1", func(m *outbox.Memory) { m.UpdatedAt = time.Date(2100, 1, 1, 0, 0, 0, 0, time.UTC) }))
	archive(t, pool, "m-1")
	got := payload(t, pool, restore(t, pool, "m-1"))["updated_at"]
	if want := "2100-01-01T00:00:00.000001+00:00"; got != want {
		t.Errorf("got updated_at %v, want %s", got, want)
	}
}

func TestArchiveRefusals(t *testing.T) {
	t.Parallel()
	pool := pgtest.New(t)
	ctx := t.Context()
	store(t, pool, memory("m-1"))
	inTx(t, pool, func(tx pgx.Tx) { // the transaction goes on after these
		if _, err := outbox.Archive(ctx, tx, "never", ""); !errors.Is(err, outbox.ErrNotFound) {
			t.Errorf("unknown memory: got %v, want %v", err, outbox.ErrNotFound)
		}
		_, err := outbox.Archive(ctx, tx, "a/b", "")
		wantRefused(t, "bad id", err, "id")
		_, err = outbox.Archive(ctx, tx, "m-1", "\x00")
		wantRefused(t, "bad reason", err, "reason")
		_, err = outbox.Restore(ctx, tx, "a/b")
		wantRefused(t, "restore: bad id", err, "id")
	})
	refused := func(name, id string, want error) {
		t.Helper()
		if _, err := try(ctx, pool, func(tx pgx.Tx) (outbox.EntryID, error) { return outbox.Restore(ctx, tx, id) }); !errors.Is(err, want) {
			t.Errorf("restore %s: got %v, want %v", name, err, want)
		}
	}
	refused("what is not archived", "never", outbox.ErrNotArchived)
	archive(t, pool, "m-1")
	store(t, pool, memory("m-2", func(m *outbox.Memory) { m.Title = "title of m-1" }))
	refused("beside its title", "m-1", outbox.ErrTitleTaken)
	store(t, pool, memory("m-1", func(m *outbox.Memory) { m.Title = "another" }))
	refused("beside itself", "m-1", outbox.ErrLive)
	del(t, pool, "m-1")
	if n := count(t, pool, `select count(*) from archived_memories`); n != 1 {
		t.Errorf("got %d archived rows, want the one that no restore got", n)
	}
	del(t, pool, "m-2")
	restore(t, pool, "m-1")

	del(t, pool, "m-1")
	inTx(t, pool, func(tx pgx.Tx) {
		if _, err := outbox.Archive(ctx, tx, "m-1", ""); !errors.Is(err, outbox.ErrNotFound) {
			t.Errorf("a deleted memory: got %v, want %v", err, outbox.ErrNotFound)
		}
	})
}

// An archived memory that lived and died elsewhere since must not be restored at a peer before it is gone there.
func TestRestoreComesAfterTheTombstone(t *testing.T) {
	t.Parallel()
	pool := pgtest.New(t)
	store(t, pool, memory("m-1"))
	archive(t, pool, "m-1")
	store(t, pool, memory("m-1", in(there)))
	del(t, pool, "m-1")
	since := newest(t, pool)
	restore(t, pool, "m-1")
	wantLog(t, pool, since, "restore team/notes m-1 < delete m-1")
}

// Archiving an archived memory that is live again replaces the archived row.
func TestArchiveReplacesAnOlderRow(t *testing.T) {
	t.Parallel()
	pool := pgtest.New(t)
	for _, content := range []string{"first", "second"} {
		store(t, pool, memory("m-1", func(m *outbox.Memory) { m.Content = content }))
		archive(t, pool, "m-1")
	}
	if n := count(t, pool, `select count(*) from archived_memories where content = 'second'`); n != 1 {
		t.Errorf("got %d rows of the second content, want 1", n)
	}
}

// An archive that waits for a store of the same memory archives what was stored; a restore that waits for an archive restores it.
func TestArchiveAndRestoreWaitForTheMemory(t *testing.T) {
	t.Parallel()
	pool := pgtest.New(t)
	ctx := t.Context()
	store(t, pool, memory("m-1"))
	err := during(t, pool,
		func(tx pgx.Tx) error {
			_, err := outbox.Store(ctx, tx, memory("m-1", func(m *outbox.Memory) { m.Content = "newer" }))
			return err
		},
		func(tx pgx.Tx) error { _, err := outbox.Archive(ctx, tx, "m-1", ""); return err })
	if err != nil {
		t.Fatal(err)
	}
	if n := count(t, pool, `select count(*) from archived_memories where content = 'newer'`); n != 1 {
		t.Errorf("got %d archived rows with the newer content, want 1", n)
	}
	store(t, pool, memory("m-1"))
	err = during(t, pool,
		func(tx pgx.Tx) error { _, err := outbox.Archive(ctx, tx, "m-1", ""); return err },
		func(tx pgx.Tx) error { _, err := outbox.Restore(ctx, tx, "m-1"); return err })
	if err != nil {
		t.Fatal(err)
	}
	wantLog(t, pool, 0, "store team/notes m-1", "store team/notes m-1", "archive team/notes m-1", "store team/notes m-1",
		"archive team/notes m-1", "restore team/notes m-1")
}
