package importer_test

import (
	"context"
	"errors"
	"fmt"
	"net"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgxpool"

	"quorumbox/internal/importer"
	"quorumbox/internal/pgtest"
	"quorumbox/outbox"
)

// openPool returns a pool to the database at url, changed by change.
func openPool(t *testing.T, url string, change func(*pgxpool.Config)) *pgxpool.Pool {
	t.Helper()
	cfg, err := pgxpool.ParseConfig(url)
	if err != nil {
		t.Fatal(err)
	}
	change(cfg)
	pool, err := pgxpool.NewWithConfig(t.Context(), cfg)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(pool.Close)
	return pool
}

// rowCounter counts the rows of pgx's batches, which is what StoreMany sends.
type rowCounter struct{ rows atomic.Int64 }

func (c *rowCounter) TraceBatchStart(ctx context.Context, _ *pgx.Conn, data pgx.TraceBatchStartData) context.Context {
	c.rows.Add(int64(data.Batch.Len()))
	return ctx
}
func (*rowCounter) TraceBatchQuery(context.Context, *pgx.Conn, pgx.TraceBatchQueryData) {}
func (*rowCounter) TraceBatchEnd(context.Context, *pgx.Conn, pgx.TraceBatchEndData)     {}
func (*rowCounter) TraceQueryEnd(context.Context, *pgx.Conn, pgx.TraceQueryEndData)     {}
func (*rowCounter) TraceQueryStart(ctx context.Context, _ *pgx.Conn, _ pgx.TraceQueryStartData) context.Context {
	return ctx
}

// The work for bad rows is a small multiple of the lines, whatever their pattern is.
func TestRunIsLinearInBadRows(t *testing.T) {
	t.Parallel()
	const n = 1000
	for _, tt := range []struct {
		name string
		bad  func(i int) bool
		most int64 // rows sent
	}{
		{"none", func(int) bool { return false }, n + 1},
		{"one", func(i int) bool { return i == 500 }, 2*n + 500},
		{"every second", func(i int) bool { return i%2 == 0 }, 6 * n},
		{"every tenth", func(i int) bool { return i%10 == 0 }, 6 * n},
		{"all", func(int) bool { return true }, 4 * n},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			counter := &rowCounter{}
			pool := openPool(t, pgtest.URL(t), func(cfg *pgxpool.Config) { cfg.ConnConfig.Tracer = counter })
			lines := []string{memory("first")}
			var bad int64
			for i := range n {
				if tt.bad(i) {
					lines = append(lines, titled(fmt.Sprintf("bad%d", i), "title of first"))
					bad++
				} else {
					lines = append(lines, memory(fmt.Sprintf("good%d", i)))
				}
			}
			got, err := importer.Run(t.Context(), pool, strings.NewReader(strings.Join(lines, "\n")), importer.Options{Chunk: n + 1})
			if err != nil {
				t.Fatal(err)
			}
			if diff := cmp.Diff(importer.Summary{Lines: n + 1, Inserted: n + 1 - bad, Bad: bad}, got, ignoreTimes()); diff != "" {
				t.Errorf("summary (-want +got):\n%s", diff)
			}
			t.Logf("%d rows sent for %d lines", counter.rows.Load(), n)
			if rows := counter.rows.Load(); rows > tt.most {
				t.Errorf("got %d rows sent for %d lines, want at most %d", rows, n, tt.most)
			}
		})
	}
}

// numbered returns n legal lines.
func numbered(n int) string {
	var b strings.Builder
	for i := range n {
		b.WriteString(memory(fmt.Sprintf("m%d", i)))
		b.WriteByte('\n')
	}
	return b.String()
}

// Connections that are killed again and again: every line is stored once.
func TestRunSurvivesLostConnections(t *testing.T) {
	t.Parallel()
	url := pgtest.URL(t)
	pool := openPool(t, url, func(cfg *pgxpool.Config) { cfg.ConnConfig.RuntimeParams["application_name"] = "victim" })
	admin := openPool(t, url, func(*pgxpool.Config) {})
	const n = 2000
	kills := 0
	kill := func(importer.Progress) {
		if kills == 5 {
			return
		}
		tag, err := admin.Exec(t.Context(), `select pg_terminate_backend(pid) from pg_stat_activity where application_name = 'victim'`)
		if err != nil {
			t.Error(err)
		}
		kills += int(tag.RowsAffected())
	}
	got, err := importer.Run(t.Context(), pool, strings.NewReader(numbered(n)), importer.Options{Chunk: 100, OnProgress: kill})
	if err != nil {
		t.Fatal(err)
	}
	if got.Entries() != n || got.Bad != 0 || kills < 5 {
		t.Errorf("got %+v after %d kills, want %d entries", got, kills, n)
	}
	if memories, _ := stored(t, admin); memories != n {
		t.Errorf("got %d memories, want %d", memories, n)
	}
}

// lossyConn loses the answer to a commit that reached the server.
type lossyConn struct {
	net.Conn

	lose      *atomic.Int32 // commits left to lose
	committed bool
}

var errCut = errors.New("the connection was cut")

func (c *lossyConn) Write(b []byte) (int, error) {
	n, err := c.Conn.Write(b)
	c.committed = c.committed || strings.Contains(strings.ToLower(string(b)), "commit\x00")
	return n, err
}

func (c *lossyConn) Read(b []byte) (int, error) {
	if !c.committed || c.lose.Load() == 0 {
		c.committed = false
		return c.Conn.Read(b)
	}
	if _, err := c.Conn.Read(b); err != nil { // the commit is done once the server answers
		return 0, err
	}
	c.lose.Add(-1)
	_ = c.Close()
	return 0, errCut
}

func TestRunRepeatsAnAmbiguousCommit(t *testing.T) {
	t.Parallel()
	var lose atomic.Int32
	lose.Store(2)
	pool := openPool(t, pgtest.URL(t), func(cfg *pgxpool.Config) {
		dial := cfg.ConnConfig.DialFunc
		cfg.ConnConfig.DialFunc = func(ctx context.Context, network, addr string) (net.Conn, error) {
			conn, err := dial(ctx, network, addr)
			if err != nil {
				return nil, err
			}
			return &lossyConn{Conn: conn, lose: &lose}, nil
		}
	})
	got, err := importer.Run(t.Context(), pool, strings.NewReader(numbered(30)), importer.Options{Chunk: 10})
	if err != nil {
		t.Fatal(err)
	}
	// The first chunk was there already when it was repeated, twice.
	if diff := cmp.Diff(importer.Summary{Lines: 30, Inserted: 20, Unchanged: 10}, got, ignoreTimes()); diff != "" {
		t.Errorf("summary (-want +got):\n%s", diff)
	}
	if memories, _ := stored(t, pool); memories != 30 || lose.Load() != 0 {
		t.Errorf("got %d memories, %d commits left to lose, want 30 and 0", memories, lose.Load())
	}
}

// A chunk that meets a deadlock, a serialization failure or a full server is done again; a fault of the schema is not.
func TestRunRetriesByCode(t *testing.T) {
	t.Parallel()
	for _, tt := range []struct {
		code  string
		again bool
	}{
		{"40P01", true},
		{"40001", true},
		{"53300", true},
		{"55P03", true},
		{"57P01", true},
		{"42501", false},
		{"XX000", false},
	} {
		t.Run(tt.code, func(t *testing.T) {
			t.Parallel()
			pool := pgtest.New(t)
			// A sequence keeps its count when the transaction is rolled back: the first two inserts fail.
			_, err := pool.Exec(t.Context(), fmt.Sprintf(`
				create sequence attempts;
				create function refuse() returns trigger language plpgsql as $$
				begin
					if nextval('attempts') <= 2 then raise exception 'injected' using errcode = '%s'; end if;
					return new;
				end $$;
				create trigger refuse before insert on memories for each row execute function refuse()`, tt.code))
			if err != nil {
				t.Fatal(err)
			}
			got, err := importer.Run(t.Context(), pool, strings.NewReader(numbered(3)), importer.Options{})
			memories, _ := stored(t, pool)
			if tt.again && (err != nil || got.Inserted != 3 || memories != 3) {
				t.Errorf("got %+v, %v, %d memories, want 3", got, err, memories)
			}
			if !tt.again && (err == nil || !strings.Contains(err.Error(), "store lines 1 to 3") || got.Lines != 0 || memories != 0) {
				t.Errorf("got %+v, %v, %d memories, want an error and nothing stored", got, err, memories)
			}
		})
	}
}

func TestRunGivesUpOnADatabaseThatStaysAway(t *testing.T) {
	t.Parallel()
	listener, err := new(net.ListenConfig).Listen(t.Context(), "tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	url := fmt.Sprintf("postgres://nobody@%s/none?sslmode=disable", listener.Addr())
	if err := listener.Close(); err != nil {
		t.Fatal(err)
	}
	var dials atomic.Int64
	pool := openPool(t, url, func(cfg *pgxpool.Config) {
		cfg.BeforeConnect = func(context.Context, *pgx.ConnConfig) error {
			dials.Add(1)
			return nil
		}
	})
	_, err = importer.Run(t.Context(), pool, strings.NewReader(numbered(1)), importer.Options{RetryFor: 300 * time.Millisecond})
	if err == nil || !strings.Contains(err.Error(), "refused") {
		t.Errorf("got %v, want the refused connection", err)
	}
	// How many attempts fit depends on the jitter; the first pause, 150 ms at most, always does.
	if got := dials.Load(); got < 2 {
		t.Errorf("got %d attempts, want some more after the first", got)
	}
}

// decide plays the worker: it puts all undispatched entries into decided batches, with the verdict that their namespace's last word names.
func decide(ctx context.Context, pool *pgxpool.Pool) error {
	_, err := pool.Exec(ctx, `
		with taken as (
			delete from undispatched returning lane, entry
		)
		insert into batches (lane, number, entries, first_entry, last_entry, bytes, position, fan_out, leased_until, verdict, reason, needed, decided_at)
		select t.lane, coalesce((select max(number) from batches b where b.lane = t.lane), 0) + 1, array_agg(t.entry order by t.entry), min(t.entry),
		       max(t.entry), 0, 0, 0, now(), case when o.namespace like '%/met' then 'met' else 'not_met' end,
		       case when o.namespace like '%/met' then '' else regexp_replace(o.namespace, '.*/', '') end, 1, now()
		from taken t
		join outbox o on o.id = t.entry
		group by t.lane, o.namespace`)
	return err
}

// decider decides until the returned function is called, which gives its error.
func decider(t *testing.T, pool *pgxpool.Pool) (stop func() error) {
	t.Helper()
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error, 1)
	go func() {
		var err error
		for err == nil && ctx.Err() == nil {
			err = decide(ctx, pool)
		}
		if ctx.Err() != nil {
			err = nil
		}
		done <- err
	}()
	return func() error {
		cancel()
		return <-done
	}
}

func awaited(id, namespace string) string {
	return fmt.Sprintf(`{"id":%q,"namespace":%q,"title":%q,"content":"c"}`, id, namespace, id)
}

func TestRunAwaitsVerdicts(t *testing.T) {
	t.Parallel()
	pool := pgtest.New(t)
	var lines []string
	for i := range 30 {
		lines = append(lines, awaited(fmt.Sprintf("m%d", i), []string{"a/met", "b/met", "c/timeout", "d/unreachable", "e/met"}[i%5]))
	}
	lines = append(lines, "bad")
	stop := decider(t, pool)
	got, err := importer.Run(t.Context(), pool, strings.NewReader(strings.Join(lines, "\n")), importer.Options{Chunk: 4, Await: true})
	if err := errors.Join(err, stop()); err != nil {
		t.Fatal(err)
	}
	want := importer.Summary{Lines: 31, Inserted: 30, Bad: 1, Verdicts: &importer.Verdicts{
		Met: 18, NotMet: map[outbox.Reason]int64{outbox.ReasonTimeout: 6, outbox.ReasonUnreachable: 6},
	}}
	if diff := cmp.Diff(want, got, ignoreTimes()); diff != "" {
		t.Errorf("summary (-want +got):\n%s", diff)
	}
	if got.OK() {
		t.Error("an import with verdicts not met is OK")
	}
}

func TestRunStopsWaitingForVerdicts(t *testing.T) {
	t.Parallel()
	pool := pgtest.New(t)
	if _, err := importer.Run(t.Context(), pool, strings.NewReader(awaited("early", "a/met")), importer.Options{}); err != nil {
		t.Fatal(err)
	}
	got, err := importer.Run(t.Context(), pool, strings.NewReader(numbered(7)), importer.Options{Await: true, AwaitTimeout: 50 * time.Millisecond})
	if err != nil {
		t.Fatal(err)
	}
	want := importer.Summary{Lines: 7, Inserted: 7, Verdicts: &importer.Verdicts{Undecided: 7}}
	if diff := cmp.Diff(want, got, ignoreTimes()); diff != "" {
		t.Errorf("summary (-want +got):\n%s", diff)
	}
	if got.OK() {
		t.Error("an import with undecided entries is OK")
	}
}

// Entries that were delivered and pruned before their verdict was looked at.
func TestRunAwaitsPrunedEntries(t *testing.T) {
	t.Parallel()
	pool := pgtest.New(t)
	if _, err := pool.Exec(t.Context(), `
		create function prune() returns trigger language plpgsql as $$
		begin
			delete from undispatched where entry = new.id;
			delete from outbox where id = new.id;
			return null;
		end $$;
		create constraint trigger prune after insert on outbox deferrable initially deferred
			for each row when (new.key in ('m1', 'm5')) execute function prune()`); err != nil {
		t.Fatal(err)
	}
	var lines []string
	for i := range 7 {
		lines = append(lines, awaited(fmt.Sprintf("m%d", i), "a/met"))
	}
	stop := decider(t, pool)
	got, err := importer.Run(t.Context(), pool, strings.NewReader(strings.Join(lines, "\n")), importer.Options{Await: true})
	if err := errors.Join(err, stop()); err != nil {
		t.Fatal(err)
	}
	want := importer.Summary{Lines: 7, Inserted: 7, Verdicts: &importer.Verdicts{Met: 5, Pruned: 2}}
	if diff := cmp.Diff(want, got, ignoreTimes()); diff != "" {
		t.Errorf("summary (-want +got):\n%s", diff)
	}
	if !got.OK() {
		t.Error("an import whose entries are met or pruned is not OK")
	}
}
