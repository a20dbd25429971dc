package jobs

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgxpool"

	"quorumbox/internal/health"
	"quorumbox/internal/locks"
	"quorumbox/outbox"
)

const (
	// pruneEvery is how often a pruner looks that had nothing to do.
	pruneEvery = 5 * time.Second

	// tendEvery is how often it looks after what changes slowly: limits, kept entries, tombstones, long transactions.
	tendEvery = 30 * time.Second

	// pruneEntries bounds the rows that one transaction deletes from a table, but for the rest of its last batch: it takes some ten milliseconds.
	pruneEntries = 2000

	// pruneBatches bounds how many batches of a lane are looked at for that.
	pruneBatches = 100

	// pruneRest is the shortest pause between two transactions. A pause lasts as long as the transaction before it did, so that pruning never
	// takes more than half of a connection.
	pruneRest = 10 * time.Millisecond
)

// PruneConfig says how much of the past is kept. The zero value of each field means its default.
type PruneConfig struct {
	// History is how long a batch is kept after its verdict, when every peer has it. It should be at least
	// [Config.Zombie]: what a late push may have set back is found in the log. Defaults to 1h.
	History time.Duration
	// Tombstones is how long it is remembered that a memory was deleted. Defaults to 720h.
	Tombstones time.Duration

	// BacklogEntries and BacklogAge bound what is kept for a peer that lags: entries that it misses, and the time since the oldest of them was
	// dispatched. Default to 5,000,000 and 72h.
	BacklogEntries int64
	BacklogAge     time.Duration
	// Overdue is called for a peer that is configured and past a limit, and again every 30s while it is, in a transaction that has locked the peer's
	// rows of lagging and of peers. It must let the log go: move the cursors to the lanes' last decided batches, and do so with the doubts. Nil: the
	// log is kept, and a line says so once. A peer that is absent and past a limit becomes lost without it.
	Overdue func(ctx context.Context, tx pgx.Tx, peer string) error

	// LongTransaction is how old a transaction may be before a line tells of it. Defaults to 1m.
	LongTransaction time.Duration

	// Turned is called before each look. Nil: nobody is told.
	Turned health.Turned

	// Logger defaults to discarding.
	Logger *slog.Logger
}

func (c PruneConfig) withDefaults() PruneConfig {
	duration := func(d *time.Duration, v time.Duration) {
		if *d <= 0 {
			*d = v
		}
	}
	duration(&c.History, time.Hour)
	duration(&c.Tombstones, 30*24*time.Hour)
	duration(&c.BacklogAge, 72*time.Hour)
	duration(&c.LongTransaction, time.Minute)
	if c.BacklogEntries <= 0 {
		c.BacklogEntries = 5_000_000
	}
	if c.Logger == nil {
		c.Logger = slog.New(slog.DiscardHandler)
	}
	return c
}

// Pruner deletes what nobody needs any more: decided batches that every peer has, with their entries, after the history has passed; tombstones; and
// the log that is kept for a peer whose backlog has passed a limit. It also tells of transactions that keep deleted rows from being cleaned.
// Every worker of a fleet may run one: one at a time works. One Pruner is for one goroutine.
type Pruner struct {
	pool *pgxpool.Pool
	cfg  PruneConfig

	// floors are the last numbers that this pruner has pruned, by lane. Only a shortcut past index entries of deleted rows.
	floors [outbox.Lanes]int64
	tended time.Time // zero: not yet

	overdue map[string]bool          // peers that a line told of
	seen    map[xminHolder]time.Time // since when a holder of which the server does not say it is known
	warned  time.Time                // of a long transaction
}

// NewPruner returns a pruner.
func NewPruner(pool *pgxpool.Pool, cfg PruneConfig) *Pruner {
	return &Pruner{pool: pool, cfg: cfg.withDefaults(), overdue: map[string]bool{}, seen: map[xminHolder]time.Time{}}
}

// Run prunes until ctx ends and returns its cause: at once while there is something, else with a look every 5 s. Errors of the database are logged; the
// next look tries again. It starts no goroutine.
func (p *Pruner) Run(ctx context.Context) error {
	timer := time.NewTimer(pruneEvery)
	defer timer.Stop()
	for {
		select {
		case <-ctx.Done():
			return context.Cause(ctx)
		case <-timer.C:
		}
		p.cfg.Turned.Turn(pruneEvery)
		start := time.Now()
		done, err := p.Prune(ctx)
		if err != nil && ctx.Err() == nil {
			p.cfg.Logger.WarnContext(ctx, "pruning interrupted", slog.String("error", err.Error()))
		}
		if done || err != nil {
			timer.Reset(pruneEvery)
			continue
		}
		timer.Reset(max(pruneRest, time.Since(start)))
	}
}

// Prune runs one small transaction of each kind that is due. done is false if there is more to do at once. It does nothing while another pruner of the
// fleet is at it.
func (p *Pruner) Prune(ctx context.Context) (done bool, err error) {
	done = true
	var tendErr error
	if p.tended.IsZero() || time.Since(p.tended) >= tendEvery {
		if done, tendErr = p.tend(ctx); done && tendErr == nil {
			p.tended = time.Now()
		}
	}
	logDone, err := p.pruneLog(ctx) // whatever a single peer's limit failed with
	if err = errors.Join(tendErr, err); err != nil {
		return false, fmt.Errorf("prune: %w", err)
	}
	return done && logDone, nil
}

// tend looks after what changes slowly. Limits come first: they decide what may be pruned.
func (p *Pruner) tend(ctx context.Context) (done bool, err error) {
	if err := p.enforceLimits(ctx); err != nil {
		return false, err
	}
	if err := p.tellLongTransaction(ctx); err != nil {
		return false, err
	}
	keptDone, err := p.pruneKept(ctx)
	if err != nil {
		return false, err
	}
	tombstonesDone, err := p.pruneTombstones(ctx)
	return keptDone && tombstonesDone, err
}

// alone runs do in a transaction, unless another pruner of the fleet is at work.
func (p *Pruner) alone(ctx context.Context, do func(tx pgx.Tx) error) error {
	return pgx.BeginFunc(ctx, p.pool, func(tx pgx.Tx) error {
		var alone bool
		if err := tx.QueryRow(ctx, `select pg_try_advisory_xact_lock($1)`, locks.Prune).Scan(&alone); err != nil || !alone {
			return err
		}
		return do(tx)
	})
}

// pruneTombstones forgets deletions, unless their entry is still there: then some peer may not have it, and what follows must come after it.
func (p *Pruner) pruneTombstones(ctx context.Context) (done bool, err error) {
	done = true
	err = p.alone(ctx, func(tx pgx.Tx) error {
		tag, err := tx.Exec(ctx, `
			with old as (
				select t.id
				from tombstones t
				where t.deleted_at < clock_timestamp() - $1::interval and not exists (select from outbox o where o.id = t.entry)
				order by t.deleted_at
				limit $2
				for update of t skip locked
			)
			delete from tombstones t using old where t.id = old.id`, p.cfg.Tombstones, pruneEntries)
		done = tag.RowsAffected() < pruneEntries
		return err
	})
	if err != nil {
		return false, fmt.Errorf("tombstones: %w", err)
	}
	return done, nil
}
