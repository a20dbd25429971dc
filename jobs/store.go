package jobs

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgxpool"
)

// errLeaseLost says that what was pushed may not be recorded any more: somebody else owns the batches or the lane now, and
// pushes them again.
var errLeaseLost = errors.New("the lease was lost")

// batch is a run of entries of one lane that is judged together.
type batch struct {
	Lane    int16
	Number  int64
	IDs     []int64
	Bytes   int64
	After   []batchRef    // batches of other lanes that a peer must have first
	Age     time.Duration // since the relay dispatched it, when the fan-out loaded it
	Entries []entry       // in the order of IDs
}

// namespace is that of the first entry: all of a batch are judged by the same rule.
func (b batch) namespace() string {
	if len(b.Entries) == 0 {
		return ""
	}
	return b.Entries[0].Namespace
}

type batchRef struct {
	Lane   int16
	Number int64
}

func batchRefs(lanes []int16, numbers []int64) []batchRef {
	var refs []batchRef
	for i, lane := range lanes {
		refs = append(refs, batchRef{lane, numbers[i]})
	}
	return refs
}

// store is the SQL of the jobs. Every statement that records is fenced by a token: batches.fan_out or lagging.holder.
type store struct {
	pool   *pgxpool.Pool
	lease  time.Duration // of a fan-out's batches
	zombie time.Duration // how long a push may arrive after it was given up
	traced bool          // read the entries' trace contexts
}

func newStore(pool *pgxpool.Pool, cfg Config) *store {
	return &store{pool: pool, lease: cfg.Lease, zombie: cfg.Zombie, traced: cfg.traced}
}

// fanOutRows is what a fan-out needs to know before its first byte.
type fanOutRows struct {
	Batches   []batch // by lane
	Lagging   map[peerLane]lag
	LeftAlone map[string]bool // peers that are paused, or failed and are left to their retries
}

// loadFanOut reads the undecided batches of a fan-out. ok is false if their lease does not last for another need: then
// [reclaim] must be called before anything is pushed.
func (s *store) loadFanOut(ctx context.Context, fanOut int64, need time.Duration) (f fanOutRows, ok bool, err error) {
	f.Lagging, f.LeftAlone = map[peerLane]lag{}, map[string]bool{}
	ok = true
	entries := map[int64]entry{}

	var b pgx.Batch
	b.Queue(`
		select lane, number, entries, bytes, after_lanes, after_numbers, leased_until > clock_timestamp() + $2::interval,
		       clock_timestamp() - dispatched_at
		from batches
		where fan_out = $1 and verdict = 'pending'
		order by lane`, fanOut, need).Query(func(rows pgx.Rows) error {
		for rows.Next() {
			var (
				x            batch
				afterLanes   []int16
				afterNumbers []int64
				fresh        bool
			)
			if err := rows.Scan(&x.Lane, &x.Number, &x.IDs, &x.Bytes, &afterLanes, &afterNumbers, &fresh, &x.Age); err != nil {
				return err
			}
			x.After = batchRefs(afterLanes, afterNumbers)
			ok = ok && fresh
			f.Batches = append(f.Batches, x)
		}
		return rows.Err()
	})
	b.Queue(`
		select `+s.entryColumns()+`, b.dispatched_at - o.created_at
		from batches b
		cross join lateral unnest(b.entries) e (id)
		join outbox o on o.id = e.id
		where b.fan_out = $1 and b.verdict = 'pending'`, fanOut).Query(func(rows pgx.Rows) error {
		for rows.Next() {
			var e entry
			if err := rows.Scan(append(e.columns(), &e.Waited)...); err != nil {
				return err
			}
			entries[e.ID] = e
		}
		return rows.Err()
	})
	b.Queue(`
		select `+lagColumns+`
		from lagging l
		where l.lane in (
			select unnest(lane || coalesce(after_lanes, '{}')) from batches where fan_out = $1 and verdict = 'pending'
		)`, fanOut).Query(func(rows pgx.Rows) error {
		return scanLags(rows, func(l lag) { f.Lagging[l.peerLane] = l })
	})
	queueLeftAlone(&b, f.LeftAlone)
	if err := s.pool.SendBatch(ctx, &b).Close(); err != nil {
		return f, false, fmt.Errorf("load fan-out %d: %w", fanOut, err)
	}
	return f, ok, fill(f.Batches, entries)
}

// columns are where the entryColumns of an outbox row are scanned into.
func (e *entry) columns() []any {
	return []any{&e.ID, &e.Lane, &e.Namespace, &e.Kind, &e.Key, &e.Payload, &e.Embedding, &e.Traceparent}
}

// What is read of an outbox row, o.
const (
	entryColumns  = `o.id, o.lane, o.namespace, o.kind, o.key, o.payload::text, o.embedding::text, ''`
	tracedColumns = `o.id, o.lane, o.namespace, o.kind, o.key, o.payload::text, o.embedding::text, coalesce(o.traceparent, '')`
)

func (s *store) entryColumns() string {
	if s.traced {
		return tracedColumns
	}
	return entryColumns
}

func scanEntries(rows pgx.Rows, into map[int64]entry) error {
	for rows.Next() {
		var e entry
		if err := rows.Scan(e.columns()...); err != nil {
			return err
		}
		into[e.ID] = e
	}
	return rows.Err()
}

// fill gives each batch its entries. A batch whose entries are gone cannot be pushed and must not be acknowledged.
func fill(batches []batch, entries map[int64]entry) error {
	for i := range batches {
		b := &batches[i]
		b.Entries = make([]entry, len(b.IDs))
		for j, id := range b.IDs {
			e, ok := entries[id]
			if !ok {
				return fmt.Errorf("lane %d, batch %d: entry %d is not in the outbox", b.Lane, b.Number, id)
			}
			b.Entries[j] = e
		}
	}
	return nil
}

// querier is a pool or a transaction.
type querier interface {
	QueryRow(ctx context.Context, sql string, args ...any) pgx.Row
	Query(ctx context.Context, sql string, args ...any) (pgx.Rows, error)
}

// laneRange is a part of a lane's log: the batches after Cursor, up to and without Before (0: no end).
type laneRange struct {
	Lane   int16
	Cursor int64
	Before int64
	AtMost int // batches; 0: no limit
}

// loadBatches reads the batches of a range in order, without their entries.
func (s *store) loadBatches(ctx context.Context, r laneRange) ([]batch, error) {
	rows, err := s.pool.Query(ctx, `
		select lane, number, entries, bytes, after_lanes, after_numbers
		from batches
		where lane = $1 and number > $2 and (number < $3 or $3 = 0)
		order by number
		limit nullif($4, 0)`, r.Lane, r.Cursor, r.Before, r.AtMost)
	if err != nil {
		return nil, fmt.Errorf("load lane %d: %w", r.Lane, err)
	}
	list, err := pgx.CollectRows(rows, func(row pgx.CollectableRow) (batch, error) {
		var (
			b            batch
			afterLanes   []int16
			afterNumbers []int64
		)
		err := row.Scan(&b.Lane, &b.Number, &b.IDs, &b.Bytes, &afterLanes, &afterNumbers)
		b.After = batchRefs(afterLanes, afterNumbers)
		return b, err
	})
	if err != nil {
		return nil, fmt.Errorf("load lane %d: %w", r.Lane, err)
	}
	return list, nil
}

// loadRanges reads the batches of the ranges in order, lane by lane, with their entries.
func (s *store) loadRanges(ctx context.Context, ranges []laneRange) ([]batch, error) {
	var all []batch
	for _, r := range ranges {
		list, err := s.loadBatches(ctx, r)
		if err != nil {
			return nil, err
		}
		all = append(all, list...)
	}
	return all, s.loadEntries(ctx, all)
}

func (s *store) loadEntries(ctx context.Context, batches []batch) error {
	var ids []int64
	for _, b := range batches {
		ids = append(ids, b.IDs...)
	}
	if len(ids) == 0 {
		return nil
	}
	entries := make(map[int64]entry, len(ids))
	rows, err := s.pool.Query(ctx, `select `+s.entryColumns()+` from outbox o where o.id = any ($1)`, ids)
	if err != nil {
		return fmt.Errorf("load entries: %w", err)
	}
	if err := scanEntries(rows, entries); err != nil {
		return fmt.Errorf("load entries: %w", err)
	}
	return fill(batches, entries)
}

// queryEntries reads the entries that meet a condition on the outbox, o.
func queryEntries(ctx context.Context, db querier, into map[int64]entry, condition string, args ...any) error {
	rows, err := db.Query(ctx, `select `+tracedColumns+` from outbox o where `+condition, args...)
	if err != nil {
		return fmt.Errorf("load entries: %w", err)
	}
	if err := scanEntries(rows, into); err != nil {
		return fmt.Errorf("load entries: %w", err)
	}
	return nil
}

// ballot is the verdict on one batch.
type ballot struct {
	Lane    int16
	Number  int64
	Verdict string
	Reason  string
	Acked   []string
	Needed  int
	Members int
}

// recordVerdicts writes verdicts down, once, and only while the fan-out's lease lasts.
func recordVerdicts(ctx context.Context, tx pgx.Tx, token int64, ballots []ballot, remaining time.Duration) error {
	n := len(ballots)
	lanes, numbers := make([]int16, n), make([]int64, n)
	verdicts, reasons, acked := make([]string, n), make([]string, n), make([]string, n)
	needed, members := make([]int16, n), make([]int16, n)
	for i, b := range ballots {
		lanes[i], numbers[i], verdicts[i], reasons[i] = b.Lane, b.Number, b.Verdict, b.Reason
		acked[i] = strings.Join(b.Acked, ",")                     // peer ids hold no comma
		needed[i], members[i] = int16(b.Needed), int16(b.Members) //nolint:gosec // at most 65 members
	}
	tag, err := tx.Exec(ctx, `
		update batches b
		set verdict = v.verdict, reason = v.reason, acked = coalesce(string_to_array(nullif(v.acked, ''), ','), '{}'),
		    needed = v.needed, members = v.members, deadline = clock_timestamp() + $9::interval, decided_at = clock_timestamp()
		from unnest($2::smallint[], $3::bigint[], $4::text[], $5::text[], $6::text[], $7::smallint[], $8::smallint[])
			v (lane, number, verdict, reason, acked, needed, members)
		where b.lane = v.lane and b.number = v.number
		  and b.fan_out = $1 and b.verdict = 'pending' and b.leased_until > clock_timestamp()`,
		token, lanes, numbers, verdicts, reasons, acked, needed, members, remaining)
	if err != nil {
		return fmt.Errorf("record verdicts: %w", err)
	}
	if tag.RowsAffected() != int64(n) {
		return fmt.Errorf("record verdicts: %w", errLeaseLost)
	}
	return nil
}
