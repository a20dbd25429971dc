package backlog_test

import (
	"context"
	_ "embed"
	"errors"
	"log/slog"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/jackc/pgx/v5/pgconn"
	"github.com/jackc/pgx/v5/pgxpool"
	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/testutil"
	dto "github.com/prometheus/client_model/go"
	"github.com/riverqueue/river/rivertype"

	"quorumbox/internal/metrics/backlog"
	"quorumbox/internal/peer"
	"quorumbox/internal/pgtest"
	"quorumbox/internal/status"
	"quorumbox/jobs"
)

func logger(t *testing.T) *slog.Logger {
	t.Helper()
	return slog.New(slog.NewTextHandler(t.Output(), nil))
}

func compare(t *testing.T, c prometheus.Collector, want string) {
	t.Helper()
	if err := testutil.CollectAndCompare(busy{c}, strings.NewReader(want)); err != nil {
		t.Error(err)
	}
}

// busy is a collector without the many series of jobs that are 0.
type busy struct{ prometheus.Collector }

func (b busy) Collect(ch chan<- prometheus.Metric) {
	all := make(chan prometheus.Metric)
	go func() {
		defer close(all)
		b.Collector.Collect(all)
	}()
	for m := range all {
		var value dto.Metric
		jobs := strings.Contains(m.Desc().String(), `"quorumbox_river_jobs"`)
		if jobs && m.Write(&value) == nil && value.GetGauge().GetValue() == 0 {
			continue
		}
		ch <- m
	}
}

const failedOnce = `
# HELP quorumbox_scrape_errors_total Readings of the database for metrics that failed. The gauges are missing meanwhile.
# TYPE quorumbox_scrape_errors_total counter
quorumbox_scrape_errors_total 1
`

// full.prom is what is shown of the readings of TestCollect.
//
//go:embed testdata/full.prom
var full string

func TestCollect(t *testing.T) {
	t.Parallel()
	read := func(context.Context) (status.Backlog, error) {
		return status.Backlog{
			Peers: []status.Peer{
				{ID: "a", State: "active", InStep: true},
				{ID: "b", State: "active", LanesLagging: 2, EntriesLagging: 1204, OldestAge: 34.5, Failures: 6, Doubts: 3, Repairs: 8},
				{ID: "c", State: "active", Paused: true, LanesLagging: 1, EntriesLagging: 2},
				{ID: "d", State: "active", Snapshot: &status.Snapshot{Pushed: 40, Total: 100, Running: 7}},
				{ID: "gone", State: "absent", LanesLagging: 32, EntriesLagging: 9},
				{ID: "lost", State: "lost"},
			},
			Undispatched: status.Undispatched{Entries: 5, OldestAge: 1.5},
			Undecided:    status.Undecided{Batches: 3, Entries: 8, OldestAge: 0.25},
			Tables:       []status.Table{{Name: "batches", Live: 40, Dead: 2, Bytes: 8192}, {Name: "outbox", Live: 300, Bytes: 16384}},
			Jobs: []status.Jobs{
				{Kind: "fan_out", State: rivertype.JobStateRunning, Jobs: 2},
				{Kind: "of_a_later_release", State: rivertype.JobStateDiscarded, Jobs: 3},
				{Kind: "of_another", State: rivertype.JobStateDiscarded, Jobs: 4},
			},
			OldestXmin: 61.25,
			Refusals: []status.Refusals{
				{Peer: "a", Class: peer.ClassSkipped, Entries: 2},
				{Peer: "a", Class: "of_a_later_release", Entries: 3},
				{Peer: "a", Class: "of_another", Entries: 4},
				{Peer: "b", Class: peer.ClassConflict, Entries: 1},
				{Peer: "gone", Class: peer.ClassSkipped, Entries: 1},
			},
		}, nil
	}
	c := backlog.New(read, logger(t))
	compare(t, c, full)
	if n, want := testutil.CollectAndCount(c, "quorumbox_river_jobs"), len(jobs.Kinds())*len(status.JobStates())+1; n != want {
		t.Errorf("got %d series of jobs, want all %d from the start", n, want)
	}
}

// One bad label must not end the process, nor hide the rest.
func TestCollectWithAnImpossibleLabel(t *testing.T) {
	t.Parallel()
	registry := prometheus.NewRegistry()
	registry.MustRegister(backlog.New(func(context.Context) (status.Backlog, error) {
		return status.Backlog{Peers: []status.Peer{{ID: "\xff", State: "active"}, {ID: "a", State: "active"}}}, nil
	}, logger(t)))
	families, err := registry.Gather()
	if err == nil {
		t.Error("got no error, want one for the label")
	}
	for _, f := range families {
		if f.GetName() == "quorumbox_peer_lag_entries" && len(f.GetMetric()) == 1 {
			return
		}
	}
	t.Errorf("got %v, want the other peer's metrics", families)
}

// source is a database that counts its readings.
type source struct {
	reads atomic.Int64
	err   error
	takes time.Duration
}

func (s *source) read(ctx context.Context) (status.Backlog, error) {
	n := s.reads.Add(1)
	timer := time.NewTimer(s.takes)
	defer timer.Stop()
	select {
	case <-timer.C:
	case <-ctx.Done():
		return status.Backlog{}, context.Cause(ctx)
	}
	return status.Backlog{Undispatched: status.Undispatched{Entries: n}}, s.err
}

func undispatched(n string) string {
	return `
# HELP quorumbox_undispatched_entries Entries that no batch names yet; at least, from 100000.
# TYPE quorumbox_undispatched_entries gauge
quorumbox_undispatched_entries ` + n + "\n"
}

func TestReadingIsCached(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		var s source
		c := backlog.New(s.read, logger(t))
		look := func(want string) {
			t.Helper()
			if err := testutil.CollectAndCompare(c, strings.NewReader(undispatched(want)), "quorumbox_undispatched_entries"); err != nil {
				t.Error(err)
			}
		}
		look("1")
		time.Sleep(backlog.Fresh - time.Nanosecond)
		look("1")
		time.Sleep(time.Nanosecond)
		look("2")
	})
}

func TestFailureIsCachedAndCounted(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		s := source{err: errors.New("connection refused")}
		c := backlog.New(s.read, logger(t))
		compare(t, c, failedOnce)
		time.Sleep(backlog.Fresh - time.Nanosecond)
		compare(t, c, failedOnce)
		time.Sleep(time.Nanosecond)
		compare(t, c, strings.ReplaceAll(failedOnce, "total 1", "total 2"))
	})
}

// An old number must not pass for a new one.
func TestFailureHidesTheReadingBefore(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		var s source
		c := backlog.New(s.read, logger(t))
		if n := testutil.CollectAndCount(c, "quorumbox_undispatched_entries"); n != 1 {
			t.Fatalf("got %d series from a database that answers, want 1", n)
		}
		s.err = errors.New("connection refused")
		time.Sleep(backlog.Fresh)
		compare(t, c, failedOnce)
	})
}

func TestSlowReadingIsGivenUp(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		s := source{takes: time.Hour}
		c := backlog.New(s.read, logger(t))
		start := time.Now()
		compare(t, c, failedOnce)
		if took := time.Since(start); took != backlog.ReadTimeout {
			t.Errorf("got the answer after %s, want %s", took, backlog.ReadTimeout)
		}
	})
}

func TestScrapesShareAReading(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		s := source{takes: time.Second}
		c := backlog.New(s.read, logger(t))
		var scrapes sync.WaitGroup
		for range 20 {
			scrapes.Go(func() { testutil.CollectAndCount(c) })
		}
		scrapes.Wait()
		if n := s.reads.Load(); n != 1 {
			t.Errorf("got %d readings for scrapes at the same time, want 1", n)
		}
	})
}

func exec(t *testing.T, pool *pgxpool.Pool, sql string) {
	t.Helper()
	if _, err := pool.Exec(t.Context(), sql); err != nil {
		t.Fatal(err)
	}
}

func TestFromPool(t *testing.T) {
	t.Parallel()
	pool := pgtest.New(t)
	exec(t, pool, `insert into peers (id, state) values ('a', 'active'), ('gone', 'absent')`)
	exec(t, pool, `insert into refusals (peer, entry, lane, class) values ('a', 1, 3, 'skipped')`)
	const want = `
# HELP quorumbox_peer_lag_entries Dispatched entries that the peer misses.
# TYPE quorumbox_peer_lag_entries gauge
quorumbox_peer_lag_entries{peer="a"} 0
# HELP quorumbox_refusals Entries that the peer refuses for good now; at least, from 100000.
# TYPE quorumbox_refusals gauge
quorumbox_refusals{class="bad_request",peer="a"} 0
quorumbox_refusals{class="invalid_request",peer="a"} 0
quorumbox_refusals{class="skipped",peer="a"} 1
quorumbox_refusals{class="too_large",peer="a"} 0
quorumbox_refusals{class="unsupported",peer="a"} 0
`
	c := backlog.New(backlog.FromPool(pool), logger(t))
	if err := testutil.CollectAndCompare(c, strings.NewReader(want), "quorumbox_peer_lag_entries", "quorumbox_refusals"); err != nil {
		t.Error(err)
	}
}

// A table that somebody holds locked costs a scrape its statement timeout; the connection stays usable, without the timeout.
func TestFromPoolEndsSlowStatements(t *testing.T) {
	t.Parallel()
	pool := pgtest.New(t)
	tx, err := pool.Begin(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = tx.Rollback(context.WithoutCancel(t.Context())) }()
	if _, err := tx.Exec(t.Context(), `lock table batches in access exclusive mode`); err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
	defer cancel()
	_, err = backlog.FromPool(pool)(ctx)
	const queryCanceled = "57014"
	if pgErr, ok := errors.AsType[*pgconn.PgError](err); !ok || pgErr.Code != queryCanceled {
		t.Errorf("got %v, want the statement timeout", err)
	}
	if err := tx.Rollback(t.Context()); err != nil {
		t.Fatal(err)
	}
	if _, err := backlog.FromPool(pool)(ctx); err != nil {
		t.Errorf("got %v with the table free again, want none", err)
	}
	idle := pool.AcquireAllIdle(t.Context())
	for _, conn := range idle {
		var timeout string
		if err := conn.QueryRow(t.Context(), `show statement_timeout`).Scan(&timeout); err != nil || timeout == "2s" {
			t.Errorf("got the timeout %s afterwards, %v, want that of before", timeout, err)
		}
		conn.Release()
	}
	if len(idle) == 0 {
		t.Error("got no connection back")
	}
}

func TestFromPoolWithoutTables(t *testing.T) {
	t.Parallel()
	pool := pgtest.New(t)
	exec(t, pool, `drop table refusals`)
	if _, err := backlog.FromPool(pool)(t.Context()); !errors.Is(err, status.ErrNoSchema) {
		t.Errorf("got %v, want ErrNoSchema", err)
	}
	compare(t, backlog.New(backlog.FromPool(pool), logger(t)), failedOnce)
}
