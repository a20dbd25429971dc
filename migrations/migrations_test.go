package migrations_test

import (
	"context"
	"database/sql"
	"errors"
	"os"
	"strings"
	"sync"
	"testing"

	"github.com/jackc/pgx/v5"
	_ "github.com/jackc/pgx/v5/stdlib" // the driver "pgx"
	"github.com/pressly/goose/v3"

	"quorumbox/internal/pgtest"
	"quorumbox/migrations"
)

func TestMain(m *testing.M) { pgtest.Main(m, pgtest.WithLeakCheck()) }

func TestUpTwice(t *testing.T) {
	t.Parallel()
	url := pgtest.EmptyURL(t)
	if err := migrations.Check(t.Context(), url); !errors.Is(err, migrations.ErrPending) || !strings.Contains(err.Error(), "worker migrate up") {
		t.Errorf("empty database: got %v, want %v with the command to run", err, migrations.ErrPending)
	}
	applied, err := migrations.Up(t.Context(), url)
	if err != nil {
		t.Fatal(err)
	}
	list, err := migrations.List(t.Context(), url)
	if err != nil {
		t.Fatal(err)
	}
	if len(applied) != len(list) {
		t.Errorf("got %d migrations applied, want all %d", len(applied), len(list))
	}
	for _, s := range list {
		if !s.Applied {
			t.Errorf("%s is pending after Up", s.Name)
		}
	}
	again, err := migrations.Up(t.Context(), url)
	if err != nil || len(again) != 0 {
		t.Errorf("second Up: got %v, %v, want nothing to do", again, err)
	}
	if err := migrations.Check(t.Context(), url); err != nil {
		t.Errorf("got %v, want a database that is up to date", err)
	}
}

// Neither River's migrations nor goose's are safe beside themselves; our lock makes them so.
func TestUpInSeveralProcessesAtOnce(t *testing.T) {
	t.Parallel()
	url := pgtest.EmptyURL(t)
	var (
		wg    sync.WaitGroup
		mu    sync.Mutex
		total int
	)
	for range 4 {
		wg.Go(func() {
			applied, err := migrations.Up(context.WithoutCancel(t.Context()), url)
			if err != nil {
				t.Error(err)
			}
			mu.Lock()
			defer mu.Unlock()
			total += len(applied)
		})
	}
	wg.Wait()
	list, err := migrations.List(t.Context(), url)
	if err != nil {
		t.Fatal(err)
	}
	if total != len(list) {
		t.Errorf("got %d migrations applied by all, want each of %d once", total, len(list))
	}
}

// The down parts are for development; they leave nothing of ours behind.
func TestDownUndoesUp(t *testing.T) {
	t.Parallel()
	db, err := sql.Open("pgx", pgtest.EmptyURL(t))
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = db.Close() }()
	provider, err := goose.NewProvider(goose.DialectPostgres, db, os.DirFS("."), goose.WithDisableGlobalRegistry(true))
	if err != nil {
		t.Fatal(err)
	}
	for range 2 {
		if _, err := provider.Up(t.Context()); err != nil {
			t.Fatal(err)
		}
		if _, err := provider.DownTo(t.Context(), 0); err != nil {
			t.Fatal(err)
		}
	}
	var left string
	err = db.QueryRowContext(t.Context(), `
		select coalesce(string_agg(name, ', '), '')
		from (
			select proname as name from pg_proc where pronamespace = 'public'::regnamespace
			union all
			select typname from pg_type where typnamespace = 'public'::regnamespace and typtype = 'd'
			union all
			select relname from pg_class where relnamespace = 'public'::regnamespace and relkind in ('r', 'S') and relname not like 'goose%'
		) l`).Scan(&left)
	if err != nil {
		t.Fatal(err)
	}
	if left != "" {
		t.Errorf("got %s left after all down parts, want nothing", left)
	}
}

func TestUpRefusesOtherEncodings(t *testing.T) {
	t.Parallel()
	url := pgtest.EmptyURL(t)
	conn, err := pgx.Connect(t.Context(), url)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = conn.Close(context.WithoutCancel(t.Context())) }()
	name := conn.Config().Database + "_latin1"
	if _, err := conn.Exec(t.Context(), `create database `+name+` encoding 'LATIN1' lc_collate 'C' lc_ctype 'C' template template0`); err != nil {
		t.Fatal(err)
	}
	defer func() { _, _ = conn.Exec(context.WithoutCancel(t.Context()), `drop database `+name+` with (force)`) }()
	_, err = migrations.Up(t.Context(), strings.Replace(url, conn.Config().Database, name, 1))
	if err == nil || !strings.Contains(err.Error(), "UTF8") {
		t.Errorf("got %v, want a refusal that says UTF8", err)
	}
}

func TestErrorsDoNotShowThePassword(t *testing.T) {
	t.Parallel()
	for _, url := range []string{
		"postgres://u:sesame-open@127.0.0.1:1/db",
		"postgres://u:sesame-open@127.0.0.1:port/db",
		"postgres://u:sesame-open@/db?sslmode=perhaps",
	} {
		_, err := migrations.Up(t.Context(), url)
		if err == nil || strings.Contains(err.Error(), "sesame") {
			t.Errorf("got %v, want an error without the password", err)
		}
	}
}
