package outbox

import (
	"context"
	"fmt"
	"log/slog"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgxpool"
	"go.opentelemetry.io/otel/trace"

	"quorumbox/internal/fault"
	"quorumbox/internal/health"
	"quorumbox/internal/locks"
)

// Lanes is how many units of order there are. A namespace belongs to one lane for good.
const Lanes = 32

// Enqueuer hands a fan-out over to whoever runs it: it must insert the fan-out's job in tx.
type Enqueuer interface {
	EnqueueFanOut(ctx context.Context, tx pgx.Tx, fanOut int64) error
}

// RelayConfig configures a [Relay]. The zero value of each field means its default.
type RelayConfig struct {
	// Lease is how long a dispatched batch belongs to its fan-out before the sweeper may give it to another. It must exceed the ack
	// timeout by more than the time in which a worker takes up a job. Defaults to 4s.
	Lease time.Duration
	// PollMin is the pause between two looks right after there was work. Defaults to 1ms.
	PollMin time.Duration
	// PollMax is the pause in the end, when there is none. Defaults to 50ms.
	PollMax time.Duration
	// MaxItems and MaxBytes bound what one fan-out carries. Default to 1000 and 1.5 MiB: the receivers' limits with a margin.
	MaxItems int
	MaxBytes int
	// InFlight is how many undecided fan-outs are enough: while there are as many, new entries wait up to HoldFor and go
	// together (group commit). Default to 2 and 20ms.
	InFlight int
	HoldFor  time.Duration
	// Rule names the rule by which entries of a namespace are pushed and judged, where there are several: a batch holds entries of one rule
	// only, and a fan-out batches of one rule only. Nil: all namespaces have the same one, and no look asks for namespaces.
	Rule func(namespace string) int
	// Turned is called with each look, and each time that the relay asks for the lock. Nil: nobody is told.
	Turned health.Turned
	// Logger defaults to discarding.
	Logger *slog.Logger
	// Tracer begins a span for each dispatch, in the trace of the entries' writer, and hands its context to the Enqueuer. Nil begins none, and reads no
	// trace contexts.
	Tracer trace.Tracer
}

func (c RelayConfig) withDefaults() RelayConfig {
	def(&c.Lease, 4*time.Second)
	def(&c.PollMin, time.Millisecond)
	def(&c.PollMax, 50*time.Millisecond)
	def(&c.MaxItems, 1000)
	def(&c.MaxBytes, 3<<19)
	def(&c.InFlight, 2)
	def(&c.HoldFor, 20*time.Millisecond)
	if c.Logger == nil {
		c.Logger = slog.New(slog.DiscardHandler)
	}
	return c
}

func def[T comparable](v *T, d T) {
	var zero T
	if *v == zero {
		*v = d
	}
}

const (
	// electEvery is how often a relay that does not hold the lock asks for it.
	electEvery = time.Second

	// idleShare sets how fast looks become rare: the pause is this share of the time since the last work.
	idleShare = 20
)

// Relay turns undispatched entries into batches and hands them over. Any number of workers may run one: an advisory lock
// lets one of them work at a time, and the next takes over when its connection ends.
type Relay struct {
	pool     *pgxpool.Pool
	enqueuer Enqueuer
	cfg      RelayConfig
	wake     chan struct{} // capacity 1: one waiting wake-up says as much as many
	turn     int           // the lane to begin with, so that a busy lane does not starve the others
}

// NewRelay returns a relay that reads and writes through pool.
func NewRelay(pool *pgxpool.Pool, enqueuer Enqueuer, cfg RelayConfig) *Relay {
	return &Relay{pool: pool, enqueuer: enqueuer, cfg: cfg.withDefaults(), wake: make(chan struct{}, 1)}
}

// Wake makes the relay look at once. A writer in the same program may call it after its commit. Safe for concurrent use.
func (r *Relay) Wake() {
	select {
	case r.wake <- struct{}{}:
	default:
	}
}

// Run works until ctx ends and returns its cause. Errors of the database are logged and tried again: there is nothing in a relay
// to lose. It starts no goroutine.
func (r *Relay) Run(ctx context.Context) error {
	for {
		r.cfg.Turned.Turn(electEvery)
		err := r.lead(ctx)
		if ctx.Err() != nil {
			return context.Cause(ctx)
		}
		if err != nil {
			r.cfg.Logger.WarnContext(ctx, "relay interrupted", slog.String("error", err.Error()))
		}
		if err := r.pause(ctx, electEvery); err != nil {
			return err
		}
	}
}

// lead takes the lock on a connection of its own and works on that same connection, so that work ends with the lock.
// It returns nil if another relay holds the lock.
func (r *Relay) lead(ctx context.Context) error {
	conn, err := r.pool.Acquire(ctx)
	if err != nil {
		return fmt.Errorf("outbox: relay: connect: %w", err)
	}
	defer conn.Release()
	var elected bool
	if err := conn.QueryRow(ctx, `select pg_try_advisory_lock($1)`, locks.Relay).Scan(&elected); err != nil {
		return fmt.Errorf("outbox: relay: elect: %w", err)
	}
	if !elected {
		return nil
	}
	// The lock is the session's: end the session with the work, or the pool would keep it.
	defer func() {
		closeCtx, cancel := context.WithTimeout(context.WithoutCancel(ctx), time.Second)
		defer cancel()
		_ = conn.Conn().Close(closeCtx)
	}()
	r.cfg.Logger.InfoContext(ctx, "relay elected")

	worked, heldSince := time.Now(), time.Time{}
	for {
		r.cfg.Turned.Turn(r.cfg.PollMax)
		now := time.Now()
		held := !heldSince.IsZero() && now.Sub(heldSince) >= r.cfg.HoldFor
		ready, dispatchable, err := r.look(ctx, conn.Conn(), held)
		if err != nil {
			return err
		}
		pause := min(max(r.cfg.PollMin, now.Sub(worked)/idleShare), r.cfg.PollMax)
		if len(ready) > 0 {
			if heldSince.IsZero() {
				heldSince = now
			}
			worked, pause = now, r.cfg.PollMin
			if dispatchable {
				if err := r.dispatch(ctx, conn.Conn(), ready); err != nil {
					return err
				}
				heldSince = time.Time{}
			}
		}
		if err := r.pause(ctx, pause); err != nil {
			return err
		}
	}
}

func (r *Relay) pause(ctx context.Context, d time.Duration) error {
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-ctx.Done():
		return context.Cause(ctx)
	case <-r.wake:
	case <-timer.C:
	}
	return nil
}

// LockLanes keeps new batches from being dispatched in the lanes until tx ends. A statement after it sees every batch that was.
// The locks are taken in one order, so that two callers cannot wait for each other.
func LockLanes(ctx context.Context, tx pgx.Tx, lanes []int16) error {
	_, err := tx.Exec(ctx, `
		select pg_advisory_xact_lock($1, l.lane)
		from (select distinct lane::int from unnest($2::smallint[]) u (lane) order by 1) l`, locks.Lane, lanes)
	if err != nil {
		return fmt.Errorf("lock lanes: %w", err)
	}
	return nil
}

// LockHeads is LockLanes for those of the lanes that have no batch above the number beside it. A lane may be named more than once.
func LockHeads(ctx context.Context, tx pgx.Tx, lanes []int16, numbers []int64) error {
	_, err := tx.Exec(ctx, `
		select pg_advisory_xact_lock($1, l.lane)
		from (
			select distinct u.lane::int
			from unnest($2::smallint[], $3::bigint[]) u (lane, number)
			where not exists (select from batches b where b.lane = u.lane and b.number > u.number)
			order by 1
		) l`, locks.Lane, lanes, numbers)
	if err != nil {
		return fmt.Errorf("lock the heads of lanes: %w", err)
	}
	return nil
}

// dispatch makes the batches and their fan_out job in one transaction. The batch row, leased to the fan-out, is the durable note
// that a push may be on its way. If the process dies before the commit, the entries are still undispatched.
func (r *Relay) dispatch(ctx context.Context, conn *pgx.Conn, ready []candidate) error {
	c, err := r.choose(ctx, conn, ready)
	if err != nil {
		return err
	}
	r.turn = c.turn
	if len(c.entries) == 0 {
		return nil
	}
	var afterLanes, ofLanes []int16
	var afterNumbers []int64
	for lane, deps := range c.after {
		for _, dep := range deps {
			ofLanes = append(ofLanes, lane)
			afterLanes = append(afterLanes, dep.lane)
			afterNumbers = append(afterNumbers, dep.number)
		}
	}
	fault.Hit(fault.RelayChosen)
	traced := r.beginTrace(c)
	err = pgx.BeginFunc(ctx, conn, func(tx pgx.Tx) error {
		if err := LockLanes(ctx, tx, c.lanes); err != nil {
			return err
		}
		var (
			fanOut, taken int64
			traceparents  []string
		)
		err := tx.QueryRow(ctx, `
			with token as materialized (
				select nextval('tokens') as id
			), taken as (
				delete from undispatched u
				using unnest($1::smallint[], $2::bigint[]) c (lane, entry)
				where u.lane = c.lane and u.entry = c.entry
				returning u.lane, u.entry, u.bytes
			), made as (
				insert into batches (lane, number, entries, first_entry, last_entry, bytes, position, fan_out, leased_until, after_lanes, after_numbers)
				select t.lane, coalesce(l.number, 0) + 1, t.entries, t.entries[1], t.entries[cardinality(t.entries)], t.bytes,
				       coalesce(l.position, 0) + cardinality(t.entries), (select id from token), clock_timestamp() + $3::interval,
				       a.after_lanes, a.after_numbers
				from (select lane, array_agg(entry order by entry) as entries, sum(bytes) as bytes from taken group by lane) t
				left join lateral (select number, position from batches b where b.lane = t.lane order by number desc limit 1) l on true
				left join (
					select lane, array_agg(after_lane order by after_lane) as after_lanes, array_agg(after_number order by after_lane) as after_numbers
					from unnest($4::smallint[], $5::smallint[], $6::bigint[]) d (lane, after_lane, after_number)
					group by lane
				) a on a.lane = t.lane
			)
			select (select id from token), (select count(*) from taken), `+traced.column(),
			c.lanes, c.entries, r.cfg.Lease, ofLanes, afterLanes, afterNumbers).Scan(&fanOut, &taken, &traceparents)
		if err != nil {
			return fmt.Errorf("make batches: %w", err)
		}
		if taken != int64(len(c.entries)) {
			return fmt.Errorf("make batches: %d of %d entries were taken by somebody else", int64(len(c.entries))-taken, len(c.entries))
		}
		fault.Hit(fault.RelayMade)
		return r.enqueuer.EnqueueFanOut(traced.start(ctx, fanOut, traceparents), tx, fanOut)
	})
	traced.end(err)
	if err != nil {
		return fmt.Errorf("outbox: relay: dispatch: %w", err)
	}
	fault.Hit(fault.RelayDispatched)
	return nil
}
