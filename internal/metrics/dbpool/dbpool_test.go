package dbpool_test

import (
	"context"
	"errors"
	"strings"
	"testing"
	"time"

	"github.com/jackc/pgx/v5/pgxpool"
	"github.com/prometheus/client_golang/prometheus/testutil"

	"quorumbox/internal/metrics/dbpool"
	"quorumbox/internal/pgtest"
)

func TestMain(m *testing.M) { pgtest.Main(m, pgtest.WithLeakCheck()) }

// Of two connections one is in use and one idle, and somebody has waited for one in vain.
func TestCollect(t *testing.T) {
	t.Parallel()
	cfg := pgtest.New(t).Config()
	cfg.MaxConns, cfg.MinConns, cfg.MinIdleConns = 2, 0, 0
	pool, err := pgxpool.NewWithConfig(t.Context(), cfg)
	if err != nil {
		t.Fatal(err)
	}
	defer pool.Close()
	c := dbpool.New(pool)
	compare := func(want string) {
		t.Helper()
		if err := testutil.CollectAndCompare(c, strings.NewReader(want), "quorumbox_db_pool_connections", "quorumbox_db_pool_max_connections",
			"quorumbox_db_pool_acquires_total", "quorumbox_db_pool_canceled_acquires_total", "quorumbox_db_pool_opened_total"); err != nil {
			t.Error(err)
		}
	}
	compare(shown("0", "0", "0", "0", "0"))

	one, err := pool.Acquire(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	defer one.Release()
	two, err := pool.Acquire(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithTimeout(t.Context(), time.Millisecond)
	defer cancel()
	if _, err := pool.Acquire(ctx); !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("got %v, want that both connections are in use", err)
	}
	compare(shown("2", "0", "2", "1", "2"))
	two.Release()
	compare(shown("1", "1", "2", "1", "2"))
	if n := testutil.CollectAndCount(c, "quorumbox_db_pool_waits_total", "quorumbox_db_pool_wait_seconds_total"); n != 2 {
		t.Errorf("got %d metrics of waits, want 2", n)
	}
}

func shown(acquired, idle, acquires, canceled, opened string) string {
	return strings.NewReplacer("ACQUIRED", acquired, "IDLE", idle, "TAKEN", acquires, "CANCELED", canceled, "OPENED", opened).Replace(`
# HELP quorumbox_db_pool_acquires_total Times that a connection was taken from the pool.
# TYPE quorumbox_db_pool_acquires_total counter
quorumbox_db_pool_acquires_total TAKEN
# HELP quorumbox_db_pool_canceled_acquires_total Times that somebody gave up to wait for a connection.
# TYPE quorumbox_db_pool_canceled_acquires_total counter
quorumbox_db_pool_canceled_acquires_total CANCELED
# HELP quorumbox_db_pool_connections Connections of this worker to the database.
# TYPE quorumbox_db_pool_connections gauge
quorumbox_db_pool_connections{state="acquired"} ACQUIRED
quorumbox_db_pool_connections{state="idle"} IDLE
quorumbox_db_pool_connections{state="opening"} 0
# HELP quorumbox_db_pool_max_connections Setting database.max_conns: the most connections of this worker.
# TYPE quorumbox_db_pool_max_connections gauge
quorumbox_db_pool_max_connections 2
# HELP quorumbox_db_pool_opened_total Connections that were opened.
# TYPE quorumbox_db_pool_opened_total counter
quorumbox_db_pool_opened_total OPENED
`)
}
