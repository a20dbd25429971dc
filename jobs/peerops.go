package jobs

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgxpool"
	"github.com/riverqueue/river"
	"github.com/riverqueue/river/riverdriver/riverpgxv5"

	"quorumbox/outbox"
)

// ErrUnknownPeer says that no peer of that name is known. The error names those that are.
var ErrUnknownPeer = errors.New("no such peer")

// ErrPeerInUse says that a peer cannot be removed. The error says what to do.
var ErrPeerInUse = errors.New("the peer is in use")

// PausePeer stops all pushes to a peer, by every worker, until it is resumed: it pauses the peer's River queue, which River UI can as well. A push that is on
// its way is waited for by its sender; nothing begins any more. What is written meanwhile waits, and the peer gives no acknowledgements for a quorum.
// changed is false if it was paused already. [ErrUnknownPeer].
func PausePeer(ctx context.Context, pool *pgxpool.Pool, id string) (changed bool, err error) {
	return switchQueue(ctx, pool, id, "paused_at is null", (*river.Client[pgx.Tx]).QueuePauseTx)
}

// ResumePeer ends [PausePeer]. What waits is pushed in order. changed is false if the peer was not paused. [ErrUnknownPeer].
func ResumePeer(ctx context.Context, pool *pgxpool.Pool, id string) (changed bool, err error) {
	return switchQueue(ctx, pool, id, "paused_at is not null", (*river.Client[pgx.Tx]).QueueResumeTx)
}

type queueSwitch func(client *river.Client[pgx.Tx], ctx context.Context, tx pgx.Tx, name string, opts *river.QueuePauseOpts) error

// switchQueue pauses or resumes the queue of a peer if the condition on its row holds. A queue that no worker has worked yet is made.
func switchQueue(ctx context.Context, pool *pgxpool.Pool, id, condition string, do queueSwitch) (changed bool, err error) {
	client, err := river.NewClient(riverpgxv5.New(pool), &river.Config{})
	if err != nil {
		return false, fmt.Errorf("make a River client: %w", err)
	}
	err = pgx.BeginFunc(ctx, pool, func(tx pgx.Tx) error {
		if _, err := peerState(ctx, tx, id); err != nil {
			return err
		}
		queue := PeerQueue(id)
		_, err := tx.Exec(ctx, `
			insert into river_queue (name, created_at, updated_at) values ($1, now(), now()) on conflict (name) do nothing`, queue)
		if err != nil {
			return err
		}
		err = tx.QueryRow(ctx, `select `+condition+` from river_queue where name = $1 for update`, queue).Scan(&changed)
		if err != nil || !changed {
			return err
		}
		return do(client, ctx, tx, queue, nil)
	})
	if err != nil {
		return false, fmt.Errorf("switch peer %s: %w", id, err)
	}
	return changed, nil
}

// peerState returns the state of a peer and locks its row, or [ErrUnknownPeer] with the names of those that are known.
func peerState(ctx context.Context, tx pgx.Tx, id string) (state string, err error) {
	return knownState(ctx, tx, id, "for no key update")
}

// knownState is peerState with a lock of the caller's choice, or none.
func knownState(ctx context.Context, tx pgx.Tx, id, lock string) (state string, err error) {
	err = tx.QueryRow(ctx, `select state from peers where id = $1 `+lock, id).Scan(&state)
	if !errors.Is(err, pgx.ErrNoRows) {
		return state, err
	}
	rows, err := tx.Query(ctx, `select id from peers order by id`)
	if err != nil {
		return "", err
	}
	known, err := pgx.CollectRows(rows, pgx.RowTo[string])
	if err != nil {
		return "", err
	}
	if len(known) == 0 {
		return "", fmt.Errorf("%w: none is known yet; a worker makes them known when it starts", ErrUnknownPeer)
	}
	return "", fmt.Errorf("%w: known are %s", ErrUnknownPeer, strings.Join(known, ", "))
}

// RemovePeer forgets a peer that is not configured any more: where it stands, what it misses and refuses, its jobs and its queue, in one transaction. If it is
// configured again it is new, and brought the current state; a peer that still has something of before needs [ResyncPeer]. Removed says how many rows of each table that were.
//
// A peer that is configured, as far as the last worker that was started knows, is not removed: [ErrPeerInUse]. No worker that still has the peer
// in its configuration may be running: it could record nothing any more. [ErrUnknownPeer].
func RemovePeer(ctx context.Context, pool *pgxpool.Pool, id string) (removed map[string]int64, err error) {
	removed = map[string]int64{}
	err = pgx.BeginFunc(ctx, pool, func(tx pgx.Tx) error {
		state, err := peerState(ctx, tx, id)
		if err != nil {
			return err
		}
		if state != "absent" && state != "lost" {
			return fmt.Errorf("%w: take %s out of the configuration of all workers and restart them; then it is absent and can be removed", ErrPeerInUse, id)
		}
		var working bool
		err = tx.QueryRow(ctx, `select exists (select from river_job where queue = $1 and state = 'running')`, PeerQueue(id)).Scan(&working)
		if err != nil {
			return err
		}
		if working {
			return fmt.Errorf("%w: a job for %s is running, so some worker still has it in its configuration: restart that", ErrPeerInUse, id)
		}
		return forget(ctx, tx, id, removed)
	})
	if err != nil {
		return nil, fmt.Errorf("remove peer %s: %w", id, err)
	}
	return removed, nil
}

// forget deletes a peer from each table that refers to peers, as the catalogue says, so that no later table is missed.
func forget(ctx context.Context, tx pgx.Tx, id string, removed map[string]int64) error {
	rows, err := tx.Query(ctx, `
		select c.conrelid::regclass::text as tbl, quote_ident(a.attname) as col
		from pg_constraint c
		join pg_attribute a on a.attrelid = c.conrelid and a.attnum = c.conkey[1]
		where c.contype = 'f' and c.confrelid = 'peers'::regclass and cardinality(c.conkey) = 1
		order by 1`)
	if err != nil {
		return err
	}
	type reference struct{ Tbl, Col string }
	list, err := pgx.CollectRows(rows, pgx.RowToStructByName[reference])
	if err != nil {
		return err
	}
	deletes := []struct{ name, sql, arg string }{
		{"river_job", `delete from river_job where queue = $1`, PeerQueue(id)},
		{"river_queue", `delete from river_queue where name = $1`, PeerQueue(id)},
	}
	for _, r := range list { // names of the catalogue, quoted by it
		deletes = append(deletes, struct{ name, sql, arg string }{r.Tbl, `delete from ` + r.Tbl + ` where ` + r.Col + ` = $1`, id})
	}
	deletes = append(deletes, struct{ name, sql, arg string }{"peers", `delete from peers where id = $1`, id})
	for _, d := range deletes {
		tag, err := tx.Exec(ctx, d.sql, d.arg)
		if err != nil {
			return fmt.Errorf("delete from %s: %w", d.name, err)
		}
		removed[d.name] += tag.RowsAffected()
	}
	return nil
}

// Drain is the wait until a peer has everything that was committed when it began. Make it with [NewDrain]; it must not be used concurrently.
type Drain struct {
	pool *pgxpool.Pool
	peer string

	entries []lanePoint // the last entry of each lane that was not dispatched
	targets []lanePoint // the last batch of each lane; known once those are dispatched
}

type lanePoint struct {
	Lane int16
	At   int64 // id of an entry, or number of a batch
}

// DrainState is how far a [Drain] is. All counts are of what was there when it began, but for Repairs and Doubts, which count those that are due.
type DrainState struct {
	Done         bool
	Paused       bool  // an operator has paused the peer: it cannot be done unless it is
	Absent       bool  // it is not configured: likewise
	Undispatched int64 // at least: no worker has taken them up yet
	Undecided    int64 // batches of which the peer may still be pushed the first time
	Missing      int64 // entries that the peer has not acknowledged
	Repairs      int64
	Doubts       int64
	Refused      []int64 // entries that it refuses for good, the first 100; they keep nothing from being done
}

// NewDrain notes what is committed now. [ErrUnknownPeer].
func NewDrain(ctx context.Context, pool *pgxpool.Pool, id string) (*Drain, error) {
	d := &Drain{pool: pool, peer: id}
	err := pgx.BeginFunc(ctx, pool, func(tx pgx.Tx) error {
		if _, err := peerState(ctx, tx, id); err != nil {
			return err
		}
		rows, err := tx.Query(ctx, `select lane, max(entry) from undispatched group by lane`)
		if err != nil {
			return err
		}
		d.entries, err = pgx.CollectRows(rows, pgx.RowToStructByPos[lanePoint])
		return err
	})
	if err != nil {
		return nil, fmt.Errorf("wait for peer %s: %w", id, err)
	}
	return d, nil
}

// Look says how far it is, in a few short queries.
func (d *Drain) Look(ctx context.Context) (s DrainState, err error) {
	err = pgx.BeginTxFunc(ctx, d.pool, pgx.TxOptions{IsoLevel: pgx.RepeatableRead, AccessMode: pgx.ReadOnly}, func(tx pgx.Tx) error {
		if d.targets == nil {
			if s.Undispatched, err = d.dispatched(ctx, tx); err != nil {
				return err
			}
		}
		targets := d.targets
		if targets == nil { // what is there by now
			if targets, err = heads(ctx, tx); err != nil {
				return err
			}
		}
		if err := d.look(ctx, tx, targets, &s); err != nil {
			return err
		}
		rows, err := tx.Query(ctx, `select entry from refusals where peer = $1 order by entry limit 100`, d.peer)
		if err != nil {
			return err
		}
		s.Refused, err = pgx.CollectRows(rows, pgx.RowTo[int64])
		return err
	})
	if err != nil {
		return s, fmt.Errorf("wait for peer %s: %w", d.peer, err)
	}
	s.Done = s.Undispatched+s.Undecided+s.Missing+s.Repairs+s.Doubts == 0
	return s, nil
}

// dispatched counts what is not dispatched yet. When nothing is left, the targets are known.
func (d *Drain) dispatched(ctx context.Context, tx pgx.Tx) (left int64, err error) {
	lanes, ids := splitPoints(d.entries)
	err = tx.QueryRow(ctx, `
		select count(*) from unnest($1::smallint[], $2::bigint[]) e (lane, last)
		join undispatched u on u.lane = e.lane and u.entry <= e.last`, lanes, ids).Scan(&left)
	if err != nil || left > 0 {
		return left, err
	}
	d.targets, err = heads(ctx, tx)
	return 0, err
}

// heads are the newest batches of the lanes; never nil.
func heads(ctx context.Context, tx pgx.Tx) ([]lanePoint, error) {
	rows, err := tx.Query(ctx, `
		select l.lane, b.number
		from generate_series(0, $1::smallint - 1) l (lane)
		cross join lateral (select number from batches b where b.lane = l.lane order by number desc limit 1) b`, outbox.Lanes)
	if err != nil {
		return nil, err
	}
	list, err := pgx.CollectRows(rows, func(row pgx.CollectableRow) (p lanePoint, err error) {
		err = row.Scan(&p.Lane, &p.At)
		return p, err
	})
	return append([]lanePoint{}, list...), err
}

// look compares where the peer is with the targets.
func (d *Drain) look(ctx context.Context, tx pgx.Tx, targets []lanePoint, s *DrainState) error {
	lanes, numbers := splitPoints(targets)
	return tx.QueryRow(ctx, `
		with t (lane, number) as (
			select * from unnest($2::smallint[], $3::bigint[])
		)
		select
			exists (select from river_queue where name = $4 and paused_at is not null),
			not exists (select from peers where id = $1 and state = 'active'),
			(select count(*) from t join batches b on b.lane = t.lane and b.number <= t.number and b.verdict = 'pending'
			 where not exists (select from lagging l where l.peer = $1 and l.lane = b.lane)),
			coalesce((
				select sum(
					(select b.position from batches b where b.lane = t.lane and b.number = t.number)
					- coalesce((select b.position from batches b where b.lane = t.lane and b.number <= l.cursor order by b.number desc limit 1), 0))
				from t join lagging l on l.peer = $1 and l.lane = t.lane and l.cursor < t.number
			), 0)::bigint,
			(select count(*) from repairs where peer = $1 and due_at <= now()),
			(select count(*) from doubts where peer = $1 and until <= now())`,
		d.peer, lanes, numbers, PeerQueue(d.peer)).
		Scan(&s.Paused, &s.Absent, &s.Undecided, &s.Missing, &s.Repairs, &s.Doubts)
}

func splitPoints(list []lanePoint) (lanes []int16, at []int64) {
	list = slices.Clone(list)
	for _, p := range list {
		lanes, at = append(lanes, p.Lane), append(at, p.At)
	}
	return lanes, at
}
