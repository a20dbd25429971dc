package jobs_test

import (
	"context"
	"flag"
	"fmt"
	"io"
	"sync"
	"sync/atomic"
	"testing"
	"text/tabwriter"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgxpool"

	"quorumbox/internal/peer"
	"quorumbox/internal/pgtest"
	"quorumbox/jobs"
	"quorumbox/outbox"
)

// For a measurement: go test ./jobs -run TestRetentionKeepsUp -v -timeout 30m -retention.entries=1000000 -retention.history=5s -retention.hold
//
//nolint:gochecknoglobals // flags
var (
	retentionEntries = flag.Int("retention.entries", 2000, "entries that TestRetentionKeepsUp writes at full rate")
	retentionHistory = flag.Duration("retention.history", 10*time.Millisecond, "how long it keeps them")
	retentionHold    = flag.Bool("retention.hold", false, "hold a repeatable read transaction open while its second half is written")
)

// The log is pruned as fast as it is written, also while a transaction holds dead rows. Sizes over time are logged.
func TestRetentionKeepsUp(t *testing.T) {
	t.Parallel()
	g := newGrowth(t)
	g.pruneBeside()
	g.sampleBeside()
	if !*retentionHold {
		g.write(*retentionEntries)
	} else {
		g.write(*retentionEntries / 2)
		release := g.hold()
		g.write(*retentionEntries / 2)
		release()
		g.write(*retentionEntries / 5)
	}
	g.f.eventually("only the newest batch of each lane is left", func() bool {
		return g.f.scalar(`select count(*) from undispatched`) == 0 && g.f.scalar(`select count(*) from batches`) == g.f.scalar(`select count(distinct lane) from batches`)
	})
	g.stop()
	if entries, named := g.f.scalar(`select count(*) from outbox`), g.f.scalar(`select sum(cardinality(entries)) from batches`); entries != named {
		t.Errorf("got %d entries left, want the %d of the batches", entries, named)
	}
}

// growth is a fleet under load, with peers that acknowledge at once.
type growth struct {
	t       *testing.T
	f       *fleet
	written atomic.Int64
	phase   atomic.Value
	loops   sync.WaitGroup
	ctx     context.Context //nolint:containedctx // of the loops, which end with the test
	stop    func()
}

func newGrowth(t *testing.T) *growth {
	t.Helper()
	g := &growth{t: t, f: &fleet{t: t, pool: pgtest.New(t), peers: newScripted()}}
	acknowledge := jobs.PushFunc(func(context.Context, string, peer.Request) (peer.Report, error) { return peer.Report{Attempts: 1}, nil })
	g.f.run(func(c *jobs.Config) {
		c.FanOut, c.RetryPush, c.CompletedRetention = acknowledge, acknowledge, 10*time.Second
	})
	ctx, cancel := context.WithCancel(t.Context())
	g.ctx = ctx
	g.stop = sync.OnceFunc(func() {
		cancel()
		g.loops.Wait()
	})
	t.Cleanup(g.stop)
	return g
}

// pruneBeside prunes as Run does, with shorter pauses where the history is short.
func (g *growth) pruneBeside() {
	p := jobs.NewPruner(g.f.pool, jobs.PruneConfig{History: *retentionHistory})
	g.loops.Go(func() {
		tick := time.NewTicker(max(*retentionHistory/2, time.Millisecond))
		defer tick.Stop()
		for {
			select {
			case <-g.ctx.Done():
				return
			case <-tick.C:
			}
			for done := false; !done; {
				var err error
				done, err = p.Prune(g.ctx)
				if g.ctx.Err() != nil {
					return
				}
				if err != nil {
					g.t.Error(err)
					return
				}
			}
		}
	})
}

// write appends n entries at full rate: 8 writers that each change their own 500 memories again and again, 25 a transaction.
func (g *growth) write(n int) {
	g.t.Helper()
	const writers, own, atOnce = 8, 500, 25
	left := atomic.Int64{}
	left.Store(int64(n))
	var all sync.WaitGroup
	for w := range writers {
		all.Go(func() {
			for round := 0; left.Add(-atOnce) > -atOnce; round++ {
				list := make([]outbox.Memory, atOnce)
				for i := range list {
					k := (round*atOnce + i) % own
					id := fmt.Sprintf("m-%d-%d", w, k)
					list[i] = outbox.Memory{ID: id, Namespace: fmt.Sprintf("ns%d", k%100), Title: id, Content: fmt.Sprintf("%0120d", round)}
				}
				err := pgx.BeginFunc(g.ctx, g.f.pool, func(tx pgx.Tx) error {
					_, err := outbox.StoreMany(g.ctx, tx, list)
					return err
				})
				if err != nil {
					g.t.Error(err)
					return
				}
				g.written.Add(atOnce)
			}
		})
	}
	all.Wait()
}

// hold keeps deleted rows from being cleaned until release is called.
func (g *growth) hold() (release func()) {
	g.t.Helper()
	conn, err := pgx.Connect(g.ctx, g.f.pool.Config().ConnString())
	if err != nil {
		g.t.Fatal(err)
	}
	if _, err := conn.Exec(g.ctx, `begin isolation level repeatable read; select`); err != nil {
		g.t.Fatal(err)
	}
	g.phase.Store("held")
	return func() {
		_ = conn.Close(context.WithoutCancel(g.ctx))
		g.phase.Store("released")
	}
}

// sampleBeside logs sizes now and then.
func (g *growth) sampleBeside() {
	g.phase.Store("free")
	out := tabwriter.NewWriter(g.t.Output(), 0, 0, 2, ' ', tabwriter.AlignRight)
	_, _ = fmt.Fprintln(out, "s\twritten\tentries/s\ttransaction\tin outbox\tdead\toutbox MiB\tbatches\tdead\tbatches MiB\triver_job\tdead\triver_job MiB\tundispatched MiB\t")
	start := time.Now()
	g.loops.Go(func() {
		tick := time.NewTicker(5 * time.Second)
		defer tick.Stop()
		before, at := int64(0), start
		for {
			select {
			case <-g.ctx.Done():
				_ = out.Flush()
				return
			case <-tick.C:
			}
			written, now := g.written.Load(), time.Now()
			_, _ = fmt.Fprintf(out, "%.0f\t%d\t%.0f\t%s\t", now.Sub(start).Seconds(), written, float64(written-before)/now.Sub(at).Seconds(), g.phase.Load())
			before, at = written, now
			sizes(g.ctx, out, g.f.pool)
		}
	})
}

func sizes(ctx context.Context, out io.Writer, pool *pgxpool.Pool) {
	const mib = 1 << 20
	for _, table := range []string{"outbox", "batches", "river_job", "undispatched"} {
		var live, dead, size int64
		err := pool.QueryRow(ctx, `
			select n_live_tup, n_dead_tup, pg_total_relation_size(relid) from pg_stat_user_tables where relname = $1`, table).Scan(&live, &dead, &size)
		switch {
		case err != nil:
			_, _ = fmt.Fprintf(out, "%v\t", err)
		case table == "undispatched":
			_, _ = fmt.Fprintf(out, "%.1f\t\n", float64(size)/mib)
		default:
			_, _ = fmt.Fprintf(out, "%d\t%d\t%.1f\t", live, dead, float64(size)/mib)
		}
	}
}
