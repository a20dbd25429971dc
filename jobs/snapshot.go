package jobs

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/riverqueue/river"

	"quorumbox/internal/fault"
	"quorumbox/internal/peer"
)

// snapshotWorker works the job snapshot.
type snapshotWorker struct {
	river.WorkerDefaults[SnapshotArgs]

	cfg   Config
	store *store
}

// NextRetry is short: what fails here is the database.
func (w *snapshotWorker) NextRetry(*river.Job[SnapshotArgs]) time.Time {
	return time.Now().Add(time.Second)
}

// Timeout is longer than other jobs': a part may take several pushes, of which the last must be reached at a slow peer, too.
func (w *snapshotWorker) Timeout(*river.Job[SnapshotArgs]) time.Duration {
	const pushes = 4
	return max(w.cfg.JobTimeout, w.cfg.RetryBudget+pushes*w.cfg.PushTimeout+time.Second)
}

// Work pushes a peer the store's current state, part by part, for a while, and snoozes until it goes on: each part is read in a short
// transaction of its own, and how far it got is recorded when the peer has acknowledged it. The parts are of different instants; the phase
// changes evens that out. When all is pushed, the peer's lanes are let go and it follows the log. A failure of the peer snoozes the job,
// which costs no attempt.
func (w *snapshotWorker) Work(ctx context.Context, job *river.Job[SnapshotArgs]) error {
	s := &snapshot{snapshotWorker: w, peer: job.Args.Peer}
	wait, err := s.claim(ctx, job.Args.Retry)
	switch {
	case err != nil:
		return err
	case wait > 0:
		return river.JobSnooze(wait)
	case s.token == 0:
		return nil // ended, or begun again with another job
	}
	fault.Hit(fault.SnapshotClaimed)
	ctx, traced := s.trace(ctx)
	wait, err = s.run(ctx)
	s.endTrace(traced, err)
	switch {
	case errors.Is(err, errLeaseLost):
		w.cfg.Logger.WarnContext(ctx, "snapshot lost its lease", slog.String("peer", s.peer))
		return river.JobSnooze(heldSnooze)
	case err != nil && ctx.Err() != nil:
		return s.leave(ctx)
	case err != nil:
		return err
	case s.ended:
		fault.Hit(fault.SnapshotEnded)
		return nil
	}
	return river.JobSnooze(wait)
}

// snapshot is one run of the job: it holds the peer's row under token.
type snapshot struct {
	*snapshotWorker

	peer  string
	token int64
	row   snapshotRow
	ended bool
}

// leave lets the lease of a snapshot that was stopped half-way run out now: the next worker claims it as one whose holder died, so that what was pushed is
// in doubt.
func (s *snapshot) leave(ctx context.Context) error {
	ctx, cancel := leaving(ctx)
	defer cancel()
	_, err := s.store.pool.Exec(ctx, `
		update snapshots set leased_until = clock_timestamp() where peer = $1 and holder = $2 and leased_until > clock_timestamp()`, s.peer, s.token)
	if err != nil {
		return fmt.Errorf("hand the snapshot for %s back: %w", s.peer, err)
	}
	return river.JobSnooze(0)
}

// snapshotRow is a row of the table snapshots.
type snapshotRow struct {
	Reason      SnapshotReason
	Phase       phase
	After       string
	Doubt       time.Duration // until nothing of before can arrive any more; 0 or less: nothing can
	Failures    int
	LastClass   peer.Class
	PhasePushed int64
	Pushed      int64
	Since       time.Duration
}

const snapshotColumns = `
	s.reason, s.phase, s.after_key, coalesce(s.doubt_until - clock_timestamp(), interval '0'), s.failures, s.last_class, s.phase_pushed, s.pushed,
	clock_timestamp() - s.started_at`

// claim leases the row. It returns how long to wait if that cannot be now, and leaves token 0 if the job is out of date.
func (s *snapshot) claim(ctx context.Context, retry int64) (wait time.Duration, err error) {
	err = pgx.BeginFunc(ctx, s.store.pool, func(tx pgx.Tx) error {
		var held, expired, begun bool
		err := tx.QueryRow(ctx, `
			select leased_until is not null, coalesce(leased_until < clock_timestamp(), false), total is not null,
			       coalesce(leased_until, not_before) - clock_timestamp()
			from snapshots
			where peer = $1 and retry = $2
			for update`, s.peer, retry).Scan(&held, &expired, &begun, &wait)
		if errors.Is(err, pgx.ErrNoRows) {
			return nil
		}
		if err != nil {
			return err
		}
		if held && !expired {
			wait = min(wait, heldSnooze)
		}
		if wait > 0 {
			return nil
		}
		// What a worker pushed that died may still arrive. So may what was on its way before the start: that began before the lease of its
		// fan-out ran out.
		row := tx.QueryRow(ctx, `
			update snapshots s
			set holder = nextval('tokens'), leased_until = clock_timestamp() + $2::interval, settled = true,
			    doubt_until = greatest(s.doubt_until,
			        case when not s.settled then clock_timestamp() + $3::interval + $4::interval end,
			        case when s.leased_until is not null then clock_timestamp() + $3::interval end)
			where s.peer = $1
			returning s.holder, `+snapshotColumns, s.peer, retryLease, s.cfg.Zombie, s.store.lease)
		if err := s.scan(row, &s.token); err != nil || begun {
			return err
		}
		return s.begin(ctx, tx)
	})
	if err != nil {
		return 0, fmt.Errorf("claim the snapshot for %s: %w", s.peer, err)
	}
	return wait, nil
}

func (s *snapshot) scan(row pgx.Row, first ...any) error {
	r := &s.row
	err := row.Scan(append(first, &r.Reason, &r.Phase, &r.After, &r.Doubt, &r.Failures, &r.LastClass, &r.PhasePushed, &r.Pushed, &r.Since)...)
	if errors.Is(err, pgx.ErrNoRows) {
		return errLeaseLost
	}
	return err
}

// begin notes about how much there is to push. Of large tables the planner's figure is taken.
func (s *snapshot) begin(ctx context.Context, tx pgx.Tx) error {
	var total int64
	err := tx.QueryRow(ctx, `
		with sizes (name, counted) as (
			values ('memories', (select count(*) from (select from memories limit $2) x)),
			       ('archived_memories', (select count(*) from (select from archived_memories limit $2) x)),
			       ('tombstones', (select count(*) from (select from tombstones limit $2) x)),
			       ('memory_links', (select count(*) from (select from memory_links limit $2) x)),
			       ('namespace_meta', (select count(*) from (select from namespace_meta limit $2) x)),
			       ('pending_actions', (select count(*) from (select from pending_actions limit $2) x))
		), estimated as (
			select s.name, case when s.counted < $2 then s.counted else greatest(s.counted, c.reltuples::bigint) end as n
			from sizes s
			join pg_class c on c.oid = s.name::regclass
		)
		update snapshots
		set total = (
			select sum(n * case
				when phase = 'deletions' and name in ('memories', 'archived_memories') then 3
				when phase = 'deletions' and name = 'tombstones' then 2
				when name = 'tombstones' then 0
				else 1 end)
			from estimated)
		where peer = $1
		returning total`, s.peer, countedTo).Scan(&total)
	if err != nil {
		return err
	}
	level := slog.LevelInfo
	if s.row.Reason == SnapshotOverdue {
		level = slog.LevelWarn
	}
	s.cfg.Logger.LogAttrs(ctx, level, "peer is brought the current state by a snapshot", slog.String("peer", s.peer),
		slog.String("reason", string(s.row.Reason)), slog.Int64("about", total), slog.Duration("waits_first", max(s.row.Doubt, 0)))
	s.cfg.Metrics.Snapshot(s.peer, string(s.row.Reason))
	return nil
}

// countedTo is how many rows of a table are counted.
const countedTo = 100_000

// run pushes part after part until all is done (ended), a push fails, something has to be waited for, or the time of one job is over.
// Unless all is done or the lease is lost, the row has been given back; wait says when to come again.
func (s *snapshot) run(ctx context.Context) (wait time.Duration, err error) {
	until := time.Now().Add(s.cfg.RetryBudget)
	leased, stop := keepRenewing(ctx, s.renew)
	defer stop()
	for {
		if s.mustWait() {
			s.cfg.Logger.InfoContext(ctx, "snapshot waits until nothing that was pushed before can arrive any more", slog.String("peer", s.peer),
				slog.String("phase", string(s.row.Phase)), slog.Duration("for", s.row.Doubt))
			return s.giveBack(ctx, s.row.Doubt)
		}
		if s.row.Phase == phaseEnd {
			return s.end(ctx, leased)
		}
		if wait := s.cfg.paces[s.peer].wait(); wait > restMost {
			return s.giveBack(ctx, wait)
		} else if err := rest(leased, wait); err != nil {
			return 0, err
		}
		begun := time.Now()
		part, err := s.load(leased)
		if errors.Is(err, errNotDispatched) {
			return s.giveBack(ctx, time.Second)
		}
		if err != nil {
			_, _ = s.giveBack(ctx, 0) // nothing is on its way; if this fails, too, the lease runs out
			return 0, fmt.Errorf("snapshot for %s: %w", s.peer, err)
		}
		if len(part.items) > 0 || part.state != nil {
			s.cfg.paces[s.peer].spend(len(part.items))
			d := s.deliver(leased, part)
			switch {
			case d.err != nil && leased.Err() != nil:
				return 0, context.Cause(leased) // not the peer's doing; the lease runs out, and what was pushed is in doubt
			case d.err != nil:
				return s.failed(ctx, d)
			}
			fault.Hit(fault.SnapshotPushed)
		}
		before := s.row.Phase
		if err := s.record(ctx, part); err != nil {
			return 0, err
		}
		fault.Hit(fault.SnapshotRecorded)
		if s.row.Phase != before {
			s.cfg.Logger.InfoContext(ctx, "snapshot goes on with another phase", slog.String("peer", s.peer), slog.String("phase", string(s.row.Phase)),
				slog.Int64("pushed", s.row.Pushed))
		}
		if err := s.store.makeRoom(ctx, s.cfg.paces[s.peer], begun); err != nil {
			return 0, err
		}
		if time.Now().After(until) {
			return s.giveBack(ctx, 0)
		}
	}
}

// mustWait reports whether something of before may still arrive that would do harm to what comes next. A phase relies on what the ones
// before it have done; and where an item deletes or passes through a title, also on what came before in its own phase.
func (s *snapshot) mustWait() bool {
	return s.row.Doubt > 0 && (s.row.After == "" || s.row.Phase == phaseArchived || s.row.Phase == phaseChanges || s.row.Phase == phaseEnd)
}

// pushPart pushes the items of a part, or brings the peer to its state.
func (s *snapshot) pushPart(ctx context.Context, p *part) (d delivery) {
	if p.state == nil {
		return s.push(ctx, p.items)
	}
	to := s.cfg.bounded()
	d, p.owners = p.state.bring(ctx, to, s.peer, s.isolation(to), s.cfg.SenderID, s.cfg.limits)
	return d
}

func (s *snapshot) push(ctx context.Context, items []item) delivery {
	shipment := shipment{senderID: s.cfg.SenderID}
	for _, part := range cut(items, s.cfg.limits) {
		shipment.pushes = append(shipment.pushes, load{part, request(part, s.cfg.SenderID)})
	}
	return s.send(ctx, shipment)
}

func (s *snapshot) send(ctx context.Context, what shipment) delivery {
	to := s.cfg.bounded()
	return what.send(ctx, to, s.peer, s.isolation(to))
}

func (s *snapshot) isolation(parts Pusher) isolation {
	return isolation{
		parts: parts, until: time.Now().Add(s.cfg.RetryBudget), repeats: pushRepeats, suspicions: suspicionsAfter(s.row.LastClass, s.row.Failures),
	}
}

func (s *snapshot) renew(ctx context.Context) error {
	tag, err := s.store.pool.Exec(ctx, `
		update snapshots set leased_until = clock_timestamp() + $3::interval where peer = $1 and holder = $2 and leased_until > clock_timestamp()`,
		s.peer, s.token, retryLease)
	if err != nil {
		return fmt.Errorf("renew the lease of a snapshot: %w", err)
	}
	if tag.RowsAffected() == 0 {
		return fmt.Errorf("renew the lease of a snapshot: %w", errLeaseLost)
	}
	return nil
}

// failed gives the row back until the peer is tried again.
func (s *snapshot) failed(ctx context.Context, d delivery) (time.Duration, error) {
	failures := s.row.Failures + 1
	delay := s.cfg.Retry.retryDelay(failures, d.err)
	class := peer.ClassOf(d.err)
	err := pgx.BeginFunc(ctx, s.store.pool, func(tx pgx.Tx) error {
		_, err := tx.Exec(ctx, `
			update snapshots
			set holder = null, leased_until = null, not_before = clock_timestamp() + $3::interval, failures = $4, last_class = $5,
			    doubt_until = greatest(doubt_until, case when $6 then clock_timestamp() + $7::interval end)
			where peer = $1 and holder = $2`, s.peer, s.token, delay, failures, string(class), d.inDoubt, s.cfg.Zombie)
		if err != nil {
			return err
		}
		return recordErrors(ctx, tx, map[string]string{s.peer: string(class)})
	})
	if err != nil {
		return 0, fmt.Errorf("snapshot for %s: %w", s.peer, err)
	}
	level := slog.LevelInfo
	if class.Configuration() {
		level = slog.LevelError
	}
	s.cfg.Logger.LogAttrs(ctx, level, "part of a snapshot not acknowledged", slog.String("peer", s.peer), slog.String("phase", string(s.row.Phase)),
		slog.String("class", string(class)), slog.String("hint", class.Hint()), slog.Int("failures", failures), slog.Duration("next_in", delay))
	return delay, nil
}

// giveBack ends the lease until the snapshot goes on.
func (s *snapshot) giveBack(ctx context.Context, delay time.Duration) (time.Duration, error) {
	_, err := s.store.pool.Exec(ctx, `
		update snapshots set holder = null, leased_until = null, not_before = clock_timestamp() + $3::interval where peer = $1 and holder = $2`,
		s.peer, s.token, delay)
	if err != nil {
		return 0, fmt.Errorf("snapshot for %s: %w", s.peer, err)
	}
	return delay, nil
}
