// Package status reads how replication stands: who lags, since when and why, and what has not been dispatched or decided.
package status

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"

	"quorumbox/internal/peer"
	"quorumbox/jobs"
	"quorumbox/outbox"
)

const (
	// VerdictWindow is how far back verdicts are counted.
	VerdictWindow = 5 * time.Minute

	// verdictBatches bounds how many of a lane's newest batches are looked at for that. Above it the window shrinks.
	verdictBatches = 500

	// countLimit bounds the counts that would have to walk over the rows. A count that reaches it means "at least".
	countLimit = 100_000
)

// ErrNoSchema says that the database has not been migrated.
var ErrNoSchema = errors.New("the database has no tables of quorumbox: run `worker migrate up`")

// Seconds is a length of time as JSON shows it: a number with at most three decimals.
type Seconds float64

// Duration returns s as a duration.
func (s Seconds) Duration() time.Duration { return time.Duration(float64(s) * float64(time.Second)) }

// Report is how replication stands. Its JSON is stable: fields are added, never renamed or removed. Ages are by the database's clock.
type Report struct {
	At           time.Time    `json:"at"`             // the database's clock
	Summary      string       `json:"summary"`        // what is going on, in words; the text is no interface
	WorkerRuns   bool         `json:"worker_running"` // false up to 15 s late, after a worker was killed
	Peers        []Peer       `json:"peers"`          // by id
	Undispatched Undispatched `json:"undispatched"`
	Undecided    Undecided    `json:"undecided"`
	Verdicts     Verdicts     `json:"verdicts"`
	FanOutPaused bool         `json:"fan_out_paused"` // an operator has paused the queue fan_out: nothing is decided

	// Migrations is what to do about pending migrations, "" if there are none. Read leaves it empty; the command fills it in.
	Migrations string `json:"migrations,omitempty"`
}

// Peer is where one peer stands. A peer in step has the state's fields and zeros.
type Peer struct {
	ID     string `json:"id"`
	State  string `json:"state"`  // active, paused, absent or lost
	Paused bool   `json:"paused"` // an operator has paused the peer's River queue: it is not caught up
	InStep bool   `json:"in_step"`

	LanesLagging   int     `json:"lanes_lagging"`
	EntriesLagging int64   `json:"entries_lagging"`    // dispatched ones that the peer misses
	OldestAge      Seconds `json:"oldest_age_seconds"` // of the oldest of them, since it was written
	Failures       int     `json:"failures"`           // in a row, of the worst lane
	Pushing        bool    `json:"pushing"`            // somebody is catching it up at this moment
	NextTry        Seconds `json:"next_try_seconds"`   // until the next attempt; 0: due, or nothing to do

	// InFlight is on how many lanes a fan-out still waits for the peer's answer to its newest push. They do not count as lagging.
	InFlight int `json:"lanes_in_flight"`

	// Snapshot is there while the peer is brought the current state. Until that is over it gets nothing else.
	Snapshot *Snapshot `json:"snapshot,omitempty"`

	LastError *LastError `json:"last_error"` // null: none ever
	Refusals  int64      `json:"refusals"`   // entries that the peer refuses for good; at least, from 100,000

	Doubts  int64 `json:"doubts"`  // lanes and times of pushes that may still be applied although nobody waits for their answer
	Repairs int64 `json:"repairs"` // things of which the peer's copy is to be made equal to the store's; at least, from 100,000
}

// Snapshot is how far a peer is that is brought the store's current state.
type Snapshot struct {
	Reason  jobs.SnapshotReason `json:"reason"` // new, overdue or asked
	Phase   string              `json:"phase"`
	Pushed  int64               `json:"pushed"` // of all phases
	Total   int64               `json:"total"`  // about; 0: not known yet
	Running Seconds             `json:"running_seconds"`
	// Waits is until the last of what was pushed without an answer cannot arrive any more, before which it does not go on; 0: it does not wait for that.
	Waits Seconds `json:"waits_seconds"`
}

// LastError is what a peer failed with most recently, maybe long ago.
type LastError struct {
	Class peer.Class `json:"class"`
	Hint  string     `json:"hint"` // what to look at
	Age   Seconds    `json:"age_seconds"`
}

// Undispatched is what no batch names yet.
type Undispatched struct {
	Entries   int64   `json:"entries"` // at least, from 100,000
	OldestAge Seconds `json:"oldest_age_seconds"`
}

// Undecided is what has been dispatched and has no verdict yet.
type Undecided struct {
	Batches   int64   `json:"batches"`
	Entries   int64   `json:"entries"`
	OldestAge Seconds `json:"oldest_age_seconds"` // since the dispatch
}

// Verdicts counts entries by the verdicts of the last Window.
type Verdicts struct {
	Window Seconds                 `json:"window_seconds"` // five minutes, or less where there were very many
	Met    int64                   `json:"met"`
	NotMet map[outbox.Reason]int64 `json:"not_met"` // by reason
}

// Lagging returns the peers that are not in step.
func (r Report) Lagging() []Peer {
	var list []Peer
	for _, p := range r.Peers {
		if !p.InStep {
			list = append(list, p)
		}
	}
	return list
}

// Late returns the ids of the peers whose oldest missing entry is older than maxAge.
func (r Report) Late(maxAge time.Duration) []string {
	var ids []string
	for _, p := range r.Lagging() {
		if p.OldestAge.Duration() > maxAge {
			ids = append(ids, p.ID)
		}
	}
	return ids
}

// DB is a *pgxpool.Pool, a *pgx.Conn that nobody else uses meanwhile, or a pgx.Tx.
type DB interface {
	SendBatch(ctx context.Context, b *pgx.Batch) pgx.BatchResults
}

// Read returns how replication stands, in one round trip. It costs a few index look-ups for each lagging lane and each lane, however long the
// outbox and the backlogs are. The parts are read one after the other, so that under load they may differ by what happened in between.
// [ErrNoSchema] where the tables are missing.
func Read(ctx context.Context, db DB) (Report, error) {
	r := newReport()
	var b pgx.Batch
	r.queueClock(&b)
	r.queuePeers(&b)
	r.queueUndispatched(&b)
	r.queueUndecided(&b)
	r.queueVerdicts(&b)
	if err := send(ctx, db, &b); err != nil {
		return Report{}, err
	}
	r.Summary = r.Sentence()
	return r, nil
}

func newReport() Report {
	return Report{Peers: []Peer{}, Verdicts: Verdicts{NotMet: map[outbox.Reason]int64{}}}
}

// ReadPeers is the part of [Read] about the peers, by id.
func ReadPeers(ctx context.Context, db DB) ([]Peer, error) {
	r := Report{Peers: []Peer{}}
	var b pgx.Batch
	r.queuePeers(&b)
	if err := send(ctx, db, &b); err != nil {
		return nil, err
	}
	return r.Peers, nil
}

// send runs what was queued, and has its results read.
func send(ctx context.Context, db DB, b *pgx.Batch) error {
	err := db.SendBatch(ctx, b).Close()
	const undefinedTable = "42P01"
	if pgErr, ok := errors.AsType[*pgconn.PgError](err); ok && pgErr.Code == undefinedTable {
		return ErrNoSchema
	}
	if err != nil {
		return fmt.Errorf("read status: %w", err)
	}
	return nil
}

func (r *Report) queueClock(b *pgx.Batch) {
	b.Queue(`
		select clock_timestamp(),
		       exists (select from river_leader where expires_at > clock_timestamp()),
		       exists (select from river_queue where name = $1 and paused_at is not null)`, jobs.FanOutQueue).QueryRow(func(row pgx.Row) error {
		if err := row.Scan(&r.At, &r.WorkerRuns, &r.FanOutPaused); err != nil {
			return err
		}
		r.At = r.At.UTC()
		return nil
	})
}

// lagsQuery begins a query with lags: how each lagging lane of each peer stands. What a lane lacks is the difference of two batches' positions.
const lagsQuery = `
		with lags as (
			select l.peer, l.lane, l.failures,
			       l.retry is null and coalesce(l.leased_until > clock_timestamp(), false) as in_flight,
			       l.retry is not null and coalesce(l.leased_until > clock_timestamp(), false) as pushing,
			       extract(epoch from l.not_before - clock_timestamp()) as wait,
			       coalesce(head.position, 0) - coalesce(has.position, 0) as entries,
			       extract(epoch from clock_timestamp() - coalesce(oldest.created_at, next.dispatched_at)) as age
			from lagging l
			left join lateral (
				select b.position from batches b where b.lane = l.lane order by b.number desc limit 1
			) head on true
			left join lateral (
				select b.position from batches b where b.lane = l.lane and b.number <= l.cursor order by b.number desc limit 1
			) has on true
			left join lateral (
				select b.first_entry, b.dispatched_at from batches b where b.lane = l.lane and b.number > l.cursor order by b.number limit 1
			) next on true
			left join outbox oldest on oldest.id = next.first_entry
		)`

// queuePeers reads the peers and, for each, its lagging lanes.
func (r *Report) queuePeers(b *pgx.Batch) {
	b.Queue(lagsQuery+`
		select p.id, p.state,
		       exists (select from river_queue q where q.name = $1 || p.id and q.paused_at is not null),
		       coalesce(l.lanes, 0), coalesce(l.entries, 0), coalesce(l.age, 0), coalesce(s.failures, l.failures, 0),
		       coalesce(s.leased_until > clock_timestamp() or l.pushing, false),
		       coalesce(case when s.peer is null then l.wait else greatest(extract(epoch from s.not_before - clock_timestamp()), 0) end, 0),
		       coalesce(l.in_flight, 0), s.reason, s.phase, s.pushed, s.total, extract(epoch from clock_timestamp() - s.started_at),
		       case when s.holder is null and s.failures = 0 and s.not_before > clock_timestamp()
		           then least(extract(epoch from s.doubt_until - clock_timestamp()), extract(epoch from s.not_before - clock_timestamp())) end,
		       p.last_error_class, coalesce(extract(epoch from clock_timestamp() - p.last_error_at), 0),
		       (select count(*) from (select from refusals f where f.peer = p.id limit $2) f),
		       (select count(*) from (select from doubts d where d.peer = p.id limit $2) d),
		       (select count(*) from (select from repairs r where r.peer = p.id limit $2) r)
		from peers p
		left join snapshots s on s.peer = p.id
		left join lateral (
			select count(*) filter (where not in_flight) as lanes,
			       sum(entries) filter (where not in_flight) as entries,
			       max(age) filter (where not in_flight) as age,
			       max(failures) filter (where not in_flight) as failures,
			       bool_or(pushing) as pushing,
			       greatest(min(wait) filter (where not in_flight), 0) as wait,
			       count(*) filter (where in_flight) as in_flight
			from lags
			where lags.peer = p.id
		) l on true
		order by p.id`, jobs.PeerQueue(""), countLimit).Query(func(rows pgx.Rows) error {
		for rows.Next() {
			var (
				p    Peer
				last LastError
				snap struct {
					reason, phase  *string
					pushed, total  *int64
					running, waits *Seconds
				}
			)
			err := rows.Scan(&p.ID, &p.State, &p.Paused, &p.LanesLagging, &p.EntriesLagging, &p.OldestAge, &p.Failures, &p.Pushing,
				&p.NextTry, &p.InFlight, &snap.reason, &snap.phase, &snap.pushed, &snap.total, &snap.running, &snap.waits, &last.Class, &last.Age, &p.Refusals, &p.Doubts, &p.Repairs)
			if err != nil {
				return err
			}
			p.InStep = p.LanesLagging == 0 && snap.reason == nil
			if snap.reason != nil {
				p.Snapshot = &Snapshot{
					Reason: jobs.SnapshotReason(*snap.reason), Phase: *snap.phase, Pushed: *snap.pushed, Total: value(snap.total),
					Running: *snap.running, Waits: max(value(snap.waits), 0),
				}
			}
			if last.Class != "" {
				last.Hint = last.Class.Hint()
				p.LastError = &last
			}
			r.Peers = append(r.Peers, p)
		}
		return rows.Err()
	})
}

// value is what p points at, or zero.
func value[T any](p *T) (v T) {
	if p != nil {
		v = *p
	}
	return v
}

func (r *Report) queueUndispatched(b *pgx.Batch) {
	b.Queue(`
		select (select count(*) from (select from undispatched limit $1) u),
		       coalesce((
			select extract(epoch from clock_timestamp() - min(o.created_at))
			from generate_series(0, $2::smallint - 1) f (lane)
			cross join lateral (select u.entry from undispatched u where u.lane = f.lane order by u.entry limit 1) u
			join outbox o on o.id = u.entry
		), 0)`, countLimit, outbox.Lanes).QueryRow(func(row pgx.Row) error {
		return row.Scan(&r.Undispatched.Entries, &r.Undispatched.OldestAge)
	})
}

func (r *Report) queueUndecided(b *pgx.Batch) {
	b.Queue(`
		select count(*), coalesce(sum(cardinality(entries)), 0),
		       coalesce(extract(epoch from clock_timestamp() - min(dispatched_at)), 0)
		from batches
		where verdict = 'pending'`).QueryRow(func(row pgx.Row) error {
		return row.Scan(&r.Undecided.Batches, &r.Undecided.Entries, &r.Undecided.OldestAge)
	})
}

// queueVerdicts walks each lane from its newest batch back, so that no index on the time of the decision is needed. Where a lane had more than
// verdictBatches, what is older than the oldest one seen of it is left out for all lanes, and the window says so.
func (r *Report) queueVerdicts(b *pgx.Batch) {
	b.Queue(`
		with newest as (
			select b.lane, b.number, b.verdict, b.reason, b.decided_at,
			       b.position - lag(b.position, 1, case when b.number = 1 then 0::bigint end) over lane as entries,
			       count(*) over (partition by b.lane) as seen,
			       min(b.decided_at) over (partition by b.lane) as oldest
			from generate_series(0, $1::smallint - 1) f (lane)
			cross join lateral (
				select b.lane, b.number, b.verdict, b.reason, b.decided_at, b.position
				from batches b
				where b.lane = f.lane
				order by b.number desc
				limit $2
			) b
			window lane as (partition by b.lane order by b.number)
		), since as (
			select greatest(clock_timestamp() - $3::interval, max(oldest) filter (where seen >= $2)) as at from newest
		)
		select n.verdict, n.reason, coalesce(sum(n.entries), 0), extract(epoch from clock_timestamp() - since.at)
		from since
		left join newest n on n.decided_at >= since.at and n.verdict <> 'pending'
		group by n.verdict, n.reason, since.at`, outbox.Lanes, verdictBatches, VerdictWindow).Query(func(rows pgx.Rows) error {
		var (
			verdict, reason *string
			entries         int64
		)
		_, err := pgx.ForEachRow(rows, []any{&verdict, &reason, &entries, &r.Verdicts.Window}, func() error {
			switch {
			case verdict == nil: // no batch in the window
			case *verdict == "met":
				r.Verdicts.Met += entries
			default:
				r.Verdicts.NotMet[outbox.Reason(*reason)] += entries
			}
			return nil
		})
		return err
	})
}
