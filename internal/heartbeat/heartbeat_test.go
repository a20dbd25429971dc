package heartbeat_test

import (
	"context"
	"log/slog"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgxpool"

	"quorumbox/internal/heartbeat"
	"quorumbox/internal/pgtest"
)

func TestMain(m *testing.M) { pgtest.Main(m, pgtest.Migrated(), pgtest.WithLeakCheck()) }

func heart(t *testing.T, pool *pgxpool.Pool, id string) *heartbeat.Heart {
	t.Helper()
	return &heartbeat.Heart{Pool: pool, Logger: slog.New(slog.NewTextHandler(t.Output(), nil)), ID: id, Host: "host-1", Version: "v1"}
}

func workers(t *testing.T, pool *pgxpool.Pool) []string {
	t.Helper()
	rows, err := pool.Query(t.Context(), `select id from workers order by id`)
	if err != nil {
		t.Fatal(err)
	}
	ids, err := pgx.CollectRows(rows, pgx.RowTo[string])
	if err != nil {
		t.Fatal(err)
	}
	return ids
}

func TestStartAndStop(t *testing.T) {
	t.Parallel()
	pool := pgtest.New(t)
	ctx, cancel := context.WithCancel(t.Context())
	stop := heart(t, pool, "a").Start(ctx)
	for end := time.Now().Add(30 * time.Second); len(workers(t, pool)) == 0; {
		if time.Now().After(end) {
			t.Fatal("got no sign of life within 30s")
		}
	}
	cancel() // a worker that was told to stop is alive until it has stopped
	if diff := cmp.Diff([]string{"a"}, workers(t, pool)); diff != "" {
		t.Errorf("(-want +got):\n%s", diff)
	}
	stop()
	if got := workers(t, pool); len(got) != 0 {
		t.Errorf("got %v after the end, want none", got)
	}
}

func TestBeat(t *testing.T) {
	t.Parallel()
	pool := pgtest.New(t)
	_, err := pool.Exec(t.Context(), `
		insert into workers (id, host, version, started_at, seen_at) values
			('self', 'h', 'v', now() - interval '3 hours', now() - interval '2 hours'),
			('gone', 'h', 'v', now() - interval '3 hours', now() - interval '61 minutes'),
			('killed', 'h', 'v', now() - interval '3 hours', now() - interval '59 minutes')`)
	if err != nil {
		t.Fatal(err)
	}
	h := heart(t, pool, "self") // it was asleep for two hours
	for range 2 {
		if err := h.Beat(t.Context()); err != nil {
			t.Fatal(err)
		}
	}
	if diff := cmp.Diff([]string{"killed", "self"}, workers(t, pool)); diff != "" {
		t.Errorf("(-want +got):\n%s", diff)
	}
	var seen, started time.Duration
	err = pool.QueryRow(t.Context(), `select now() - seen_at, now() - started_at from workers where id = 'self'`).Scan(&seen, &started)
	if err != nil || seen > time.Minute || started < 2*time.Hour {
		t.Errorf("got seen %s ago and started %s ago, %v, want now and 3h", seen, started, err)
	}
}

// What a machine calls itself fits the table, whatever it is.
func TestLongNames(t *testing.T) {
	t.Parallel()
	pool := pgtest.New(t)
	h := heart(t, pool, "a")
	h.Host, h.Version = strings.Repeat("ä", 200), strings.Repeat("x", 500)
	if err := h.Beat(t.Context()); err != nil {
		t.Fatal(err)
	}
	var host, version string
	err := pool.QueryRow(t.Context(), `select host, version from workers`).Scan(&host, &version)
	if err != nil || host != strings.Repeat("ä", 127) || version != strings.Repeat("x", 200) {
		t.Errorf("got %d and %d bytes, %v, want 254 and 200", len(host), len(version), err)
	}
}

// A worker works whether or not it can say so.
func TestWithoutTheTable(t *testing.T) {
	t.Parallel()
	pool := pgtest.New(t)
	if _, err := pool.Exec(t.Context(), `drop table workers`); err != nil {
		t.Fatal(err)
	}
	heart(t, pool, "a").Start(t.Context())()
	if err := heart(t, pool, "a").Beat(t.Context()); err == nil {
		t.Error("got no error, want one")
	}
}
