package migrations_test

import (
	"context"
	"database/sql"
	"os"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/pressly/goose/v3"
	"github.com/pressly/goose/v3/database"

	"quorumbox/internal/pgtest"
	"quorumbox/migrations"
)

// behind is a database to which the migrations from 0009 on, which changes the table peers, have not been applied.
func behind(t *testing.T) (url string) {
	t.Helper()
	url = pgtest.EmptyURL(t)
	if _, err := migrations.Up(t.Context(), url); err != nil {
		t.Fatal(err)
	}
	with(t, url, func(p *goose.Provider) error {
		_, err := p.DownTo(t.Context(), 8)
		return err
	})
	return url
}

// with runs our migrations of the database as do says.
func with(t *testing.T, url string, do func(*goose.Provider) error) {
	t.Helper()
	db, err := sql.Open("pgx", url)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = db.Close() }()
	store, err := database.NewStore(database.DialectPostgres, "quorumbox_migrations")
	if err != nil {
		t.Fatal(err)
	}
	provider, err := goose.NewProvider("", db, os.DirFS("."), goose.WithStore(store), goose.WithDisableGlobalRegistry(true))
	if err != nil {
		t.Fatal(err)
	}
	if err := do(provider); err != nil {
		t.Fatal(err)
	}
}

// hold opens a transaction that reads the table peers, as a report that somebody forgot to end.
func hold(t *testing.T, url string) (end func()) {
	t.Helper()
	ctx := context.WithoutCancel(t.Context())
	conn, err := pgx.Connect(ctx, url)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := conn.Exec(ctx, `begin; select count(*) from peers`); err != nil {
		t.Fatal(err)
	}
	return func() { _ = conn.Close(ctx) }
}

// A transaction holds a table that a migration changes. Those who write to it go on meanwhile: nobody queues up behind the migration for long.
func TestUpLetsWritersPass(t *testing.T) {
	t.Parallel()
	url := behind(t)
	end := hold(t, url)
	conn, err := pgx.Connect(t.Context(), url)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = conn.Close(context.WithoutCancel(t.Context())) }()
	if _, err := conn.Exec(t.Context(), `insert into peers (id) values ('peer-a')`); err != nil {
		t.Fatal(err)
	}

	var waits atomic.Int64
	done := make(chan error, 1)
	go func() {
		_, err := migrations.Options{Waiting: func(error, time.Duration) { waits.Add(1) }}.Up(context.WithoutCancel(t.Context()), url)
		done <- err
	}()
	var slowest time.Duration
	writes := 0
	write := func() {
		t.Helper()
		begun := time.Now()
		if _, err := conn.Exec(t.Context(), `update peers set last_error_class = 'x' where id = 'peer-a'`); err != nil {
			t.Fatal(err)
		}
		slowest = max(slowest, time.Since(begun))
		writes++
	}
	for waits.Load() < 4 {
		select {
		case err := <-done:
			t.Fatalf("migrated although a transaction holds the table: %v", err)
		default:
			write()
		}
	}
	end()
	for {
		select {
		case err := <-done:
			if err != nil {
				t.Fatal(err)
			}
			t.Logf("%d writes while the migration tried %d times, the slowest took %s", writes, waits.Load(), slowest)
			if limit := 2 * time.Second; slowest > limit || writes < 10 { // 0.2 s, and what a busy machine needs
				t.Errorf("the slowest of %d writes took %s, want less than %s", writes, slowest, limit)
			}
			if err := migrations.Check(t.Context(), url); err != nil {
				t.Error(err)
			}
			return
		default:
			write()
		}
	}
}

func TestUpGivesUp(t *testing.T) {
	t.Parallel()
	url := behind(t)
	defer hold(t, url)()
	waits := 0
	_, err := migrations.Options{Patience: time.Second, Waiting: func(error, time.Duration) { waits++ }}.Up(t.Context(), url)
	if err == nil || !strings.Contains(err.Error(), "0009") && !strings.Contains(err.Error(), "version:9") || !strings.Contains(err.Error(), "pg_stat_activity") || waits == 0 {
		t.Errorf("got %v after %d waits, want the migration and how to find who holds what it needs", err, waits)
	}
	ctx, cancel := context.WithTimeout(t.Context(), 500*time.Millisecond)
	defer cancel()
	if _, err := migrations.Up(ctx, url); err == nil || ctx.Err() == nil {
		t.Errorf("got %v, want an end with the context", err)
	}
}

// Other errors are told at once.
func TestUpDoesNotRepeatErrors(t *testing.T) {
	t.Parallel()
	url := behind(t)
	conn, err := pgx.Connect(t.Context(), url)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = conn.Close(context.WithoutCancel(t.Context())) }()
	if _, err := conn.Exec(t.Context(), `create table kept (n int)`); err != nil {
		t.Fatal(err)
	}
	_, err = migrations.Options{Waiting: func(err error, _ time.Duration) { t.Errorf("tried again after %v", err) }}.Up(t.Context(), url)
	if err == nil || !strings.Contains(err.Error(), `"kept" already exists`) {
		t.Errorf("got %v, want that the table exists", err)
	}
}
