package migrations_test

import (
	"context"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/pressly/goose/v3"

	"quorumbox/internal/pgtest"
	"quorumbox/migrations"
)

// The column comes while a transaction that has read the outbox goes on and on: the migration waits for it, in turns that let writers through, and then
// changes the catalogue alone.
func TestTraceparentIsAddedBesideWriters(t *testing.T) {
	t.Parallel()
	url := pgtest.EmptyURL(t)
	with(t, url, func(p *goose.Provider) error {
		_, err := p.UpTo(t.Context(), 9) // as the release before left it
		return err
	})
	connect := func() *pgx.Conn {
		t.Helper()
		conn, err := pgx.Connect(t.Context(), url)
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { _ = conn.Close(context.WithoutCancel(t.Context())) })
		return conn
	}
	reader, writer := connect(), connect()
	const write = `select outbox_append('ns', 'delete', 'm', null, null, null)`
	if _, err := writer.Exec(t.Context(), write); err != nil {
		t.Fatal(err)
	}
	var before uint32
	if err := writer.QueryRow(t.Context(), `select pg_relation_filenode('outbox')`).Scan(&before); err != nil {
		t.Fatal(err)
	}
	tx, err := reader.Begin(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	if _, err := tx.Exec(t.Context(), `select count(*) from outbox`); err != nil {
		t.Fatal(err)
	}

	done := make(chan error, 1)
	go func() {
		_, err := migrations.Up(context.WithoutCancel(t.Context()), url)
		done <- err
	}()
	for waiting := false; !waiting; {
		err := writer.QueryRow(t.Context(), `
			select exists (select from pg_locks where relation = 'outbox'::regclass and mode = 'AccessExclusiveLock' and not granted)`).Scan(&waiting)
		if err != nil {
			t.Fatal(err)
		}
		select {
		case err := <-done:
			t.Fatalf("got %v from Up while the outbox was in use", err)
		default:
		}
	}
	// Queued behind the migration, until that gives way.
	ctx, cancel := context.WithTimeout(t.Context(), 30*time.Second)
	defer cancel()
	if _, err := writer.Exec(ctx, write); err != nil {
		t.Fatalf("a writer waited for the whole time: %v", err)
	}
	if err := tx.Rollback(t.Context()); err != nil {
		t.Fatal(err)
	}
	if err := <-done; err != nil {
		t.Fatal(err)
	}

	// What the previous release's programs do goes on as before.
	if _, err := writer.Exec(t.Context(), write); err != nil {
		t.Fatal(err)
	}
	var after uint32
	var entries, contexts int
	err = writer.QueryRow(t.Context(), `select pg_relation_filenode('outbox'), count(*), count(traceparent) from outbox`).Scan(&after, &entries, &contexts)
	if err != nil {
		t.Fatal(err)
	}
	if after != before {
		t.Error("the table was written anew")
	}
	if entries != 3 || contexts != 0 {
		t.Errorf("got %d entries, %d with a trace context, want 3 and 0", entries, contexts)
	}
}
