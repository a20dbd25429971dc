package verify

import (
	"context"
	"log/slog"
	"maps"
	"slices"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgxpool"

	"quorumbox/internal/health"
	"quorumbox/internal/locks"
)

const (
	// DefaultSettle is how soon after it was elected a loop compares first.
	DefaultSettle = time.Minute

	// DefaultElect is how often a loop tries to be the one that compares.
	DefaultElect = time.Minute

	// closeTimeout bounds the closing of the elected loop's connection.
	closeTimeout = 5 * time.Second

	// stepTime is above what a comparison does between two requests to the peer, and above one request with the longest pause that a peer can ask
	// for: reading a page of the store, waiting until the peer has settled.
	stepTime = 2 * time.Minute
)

// Counter counts what comparisons find: a [quorumbox/internal/metrics.Metrics].
type Counter interface {
	Verified(peer string, differences map[string]int64, finished time.Time)
}

// Loop compares the active peers with the store again and again, one peer at a time, in one worker of a fleet.
type Loop struct {
	// Pool is where the tables are. The elected loop keeps one connection of it.
	Pool *pgxpool.Pool
	// Peers are the readers by the ids of the peers.
	Peers map[string]Reader
	// Every is the pause between two rounds. More than 0.
	Every time.Duration
	// Settle is how soon the first round comes. Defaults to [DefaultSettle], at most Every.
	Settle time.Duration
	// Elect is how often the loop tries to be the one. Defaults to [DefaultElect].
	Elect time.Duration
	// Options are those of each comparison. Await and OnDifference are not used.
	Options Options
	// Logger gets a line for each comparison: a warning if the peer differs.
	Logger *slog.Logger
	// Counter counts. Not nil.
	Counter Counter
	// Turned is called before each pause, and with each request of a comparison. Nil: nobody is told.
	Turned health.Turned
}

// Run compares until ctx ends and returns its cause. What fails is logged, and tried again in the next round.
func (l Loop) Run(ctx context.Context) error {
	if l.Settle <= 0 {
		l.Settle = min(DefaultSettle, l.Every)
	}
	if l.Elect <= 0 {
		l.Elect = DefaultElect
	}
	l.Options.Await, l.Options.OnDifference, l.Options.OnProgress = 0, nil, nil
	l.Options.step = func() { l.Turned.Turn(stepTime) }
	for {
		l.Turned.Turn(stepTime)
		if err := l.lead(ctx); err != nil && ctx.Err() == nil {
			l.Logger.WarnContext(ctx, "comparison in the background interrupted", slog.String("error", err.Error()))
		}
		l.Turned.Turn(l.Elect)
		if err := sleep(ctx, l.Elect); err != nil {
			return err
		}
	}
}

// lead compares round after round if no other loop does. It returns at the first error of the database: then another one may be elected.
func (l Loop) lead(ctx context.Context) error {
	conn, err := l.Pool.Acquire(ctx)
	if err != nil {
		return err
	}
	var elected bool
	if err := conn.QueryRow(ctx, `select pg_try_advisory_lock($1)`, locks.Verify).Scan(&elected); err == nil && !elected {
		conn.Release()
		return nil
	} else if err != nil {
		closeConn(ctx, conn)
		return err
	}
	defer closeConn(ctx, conn) // the lock ends with its session
	for pause := l.Settle; ; pause = l.Every {
		l.Turned.Turn(pause)
		if err := sleep(ctx, pause); err != nil {
			return err
		}
		if err := l.round(ctx, conn); err != nil {
			return err
		}
	}
}

// closeConn ends the session of a connection instead of giving it back to its pool.
func closeConn(ctx context.Context, conn *pgxpool.Conn) {
	closing, cancel := context.WithTimeout(context.WithoutCancel(ctx), closeTimeout)
	defer cancel()
	_ = conn.Hijack().Close(closing)
}

// round compares each active peer.
func (l Loop) round(ctx context.Context, conn *pgxpool.Conn) error {
	active, err := collect(ctx, conn, pgx.RowTo[string], "list active peers", `
		select p.id from peers p where p.state = 'active' and p.id = any ($1) order by p.id`, slices.Collect(maps.Keys(l.Peers)))
	if err != nil {
		return err
	}
	for _, id := range active {
		l.Turned.Turn(stepTime)
		report, err := Run(ctx, conn, l.Peers[id], id, l.Options)
		if err != nil && (ctx.Err() != nil || conn.Conn().IsClosed()) {
			return err
		}
		l.tell(ctx, report, err)
	}
	return nil
}

// tell logs and counts what a comparison found.
func (l Loop) tell(ctx context.Context, r Report, err error) {
	attrs := []slog.Attr{
		slog.String("peer", r.Peer), slog.Int64("memories", r.Memories), slog.Int64("requests", r.Requests), slog.Duration("took", r.Took),
		slog.Int64("unsettled", r.Unsettled), slog.Int64("unreadable", r.Unreadable), slog.Int64("repairs", r.Repairs),
	}
	counts := map[string]int64{"unsettled": r.Unsettled}
	for _, kind := range Kinds() {
		if n := r.Differences[kind]; n > 0 {
			counts[string(kind)] = n
			attrs = append(attrs, slog.Int64(string(kind), n))
		}
	}
	if len(r.Notes) > 0 {
		attrs = append(attrs, slog.Any("notes", r.Notes))
	}
	switch {
	case err != nil:
		l.Logger.LogAttrs(ctx, slog.LevelWarn, "peer could not be compared with the store", append(attrs, slog.String("error", err.Error()))...)
		return
	case r.Total() > 0:
		l.Logger.LogAttrs(ctx, slog.LevelWarn, "peer differs from the store", attrs...)
	default:
		l.Logger.LogAttrs(ctx, slog.LevelInfo, "peer compared with the store", attrs...)
	}
	l.Counter.Verified(r.Peer, counts, time.Now())
}
