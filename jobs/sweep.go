package jobs

import (
	"context"
	"fmt"
	"log/slog"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgxpool"
	"github.com/riverqueue/river"

	"quorumbox/internal/fault"
	"quorumbox/internal/locks"
)

const (
	// sweepEvery is how often the fleet looks for work that nobody has.
	sweepEvery = time.Second

	// overdue is how long a lagging lane may be due while nobody holds it before its job is looked for. One whose holder let the lease run out
	// is looked for at once.
	overdue = 2 * time.Second

	// sweepLimit bounds one sweep; the next goes on.
	sweepLimit = 500
)

// Sweeper gives a new job to whatever has none: batches whose lease ran out because their worker died, lagging lanes whose retry was lost, deleted,
// cancelled or discarded, refused entries and repairs that are due, snapshots. A job that only waits in its queue is left alone. It also ends the leases of lanes that
// ran out and resolves doubts whose time is up.
type Sweeper struct {
	store  *store
	client *river.Client[pgx.Tx]
	cfg    Config
}

// NewSweeper returns a sweeper that inserts through client.
func NewSweeper(pool *pgxpool.Pool, client *river.Client[pgx.Tx], cfg Config) *Sweeper {
	cfg = cfg.withDefaults()
	return &Sweeper{store: newStore(pool, cfg), client: client, cfg: cfg}
}

// Run sweeps every second until ctx ends and returns its cause. Errors of the database are logged; the next sweep tries again.
func (s *Sweeper) Run(ctx context.Context) error {
	ticker := time.NewTicker(sweepEvery)
	defer ticker.Stop()
	for {
		select {
		case <-ctx.Done():
			return context.Cause(ctx)
		case <-ticker.C:
		}
		s.cfg.SweepTurned.Turn(sweepEvery)
		if err := s.Sweep(ctx); err != nil && ctx.Err() == nil {
			s.cfg.Logger.WarnContext(ctx, "sweep interrupted", slog.String("error", err.Error()))
		}
	}
}

// Sweep looks once. It does nothing while another sweeper of the fleet is at it.
func (s *Sweeper) Sweep(ctx context.Context) error {
	var fanOuts int
	var retries []PeerRetryArgs
	err := pgx.BeginFunc(ctx, s.store.pool, func(tx pgx.Tx) error {
		var alone bool
		if err := tx.QueryRow(ctx, `select pg_try_advisory_xact_lock($1)`, locks.Sweep).Scan(&alone); err != nil || !alone {
			return err
		}
		var err error
		if fanOuts, err = s.sweepFanOuts(ctx, tx); err != nil {
			return err
		}
		if retries, err = s.sweepLagging(ctx, tx); err != nil {
			return err
		}
		if err := s.sweepRefusals(ctx, tx); err != nil {
			return err
		}
		if err := s.sweepDoubts(ctx, tx); err != nil {
			return err
		}
		return s.sweepSnapshots(ctx, tx)
	})
	if err != nil {
		return fmt.Errorf("sweep: %w", err)
	}
	for range fanOuts {
		s.cfg.Metrics.Takeover("fan_out")
	}
	for range retries {
		s.cfg.Metrics.Takeover("peer_retry")
	}
	if fanOuts > 0 || len(retries) > 0 {
		fault.Hit(fault.SweepRecorded)
		s.cfg.Logger.InfoContext(ctx, "work taken over", slog.Int("fan_outs", fanOuts), slog.Int("retries", len(retries)))
	}
	return nil
}

func (s *Sweeper) sweepFanOuts(ctx context.Context, tx pgx.Tx) (int, error) {
	rows, err := tx.Query(ctx, `
		with expired as materialized (
			select distinct fan_out
			from batches
			where verdict = 'pending' and leased_until < clock_timestamp()
		)
		select fan_out
		from expired e
		where not exists (
			select from river_job j
			where j.kind = 'fan_out' and j.state in ('available', 'pending', 'retryable', 'scheduled')
			  and j.args @> jsonb_build_object('fan_out', e.fan_out)
		)`)
	if err != nil {
		return 0, fmt.Errorf("find expired fan-outs: %w", err)
	}
	expired, err := pgx.CollectRows(rows, pgx.RowTo[int64])
	if err != nil {
		return 0, fmt.Errorf("find expired fan-outs: %w", err)
	}
	for _, old := range expired {
		token, err := s.store.reclaim(ctx, tx, old, maybeSent, s.cfg.Peers)
		if err != nil {
			return 0, err
		}
		if token == 0 {
			continue // recorded at the last moment
		}
		if _, err := s.client.InsertTx(ctx, tx, FanOutArgs{FanOut: token}, nil); err != nil {
			return 0, fmt.Errorf("insert fan-out: %w", err)
		}
		fault.Hit(fault.SweepFanOut)
	}
	return len(expired), nil
}

func (s *Sweeper) sweepLagging(ctx context.Context, tx pgx.Tx) ([]PeerRetryArgs, error) {
	expired, err := s.store.expire(ctx, tx, s.cfg.Peers)
	if err != nil {
		return nil, err
	}
	peers, lanes := make([]string, len(expired)), make([]int16, len(expired))
	for i, at := range expired {
		peers[i], lanes[i] = at.Peer, at.Lane
	}
	rows, err := tx.Query(ctx, `
		with expired (peer, lane) as materialized (
			select * from unnest($4::text[], $5::smallint[])
		), orphans as materialized (
			select l.peer, l.lane, l.retry
			from lagging l
			where l.peer = any ($1) and l.leased_until is null
			  and not exists (select from snapshots s where s.peer = l.peer) -- parked
			  and (l.not_before < clock_timestamp() - $2::interval or exists (select from expired e where e.peer = l.peer and e.lane = l.lane))
			order by l.peer, l.lane
			limit $3
			for update skip locked
		)
		update lagging l
		set retry = nextval('tokens')
		from orphans o
		where l.peer = o.peer and l.lane = o.lane
		  and not exists (
			select from river_job j
			where j.kind = 'peer_retry' and j.state in ('available', 'pending', 'retryable', 'scheduled')
			  and j.args @> jsonb_build_object('peer', o.peer, 'lane', o.lane, 'retry', o.retry)
		)
		returning l.peer, l.lane, l.retry`, s.cfg.Peers, overdue, sweepLimit, peers, lanes)
	if err != nil {
		return nil, fmt.Errorf("find orphaned lanes: %w", err)
	}
	retries, err := collectRetries(rows)
	if err != nil || len(retries) == 0 {
		return nil, err
	}
	fault.Hit(fault.SweepLagging)
	return retries, insertRetries(ctx, s.client, tx, retries)
}

// sweepRefusals gives a job to refused entries that are due, in lanes in which their peer is in step: there is no use in asking one that is away.
func (s *Sweeper) sweepRefusals(ctx context.Context, tx pgx.Tx) error {
	rows, err := tx.Query(ctx, `
		select due.peer, due.entry
		from unnest($1::text[]) p (peer)
		cross join lateral (
			select r.peer, r.entry
			from refusals r
			where r.peer = p.peer and r.next_at < clock_timestamp()
			  and not exists (select from lagging l where l.peer = r.peer and (l.lane = r.lane or l.last_class = any ($3)))
			  and not exists (
				select from river_job j
				where j.kind = 'redeliver' and j.state in ('available', 'pending', 'retryable', 'scheduled')
				  and j.args @> jsonb_build_object('peer', r.peer, 'entry', r.entry)
			)
			order by r.next_at
			limit greatest(0, $2 - (
				select count(*)
				from river_job j
				where j.kind = 'redeliver' and j.state in ('available', 'pending', 'retryable', 'scheduled')
				  and j.args @> jsonb_build_object('peer', p.peer)
			))
		) due
		where exists (select from refusals r where r.next_at < clock_timestamp()) -- none, nearly always`, s.cfg.Peers, redeliveries, peerClasses())
	if err != nil {
		return fmt.Errorf("find refused entries: %w", err)
	}
	due, err := pgx.CollectRows(rows, pgx.RowToStructByPos[RedeliverArgs])
	if err != nil {
		return fmt.Errorf("find refused entries: %w", err)
	}
	for _, args := range due {
		if _, err := s.client.InsertTx(ctx, tx, args, nil); err != nil {
			return fmt.Errorf("insert redelivery: %w", err)
		}
		fault.Hit(fault.SweepRefusal)
	}
	return nil
}

func insertRetries(ctx context.Context, client *river.Client[pgx.Tx], tx pgx.Tx, retries []PeerRetryArgs) error {
	if len(retries) == 0 {
		return nil
	}
	params := make([]river.InsertManyParams, len(retries))
	for i, args := range retries {
		params[i] = river.InsertManyParams{Args: args}
	}
	if _, err := client.InsertManyFastTx(ctx, tx, params); err != nil {
		return fmt.Errorf("insert retries: %w", err)
	}
	return nil
}
