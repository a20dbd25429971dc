package jobs

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"slices"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/riverqueue/river"

	"quorumbox/internal/fault"
	"quorumbox/internal/peer"
)

// repairsAtOnce bounds what one job repairs; the next one goes on.
const repairsAtOnce = 200

// repairWorker works the job repair.
type repairWorker struct {
	river.WorkerDefaults[RepairArgs]

	cfg   Config
	store *store
}

// NextRetry is short: what fails here is the database.
func (w *repairWorker) NextRetry(*river.Job[RepairArgs]) time.Time {
	return time.Now().Add(time.Second)
}

// Work brings what is due of a lane at a peer to the store's state. It holds the lane meanwhile, and those of the memories that come along, so that nothing else of them is on its way
// to the peer; what the log brings later is the state that was pushed, or comes after it. A lane that somebody else holds is left to the next job.
func (w *repairWorker) Work(ctx context.Context, job *river.Job[RepairArgs]) error {
	r := &repair{repairWorker: w, at: peerLane{job.Args.Peer, job.Args.Lane}}
	if ok, err := r.claim(ctx); err != nil || !ok {
		return err
	}
	fault.Hit(fault.RepairClaimed)
	if err := r.store.awaitHead(ctx, r.holds[0]); err != nil {
		return err
	}
	if err := r.load(ctx); err != nil {
		return err
	}
	var d delivery
	if len(r.rows) > 0 {
		d = r.push(ctx)
	}
	fault.Hit(fault.RepairPushed)
	// What the peer did is written down also if the worker is told to stop meanwhile.
	ctx, cancel := leaving(ctx)
	defer cancel()
	if err := r.record(ctx, d); err != nil {
		return err
	}
	fault.Hit(fault.RepairRecorded)
	return nil
}

// repair is one run of the job.
type repair struct {
	*repairWorker

	at     peerLane
	holds  []*hold // that of the job's own lane first
	rows   []repairRow
	left   []repairRow // for later
	state  *current
	owners map[int64]subject
}

// repairRow is a row of the table repairs that this run works off.
type repairRow struct {
	Subject  subjectKind
	Key      string
	Method   method
	Entry    int64
	Attempts int
	Class    peer.Class // of the last of them
	DueAt    time.Time
	Again    *time.Time // until then an earlier push of it may still arrive, or null
	Noted    time.Time  // the same for this run's push
	Places   []slot     // titles that a late push may have brought, and so those of other memories now
}

func scanRepair(row pgx.CollectableRow) (r repairRow, err error) {
	var places [][2]string
	err = row.Scan(&r.Subject, &r.Key, &r.Method, &r.Entry, &r.Attempts, &r.Class, &r.DueAt, &r.Again, &r.Noted, &places)
	for _, p := range places {
		r.Places = append(r.Places, slot{Namespace: p[0], Title: p[1]})
	}
	return r, err
}

// again is until when an earlier push of the repair may still arrive, the one of this run included; nil: it cannot.
func (r repairRow) again(d delivery) *time.Time {
	if d.inDoubt {
		return &r.Noted
	}
	return r.Again
}

func (r repairRow) subject() subject { return subject{r.Subject, r.Key, r.Method, r.Entry} }

// claim holds the lane and takes what is due. That the push may still arrive after this run is noted before the first byte: if the worker dies, the repairs
// are done at once by another one, and once more when the push cannot arrive any more.
func (r *repair) claim(ctx context.Context) (ok bool, err error) {
	err = pgx.BeginFunc(ctx, r.store.pool, func(tx pgx.Tx) error {
		var own hold
		if own, ok, err = r.store.takeLane(ctx, tx, r.at); err != nil || !ok {
			return err
		}
		r.holds = []*hold{&own}
		if err := r.moveAway(ctx, tx); err != nil {
			return err
		}
		rows, err := tx.Query(ctx, `
			with due as materialized (
				select subject, key, again_at
				from repairs
				where peer = $1 and lane = $2 and due_at <= clock_timestamp()
				order by due_at, subject, key
				limit $3
				for update
			)
			update repairs r
			set again_at = clock_timestamp() + $4::interval
			from due d
			where r.peer = $1 and r.subject = d.subject and r.key = d.key
			returning r.subject, r.key, r.method, r.entry, r.attempts, r.class, r.due_at, d.again_at, r.again_at, r.places`,
			r.at.Peer, r.at.Lane, repairsAtOnce, r.cfg.JobTimeout+r.cfg.Zombie) // the push may begin as late as the job ends
		if err != nil {
			return err
		}
		r.rows, err = pgx.CollectRows(rows, scanRepair)
		if err == nil && len(r.rows) == 0 {
			ok = false
			return r.store.giveBack(ctx, tx, own, 0)
		}
		fault.Hit(fault.RepairClaiming)
		return err
	})
	if err != nil {
		return false, fmt.Errorf("repair %s: %w", r.at, err)
	}
	return ok, nil
}

// moveAway leaves memories whose entries go through another lane by now to that lane's job.
func (r *repair) moveAway(ctx context.Context, tx pgx.Tx) error {
	_, err := tx.Exec(ctx, `
		update repairs r
		set lane = now.lane
		from (
			select w.key, coalesce(outbox_lane(coalesce(m.namespace, a.namespace)), t.lane) as lane
			from repairs w
			left join memories m on m.id = w.key
			left join archived_memories a on a.id = w.key
			left join tombstones t on t.id = w.key
			where w.peer = $1 and w.lane = $2 and w.subject = 'memory' and w.due_at <= clock_timestamp()
		) now
		where r.peer = $1 and r.subject = 'memory' and r.key = now.key and now.lane <> r.lane`, r.at.Peer, r.at.Lane)
	return err
}

func (r *repair) push(ctx context.Context) delivery {
	ctx, stop := keepRenewing(ctx, func(ctx context.Context) error {
		for _, h := range r.holds {
			if err := r.store.announce(ctx, h.token, []advance{{peerLane: h.peerLane, Cursor: h.cursor}}, retryLease); err != nil {
				return err
			}
		}
		return nil
	})
	defer stop()
	ctx, traced := r.trace(ctx)
	pushes := r.cfg.bounded()
	how := isolation{parts: pushes, until: time.Now().Add(r.cfg.RetryBudget), repeats: pushRepeats, suspicions: r.suspicions()}
	d, owners := r.state.bring(ctx, pushes, r.at.Peer, how, r.cfg.SenderID, r.cfg.limits)
	endDelivery(traced, d)
	r.owners = owners
	return d
}

// record writes down what came of it and gives the lane back.
func (r *repair) record(ctx context.Context, d delivery) error {
	refused := map[subject]peer.Class{}
	for _, x := range d.refused {
		if s, ok := r.owners[x.Entry]; ok {
			refused[s] = x.Class
		}
	}
	err := pgx.BeginFunc(ctx, r.store.pool, func(tx pgx.Tx) error {
		delay := time.Duration(0)
		if d.err != nil {
			delay = r.cfg.Retry.retryDelay(r.failures()+1, d.err)
			if err := recordErrors(ctx, tx, map[string]string{r.at.Peer: string(peer.ClassOf(d.err))}); err != nil {
				return err
			}
		}
		slices.SortFunc(r.holds, func(a, b *hold) int { return a.compare(b.peerLane) }) // one order for all who lock lanes
		for _, h := range r.holds {
			if err := r.store.giveBack(ctx, tx, *h, delay); err != nil {
				return err
			}
		}
		if class := peer.ClassOf(d.err); ofPeer(class) {
			if err := r.leaveAlone(ctx, tx, setback{class, delay, 1}); err != nil {
				return err
			}
		}
		fault.Hit(fault.RepairRecording)
		again, err := r.state.changedSince(ctx, tx)
		if err != nil {
			return err
		}
		if err := r.repairStandards(ctx, tx); err != nil {
			return err
		}
		for _, row := range r.rows {
			class, isRefused := refused[row.subject()]
			switch {
			case d.err != nil:
				err = r.postpone(ctx, tx, row, d, delay, peer.ClassOf(d.err))
			case isRefused:
				err = r.refuse(ctx, tx, row, d, class)
			case again:
				err = r.anew(ctx, tx, row, d)
			default:
				err = r.finish(ctx, tx, row, d)
			}
			if err != nil {
				return err
			}
			delete(refused, row.subject())
		}
		for _, row := range r.left {
			if err := r.later(ctx, tx, row); err != nil {
				return err
			}
		}
		return r.addRefused(ctx, tx, refused)
	})
	if errors.Is(err, errLeaseLost) {
		return nil // the repairs are still due
	}
	if err != nil {
		return fmt.Errorf("repair %s: %w", r.at, err)
	}
	level := slog.LevelInfo
	switch {
	case len(r.rows) == 0: // all is left for later
		level = slog.LevelDebug
	case d.err != nil || len(d.refused) > 0:
		level = slog.LevelWarn
	}
	r.cfg.Logger.LogAttrs(ctx, level, "peer's copy repaired", slog.String("peer", r.at.Peer), slog.Int("lane", int(r.at.Lane)),
		slog.Int("subjects", len(r.rows)), slog.Int("refused", len(d.refused)), slog.String("class", string(peer.ClassOf(d.err))))
	return nil
}

// failures is how often repairs of this run have failed in a row.
func (r *repair) failures() int {
	n := 0
	for _, row := range r.rows {
		n = max(n, row.Attempts)
	}
	return n
}

// suspicions is how often in a row repairs of this run have broken the peer.
func (r *repair) suspicions() int {
	n := 0
	for _, row := range r.rows {
		n = max(n, suspicionsAfter(row.Class, row.Attempts))
	}
	return n
}

// leaveAlone leaves a peer that is away to itself: one repair has asked for all.
func (r *repair) leaveAlone(ctx context.Context, tx pgx.Tx, by setback) error {
	_, err := tx.Exec(ctx, `
		with due as (
			select subject, key from repairs where peer = $1 and due_at < clock_timestamp() + $2::interval for update skip locked
		)
		update repairs r
		set due_at = greatest(r.due_at, clock_timestamp() + $2::interval), attempts = greatest(r.attempts, $3)
		from due d
		where r.peer = $1 and r.subject = d.subject and r.key = d.key and r.lane <> $4`, r.at.Peer, by.delay, r.failures(), r.at.Lane)
	if err != nil {
		return err
	}
	return setBack(ctx, tx, r.at.Peer, by)
}

// finish removes a repair that is done, or keeps it until a push of it that got no answer cannot arrive any more, and renews it then: that push may bring a link
// back. A row that was made due again meanwhile stays as it is.
func (r *repair) finish(ctx context.Context, tx pgx.Tx, row repairRow, d delivery) error {
	_, err := tx.Exec(ctx, `
		with gone as (
			delete from repairs
			where peer = $1 and subject = $2 and key = $3 and due_at = $4 and ($5::timestamptz is null or $5 <= clock_timestamp())
		)
		update repairs
		set due_at = $5, again_at = null, method = 'renew'
		where peer = $1 and subject = $2 and key = $3 and due_at = $4 and $5 > clock_timestamp()`,
		r.at.Peer, string(row.Subject), row.Key, row.DueAt, row.again(d))
	return err
}

// leftFor is how long, at least, a repair is left that is of something that the log has more about, or that needs another lane; up to five times that, so that two that need each
// other's lanes do not meet again and again.
const leftFor = 500 * time.Millisecond

// later leaves a repair of which nothing was pushed as it was.
func (r *repair) later(ctx context.Context, tx pgx.Tx, row repairRow) error {
	_, err := tx.Exec(ctx, `
		update repairs
		set due_at = greatest(due_at, clock_timestamp() + $4::interval * (1 + 4 * random())), again_at = $5
		where peer = $1 and subject = $2 and key = $3`, r.at.Peer, string(row.Subject), row.Key, leftFor, row.Again)
	return err
}

// postpone leaves a repair for later. That an earlier push may still arrive is kept in mind.
func (r *repair) postpone(ctx context.Context, tx pgx.Tx, row repairRow, d delivery, delay time.Duration, class peer.Class) error {
	_, err := tx.Exec(ctx, `
		update repairs
		set due_at = greatest(due_at, clock_timestamp() + $4::interval), again_at = $5, attempts = attempts + 1, class = $6,
		    method = case when $5::timestamptz is null then method else 'renew' end
		where peer = $1 and subject = $2 and key = $3`, r.at.Peer, string(row.Subject), row.Key, delay, row.again(d), string(class))
	return err
}

// anew does a repair once more, at once, from nothing: what was pushed is not what there is now.
func (r *repair) anew(ctx context.Context, tx pgx.Tx, row repairRow, d delivery) error {
	_, err := tx.Exec(ctx, `
		update repairs
		set due_at = clock_timestamp(), again_at = $4, attempts = attempts + 1, class = '', method = case subject when 'memory' then 'renew' else method end
		where peer = $1 and subject = $2 and key = $3`, r.at.Peer, string(row.Subject), row.Key, row.again(d))
	return err
}

// repairStandards makes repairs of the namespaces of which another standard was pushed than they have now: their lanes are not held, and what the log brought meanwhile may have come
// before that.
func (r *repair) repairStandards(ctx context.Context, tx pgx.Tx) error {
	stale, err := r.state.staleStandards(ctx, tx)
	if err != nil || len(stale) == 0 {
		return err
	}
	_, err = tx.Exec(ctx, `
		insert into repairs (peer, subject, key, lane, method, reason)
		select $1, 'namespace', n.key, outbox_lane(n.key), 'store', 'doubt' from unnest($2::text[]) n (key) order by n.key
		on conflict (peer, subject, key) do update set due_at = clock_timestamp()`, r.at.Peer, stale)
	return err
}

// refuse tries a refused subject again from scratch, and if that was refused, too, as slowly as an entry that a peer refuses.
func (r *repair) refuse(ctx context.Context, tx pgx.Tx, row repairRow, d delivery, class peer.Class) error {
	delay := r.cfg.Redeliver.Delay(row.Attempts+1, 0)
	if row.Method == storeAgain {
		delay = 0
	}
	_, err := tx.Exec(ctx, `
		update repairs
		set method = 'renew', due_at = clock_timestamp() + $4::interval, again_at = $5, attempts = attempts + 1, class = $6
		where peer = $1 and subject = $2 and key = $3`, r.at.Peer, string(row.Subject), row.Key, delay, row.again(d), string(class))
	return err
}

// addRefused notes what came along, was deleted for that, and is refused now.
func (r *repair) addRefused(ctx context.Context, tx pgx.Tx, refused map[subject]peer.Class) error {
	for s, class := range refused {
		_, err := tx.Exec(ctx, `
			insert into repairs (peer, subject, key, lane, method, reason, due_at, attempts, class)
			values ($1, $2, $3, $4, 'renew', 'doubt', clock_timestamp() + $5::interval, 1, $6)
			on conflict (peer, subject, key) do nothing`,
			r.at.Peer, string(s.Kind), s.Key, r.at.Lane, r.cfg.Redeliver.Delay(1, 0), string(class))
		if err != nil {
			return err
		}
	}
	return nil
}
