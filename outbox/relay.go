package outbox

import (
	"context"
	"fmt"
	"log/slog"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgxpool"

	"quorumbox/internal/fault"
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
	// Logger defaults to discarding.
	Logger *slog.Logger
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
	// relayLock is the advisory lock of the one relay that works in a fleet.
	relayLock = 0x71756f72756d6232

	// laneLocks is the first key of the advisory locks of the lanes; the second one is the lane.
	laneLocks = 0x71756f72

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
	if err := conn.QueryRow(ctx, `select pg_try_advisory_lock($1)`, int64(relayLock)).Scan(&elected); err != nil {
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

// candidate is an undispatched entry at the head of a free lane.
type candidate struct {
	Lane       int16
	Entry      int64
	Bytes      int
	AfterLane  *int16
	AfterEntry *int64
}

// look returns the lowest visible undispatched entries of the lanes that have no undecided batch, lane by lane, as many as one fan-out
// may carry. While enough fan-outs are undecided and the entries were not held long enough, it only says whether there are any:
// dispatchable is false. Claim is by state: an entry with a smaller id that is committed later is simply found by a later look.
func (r *Relay) look(ctx context.Context, conn *pgx.Conn, held bool) (ready []candidate, dispatchable bool, err error) {
	lanes := make([]int16, Lanes)
	for i := range lanes {
		lanes[i] = int16((r.turn + i) % Lanes)
	}
	rows, err := conn.Query(ctx, `
		with pace as materialized (
			select $4 or count(distinct fan_out) < $3 as go from batches where verdict = 'pending'
		)
		select u.lane, u.entry, u.bytes, u.after_lane, u.after_entry, (select go from pace)
		from (
			select f.lane
			from unnest($1::smallint[]) f (lane)
			where not exists (select from batches b where b.lane = f.lane and b.verdict = 'pending')
			offset 0 -- keep it apart: lanes that are not free must not be looked into
		) f
		cross join lateral (
			select u.lane, u.entry, u.bytes, u.after_lane, u.after_entry
			from undispatched u
			where u.lane = f.lane
			order by u.entry
			limit $2
		) u
		limit (select case when go then $2 else 1 end from pace)`, lanes, r.cfg.MaxItems, r.cfg.InFlight, held)
	if err != nil {
		return nil, false, fmt.Errorf("outbox: relay: look: %w", err)
	}
	var c candidate
	_, err = pgx.ForEachRow(rows, []any{&c.Lane, &c.Entry, &c.Bytes, &c.AfterLane, &c.AfterEntry, &dispatchable}, func() error {
		ready = append(ready, c)
		return nil
	})
	if err != nil {
		return nil, false, fmt.Errorf("outbox: relay: look: %w", err)
	}
	return ready, dispatchable, nil
}

// chosen is what one fan-out takes along: entries in lane order, and for a lane whose batch must come after another lane's, which.
type chosen struct {
	lanes   []int16
	entries []int64
	after   map[int16]dependency
}

// choose cuts the candidates to what fits: up to MaxItems and MaxBytes in all (but at least one entry), each lane a prefix of its
// entries. An entry that must come after one of another lane is taken once that one is decided; while a peer still misses it, only at the head of
// its lane, because it is the batch that peers are kept from.
func (r *Relay) choose(ctx context.Context, conn *pgx.Conn, ready []candidate) (chosen, error) {
	c := chosen{after: map[int16]dependency{}}
	needs, err := dependencies(ctx, conn, ready)
	if err != nil {
		return chosen{}, err
	}
	size := 0
	closed := int16(-1) // a lane of which no more may be taken
	for i, e := range ready {
		if e.Lane == closed {
			continue
		}
		head := i == 0 || ready[i-1].Lane != e.Lane
		dep, waits := needs[e.Entry]
		if waits && (!dep.decided || (dep.missed && !head)) {
			closed = e.Lane
			continue
		}
		if len(c.entries) > 0 && (len(c.entries) >= r.cfg.MaxItems || size+e.Bytes > r.cfg.MaxBytes) {
			break
		}
		if waits && dep.missed {
			c.after[e.Lane] = dep
		}
		size += e.Bytes
		c.lanes = append(c.lanes, e.Lane)
		c.entries = append(c.entries, e.Entry)
	}
	return c, nil
}

// dependency is a batch of another lane that a peer must have first.
type dependency struct {
	lane    int16
	number  int64
	decided bool // so that the peers that miss it are known
	missed  bool // some peer does not have it yet
}

// dependencies returns what the candidates must come after, by entry. One that is in no batch and not waiting either was pruned after every peer
// had it: decided, and missed by nobody.
func dependencies(ctx context.Context, conn *pgx.Conn, ready []candidate) (map[int64]dependency, error) {
	var entries, afterEntries []int64
	var afterLanes []int16
	for _, e := range ready {
		if e.AfterEntry != nil {
			entries = append(entries, e.Entry)
			afterLanes = append(afterLanes, *e.AfterLane)
			afterEntries = append(afterEntries, *e.AfterEntry)
		}
	}
	if len(entries) == 0 {
		return nil, nil
	}
	rows, err := conn.Query(ctx, `
		select d.entry, d.after_lane, coalesce(b.number, 0),
		       coalesce(b.verdict, '') <> 'pending'
		           and not exists (select from undispatched u where u.lane = d.after_lane and u.entry = d.after_entry),
		       exists (select from lagging l where l.lane = d.after_lane and l.cursor < b.number)
		from unnest($1::bigint[], $2::smallint[], $3::bigint[]) d (entry, after_lane, after_entry)
		left join lateral (
			select b.number, b.verdict
			from batches b
			where b.lane = d.after_lane and b.last_entry >= d.after_entry and b.first_entry <= d.after_entry and d.after_entry = any (b.entries)
			order by b.last_entry
			limit 1
		) b on true`, entries, afterLanes, afterEntries)
	if err != nil {
		return nil, fmt.Errorf("outbox: relay: dependencies: %w", err)
	}
	needs := make(map[int64]dependency, len(entries))
	var (
		entry int64
		d     dependency
	)
	_, err = pgx.ForEachRow(rows, []any{&entry, &d.lane, &d.number, &d.decided, &d.missed}, func() error {
		needs[entry] = d
		return nil
	})
	if err != nil {
		return nil, fmt.Errorf("outbox: relay: dependencies: %w", err)
	}
	return needs, nil
}

// LockLanes keeps new batches from being dispatched in the lanes until tx ends. A statement after it sees every batch that was.
// The locks are taken in one order, so that two callers cannot wait for each other.
func LockLanes(ctx context.Context, tx pgx.Tx, lanes []int16) error {
	_, err := tx.Exec(ctx, `
		select pg_advisory_xact_lock($1, l.lane)
		from (select distinct lane::int from unnest($2::smallint[]) u (lane) order by 1) l`, laneLocks, lanes)
	if err != nil {
		return fmt.Errorf("lock lanes: %w", err)
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
	r.turn = (int(ready[len(ready)-1].Lane) + 1) % Lanes
	if len(c.entries) == 0 {
		return nil
	}
	var afterLanes, ofLanes []int16
	var afterNumbers []int64
	for lane, dep := range c.after {
		ofLanes = append(ofLanes, lane)
		afterLanes = append(afterLanes, dep.lane)
		afterNumbers = append(afterNumbers, dep.number)
	}
	fault.Hit(fault.RelayChosen)
	err = pgx.BeginFunc(ctx, conn, func(tx pgx.Tx) error {
		if err := LockLanes(ctx, tx, c.lanes); err != nil {
			return err
		}
		var fanOut, taken int64
		err := tx.QueryRow(ctx, `
			with token as materialized (
				select nextval('tokens') as id
			), taken as (
				delete from undispatched u
				using unnest($1::smallint[], $2::bigint[]) c (lane, entry)
				where u.lane = c.lane and u.entry = c.entry
				returning u.lane, u.entry, u.bytes
			), made as (
				insert into batches (lane, number, entries, first_entry, last_entry, bytes, position, fan_out, leased_until, after_lane, after_number)
				select t.lane, coalesce(l.number, 0) + 1, t.entries, t.entries[1], t.entries[cardinality(t.entries)], t.bytes,
				       coalesce(l.position, 0) + cardinality(t.entries), (select id from token), clock_timestamp() + $3::interval,
				       a.after_lane, a.after_number
				from (select lane, array_agg(entry order by entry) as entries, sum(bytes) as bytes from taken group by lane) t
				left join lateral (select number, position from batches b where b.lane = t.lane order by number desc limit 1) l on true
				left join unnest($4::smallint[], $5::smallint[], $6::bigint[]) a (lane, after_lane, after_number) on a.lane = t.lane
			)
			select (select id from token), (select count(*) from taken)`,
			c.lanes, c.entries, r.cfg.Lease, ofLanes, afterLanes, afterNumbers).Scan(&fanOut, &taken)
		if err != nil {
			return fmt.Errorf("make batches: %w", err)
		}
		if taken != int64(len(c.entries)) {
			return fmt.Errorf("make batches: %d of %d entries were taken by somebody else", int64(len(c.entries))-taken, len(c.entries))
		}
		return r.enqueuer.EnqueueFanOut(ctx, tx, fanOut)
	})
	if err != nil {
		return fmt.Errorf("outbox: relay: dispatch: %w", err)
	}
	fault.Hit(fault.RelayDispatched)
	return nil
}
