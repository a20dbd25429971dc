package pgtest_test

import (
	"context"
	"errors"
	"strings"
	"testing"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"

	"quorumbox/internal/pgtest"
)

func TestNewIsFreshForEachCall(t *testing.T) {
	t.Parallel()
	for range 8 {
		t.Run("parallel", func(t *testing.T) {
			t.Parallel()
			for range 2 {
				pool := pgtest.New(t)
				var sum int
				if err := pool.QueryRow(t.Context(), `select sum(n) from numbers`).Scan(&sum); err != nil {
					t.Fatal(err)
				}
				if sum != 6 {
					t.Errorf("got sum %d, want 6", sum)
				}
				if _, err := pool.Exec(t.Context(), `insert into numbers values (100)`); err != nil {
					t.Fatal(err)
				}
			}
		})
	}
}

func TestURLs(t *testing.T) {
	t.Parallel()
	tests := map[string]struct {
		url    func(testing.TB) string
		tables int
	}{
		"migrated": {pgtest.URL, 1},
		"empty":    {pgtest.EmptyURL, 0},
	}
	for name, test := range tests {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			conn := connect(t, test.url(t))
			var tables int
			err := conn.QueryRow(t.Context(), `select count(*) from pg_tables where schemaname = 'public'`).Scan(&tables)
			if err != nil {
				t.Fatal(err)
			}
			if tables != test.tables {
				t.Errorf("got %d tables, want %d", tables, test.tables)
			}
		})
	}
}

func TestDatabaseIsDroppedWithItsConnections(t *testing.T) {
	t.Parallel()
	var url string
	var left *pgx.Conn
	t.Run("test that leaves a connection", func(t *testing.T) {
		url = pgtest.URL(t)
		var err error
		left, err = pgx.Connect(t.Context(), url)
		if err != nil {
			t.Fatal(err)
		}
	})
	t.Cleanup(func() { _ = left.Close(context.WithoutCancel(t.Context())) }) // broken by then
	if err := left.Ping(t.Context()); err == nil {
		t.Error("the connection still works")
	}
	_, err := pgx.Connect(t.Context(), url)
	pgErr, ok := errors.AsType[*pgconn.PgError](err)
	if !ok || pgErr.Code != "3D000" {
		t.Errorf("got error %v, want that the database does not exist (3D000)", err)
	}
}

// A statement that takes the server's time zone for UTC must fail in the tests.
func TestOwnServerIsNotInUTC(t *testing.T) {
	t.Parallel()
	conn := connect(t, pgtest.EmptyURL(t))
	var zone string
	if err := conn.QueryRow(t.Context(), `select to_char(timestamptz '2026-01-01 00:00+00', 'YYYY-MM-DD HH24:MI')`).Scan(&zone); err != nil {
		t.Fatal(err)
	}
	if usesOwnServer() && !strings.HasSuffix(zone, "05:45") {
		t.Errorf("got %s for midnight in UTC, want 05:45", zone)
	}
}

func connect(t *testing.T, url string) *pgx.Conn {
	t.Helper()
	conn, err := pgx.Connect(t.Context(), url)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := conn.Close(context.WithoutCancel(t.Context())); err != nil {
			t.Error(err)
		}
	})
	return conn
}
