package admin_test

import (
	"context"
	"errors"
	"log/slog"
	"net"
	"net/http"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgxpool"

	"quorumbox/internal/admin"
	"quorumbox/internal/health"
	"quorumbox/internal/pgtest"
	"quorumbox/internal/status"
	"quorumbox/jobs"
)

// network is the way to the database, and can be cut.
type network struct {
	state   atomic.Int32 // open, refusing or silent
	queries atomic.Int64
}

const (
	open = iota
	refusing
	silent
)

func (n *network) dial(ctx context.Context, network, address string) (net.Conn, error) {
	switch n.state.Load() {
	case refusing:
		return nil, errors.New("connection refused, canary")
	case silent:
		<-ctx.Done()
		return nil, context.Cause(ctx)
	}
	conn, err := new(net.Dialer).DialContext(ctx, network, address)
	return &cuttable{conn, n}, err
}

// cuttable is a connection that breaks when the way is not open any more.
type cuttable struct {
	net.Conn

	n *network
}

func (c *cuttable) Write(b []byte) (int, error) {
	if c.n.state.Load() != open {
		return 0, errors.New("connection lost, canary")
	}
	return c.Conn.Write(b)
}

func (n *network) TraceQueryStart(ctx context.Context, _ *pgx.Conn, _ pgx.TraceQueryStartData) context.Context {
	n.queries.Add(1)
	return ctx
}

func (*network) TraceQueryEnd(context.Context, *pgx.Conn, pgx.TraceQueryEndData) {}

// probed is a configuration with the health of a worker, whose way to the database can be cut.
func probed(t *testing.T, patience time.Duration) (admin.Config, *network) {
	t.Helper()
	poolConfig, err := pgxpool.ParseConfig(pgtest.URL(t))
	if err != nil {
		t.Fatal(err)
	}
	n := &network{}
	poolConfig.MaxConns = 2
	poolConfig.ConnConfig.DialFunc, poolConfig.ConnConfig.Tracer = n.dial, n
	pool, err := pgxpool.NewWithConfig(t.Context(), poolConfig)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(pool.Close)
	cfg := config(t, pool, "127.0.0.1:0")
	cfg.Health = health.New(patience)
	cfg.Progress = &status.Limits{Dispatch: 30 * time.Second, Decision: 30 * time.Second}
	return cfg, n
}

// eventually asks until the answer is the wanted one.
func eventually(t *testing.T, url string, code int, body string) {
	t.Helper()
	deadline := time.Now().Add(time.Minute)
	tick := time.NewTicker(20 * time.Millisecond)
	defer tick.Stop()
	for {
		got := ask(t, http.MethodGet, url, nil)
		if got.status == code && got.body == body {
			return
		}
		if time.Now().After(deadline) {
			t.Fatalf("got %d %q in the end, want %d %q", got.status, got.body, code, body)
		}
		<-tick.C
	}
}

func TestLivez(t *testing.T) {
	t.Parallel()
	cfg, _ := probed(t, 100*time.Millisecond)
	log := &logs{}
	cfg.Logger = slog.New(slog.NewJSONHandler(log, nil))
	relay, queueA, queueB := cfg.Health.Loop("relay", ""), cfg.Health.Loop("river", "peer_canary"), cfg.Health.Loop("river", "fan_out")
	for _, loop := range []health.Turned{relay, queueA, queueB} {
		loop.Turn(time.Hour)
	}
	url := start(t, cfg) + "/livez"
	eventually(t, url, http.StatusOK, "ok\n")
	relay.Turn(0) // and never again
	eventually(t, url, http.StatusServiceUnavailable, "stuck: relay\n")
	queueA.Turn(0)
	queueB.Turn(0)
	eventually(t, url, http.StatusServiceUnavailable, "stuck: relay river\n")
	relay.Turn(time.Hour)
	eventually(t, url, http.StatusServiceUnavailable, "stuck: river\n")
	queueA.Turn(time.Hour)
	queueB.Turn(time.Hour)
	eventually(t, url, http.StatusOK, "ok\n")
	if log.count(`"a loop does not turn: restart the worker if it stays so","loop":"relay"`) != 1 {
		t.Errorf("got %s, want one line for the first loop, and no more within a minute", &log.b)
	}
}

// Loops that hang because the database is away are not stuck. When it is back they have to turn.
func TestLivezWithoutDatabase(t *testing.T) {
	t.Parallel()
	for name, state := range map[string]int32{"refusing": refusing, "silent": silent} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			cfg, n := probed(t, 100*time.Millisecond)
			relay := cfg.Health.Loop("relay", "")
			url := start(t, cfg) + "/livez"
			n.state.Store(state)
			eventually(t, url, http.StatusOK, "ok: database_unreachable\n")
			eventually(t, url, http.StatusOK, "ok\n") // excused, for as long as the patience
			eventually(t, url, http.StatusOK, "ok: database_unreachable\n")
			n.state.Store(open)
			eventually(t, url, http.StatusServiceUnavailable, "stuck: relay\n")
			relay.Turn(time.Hour)
			eventually(t, url, http.StatusOK, "ok\n")
		})
	}
}

// A database that answers with errors is no excuse.
func TestLivezWithADatabaseThatAnswers(t *testing.T) {
	t.Parallel()
	cfg, _ := probed(t, time.Millisecond)
	cfg.Health.Loop("sweeper", "")
	exec(t, cfg.Pool, `drop table quorumbox_migrations`)
	eventually(t, start(t, cfg)+"/livez", http.StatusServiceUnavailable, "stuck: sweeper\n")
}

func TestLivezWithoutLoops(t *testing.T) {
	t.Parallel()
	cfg, n := probed(t, 0)
	cfg.Health = nil
	url := start(t, cfg) + "/livez"
	n.state.Store(silent)
	eventually(t, url, http.StatusOK, "ok\n")
}

func exec(t *testing.T, pool *pgxpool.Pool, sql string, args ...any) {
	t.Helper()
	if _, err := pool.Exec(t.Context(), sql, args...); err != nil {
		t.Fatal(err)
	}
}

const (
	oldEntry = `
		with written as (
			insert into outbox (lane, namespace, kind, key, created_at) values (5, 'n', 'delete', 'k', now() - interval '40 seconds') returning id
		)
		insert into undispatched (lane, entry, bytes) select 5, id, 1 from written`
	oldBatch = `
		insert into batches (lane, number, entries, first_entry, last_entry, bytes, position, fan_out, leased_until, dispatched_at)
		values (7, 1, '{1}', 1, 1, 1, 1, 0, now(), now() - interval '40 seconds')`
	pauseFanOut = `insert into river_queue (name, created_at, updated_at, paused_at) values ('` + jobs.FanOutQueue + `', now(), now(), now())`
)

func TestReadyz(t *testing.T) {
	t.Parallel()
	const no, yes = http.StatusServiceUnavailable, http.StatusOK
	for _, tt := range []struct {
		name string
		sql  []string
		code int
		body string
	}{
		{"idle", nil, yes, "ok\n"},
		{"no schema", []string{`drop table quorumbox_migrations`}, no, "not ready: schema_outdated\n"},
		{"a migration lacks", []string{`delete from quorumbox_migrations where version_id = 9`}, no, "not ready: schema_outdated\n"},
		{"a table lacks", []string{`drop table undispatched`}, no, "not ready: schema_outdated\n"},
		{"nothing is dispatched", []string{oldEntry}, no, "not ready: dispatch_stalled\n"},
		{"nothing is decided", []string{oldBatch}, no, "not ready: decision_stalled\n"},
		{"nothing moves", []string{oldEntry, oldBatch}, no, "not ready: dispatch_stalled decision_stalled\n"},
		{"paused", []string{pauseFanOut}, yes, "ok: fan_out_paused\n"},
		{"paused, and nothing moves", []string{oldEntry, oldBatch, pauseFanOut}, yes, "ok: fan_out_paused\n"},
		{"an error", []string{`alter table quorumbox_migrations alter column is_applied type text`}, no, "not ready: database_error\n"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			cfg, _ := probed(t, 0)
			for _, sql := range tt.sql {
				exec(t, cfg.Pool, sql)
			}
			got := ask(t, http.MethodGet, start(t, cfg)+"/readyz", nil)
			if got.status != tt.code || got.body != tt.body || got.header.Get("Cache-Control") != "no-store" {
				t.Errorf("got %d %q %v, want %d %q", got.status, got.body, got.header, tt.code, tt.body)
			}
		})
	}
}

// A process that does not replicate does not wait for those that do.
func TestReadyzWithoutProgress(t *testing.T) {
	t.Parallel()
	cfg, _ := probed(t, 0)
	cfg.Progress = nil
	exec(t, cfg.Pool, oldEntry)
	eventually(t, start(t, cfg)+"/readyz", http.StatusOK, "ok\n")
}

// The database goes and comes back.
func TestReadyzWithoutDatabase(t *testing.T) {
	t.Parallel()
	for name, state := range map[string]int32{"refusing": refusing, "silent": silent} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			cfg, n := probed(t, 0)
			log := &logs{}
			cfg.Logger = slog.New(slog.NewJSONHandler(log, nil))
			url := start(t, cfg) + "/readyz"
			eventually(t, url, http.StatusOK, "ok\n")
			n.state.Store(state)
			eventually(t, url, http.StatusServiceUnavailable, "not ready: database_unreachable\n")
			before := time.Now()
			ask(t, http.MethodGet, url, nil)
			if took := time.Since(before); took > 10*time.Second {
				t.Errorf("an answer without the database took %s, want 3s or so at most", took)
			}
			n.state.Store(open)
			eventually(t, url, http.StatusOK, "ok\n")
			if log.count(`"msg":"not ready"`) != 1 || log.count(`"msg":"ready again"`) != 1 {
				t.Errorf("got %s, want one line for each change", &log.b)
			}
		})
	}
}

// What the worker does with its connections is no matter: probes have one of their own.
func TestReadyzWhileThePoolIsTaken(t *testing.T) {
	t.Parallel()
	cfg, _ := probed(t, 0)
	for range 2 {
		conn, err := cfg.Pool.Acquire(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		defer conn.Release()
	}
	eventually(t, start(t, cfg)+"/readyz", http.StatusOK, "ok\n")
}

// However many probes come, the database is asked once in two seconds.
func TestProbesShareAReading(t *testing.T) {
	t.Parallel()
	cfg, n := probed(t, 0)
	url := start(t, cfg) + "/readyz"
	started := time.Now()
	var probes sync.WaitGroup
	for range 20 {
		probes.Go(func() {
			for range 10 {
				if got := ask(t, http.MethodGet, url, nil); got.status != http.StatusOK {
					t.Errorf("got %d %q", got.status, got.body)
				}
			}
		})
	}
	probes.Wait()
	// Two queries make a reading, and a connection is prepared by none.
	readings := int64(time.Since(started)/(2*time.Second)) + 1
	if got := n.queries.Load(); got > 2*readings {
		t.Errorf("got %d queries for 200 probes within %s, want at most %d", got, time.Since(started), 2*readings)
	}
}

// A prober that has gone away leaves nothing behind that others would see.
func TestProberThatGoesAway(t *testing.T) {
	t.Parallel()
	cfg, n := probed(t, 0)
	url := start(t, cfg) + "/readyz"
	n.state.Store(silent)
	ctx, cancel := context.WithTimeout(t.Context(), 100*time.Millisecond)
	defer cancel()
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, url, nil)
	if err != nil {
		t.Fatal(err)
	}
	transport := &http.Transport{DisableKeepAlives: true}
	if resp, err := (&http.Client{Transport: transport}).Do(req); err == nil {
		_ = resp.Body.Close()
		t.Error("got an answer from a silent database")
	}
	n.state.Store(open)
	got := ask(t, http.MethodGet, url, nil)
	if got.status != http.StatusOK && !strings.Contains(got.body, admin.DatabaseUnreachable) {
		t.Errorf("got %d %q", got.status, got.body)
	}
	eventually(t, url, http.StatusOK, "ok\n")
}
