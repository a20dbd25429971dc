package jobs

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgxpool"

	"quorumbox/outbox"
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
	After   *batchRef // a batch of another lane that a peer must have first
	Entries []entry   // in the order of IDs
}

type batchRef struct {
	Lane   int16
	Number int64
}

// peerLane names a peer's position in one lane.
type peerLane struct {
	Peer string
	Lane int16
}

func (a peerLane) compare(b peerLane) int {
	return cmp.Or(cmp.Compare(a.Peer, b.Peer), cmp.Compare(a.Lane, b.Lane))
}

// lag is a row of the table lagging.
type lag struct {
	peerLane
	Cursor   int64
	PushedTo int64         // a push must reach at least to this batch
	Held     bool          // leased to somebody now
	Wait     time.Duration // until not_before or the end of the lease; 0 or less: now
	Retry    int64         // 0 while a fan-out still waits for the answer
	Failures int
	Behind   int64 // entries that the peer misses, up to the lane's newest batch
	AtHead   bool  // the peer has the newest batch, which is not decided yet; known to a retry only
}

// free reports whether the row may be leased.
func (l lag) free() bool { return !l.Held && l.Wait <= 0 }

// store is the SQL of the jobs. Every statement that records is fenced by a token: batches.fan_out or lagging.holder.
type store struct {
	pool  *pgxpool.Pool
	lease time.Duration
}

// fanOutRows is what a fan-out needs to know before its first byte.
type fanOutRows struct {
	Batches []batch // by lane
	Lagging map[peerLane]lag
}

// loadFanOut reads the undecided batches of a fan-out. ok is false if their lease does not last for another need: then
// [reclaim] must be called before anything is pushed.
func (s *store) loadFanOut(ctx context.Context, fanOut int64, need time.Duration) (f fanOutRows, ok bool, err error) {
	f.Lagging = map[peerLane]lag{}
	ok = true
	entries := map[int64]entry{}

	var b pgx.Batch
	b.Queue(`
		select lane, number, entries, bytes, after_lane, after_number, leased_until > clock_timestamp() + $2::interval
		from batches
		where fan_out = $1 and verdict = 'pending'
		order by lane`, fanOut, need).Query(func(rows pgx.Rows) error {
		for rows.Next() {
			var (
				x           batch
				afterLane   *int16
				afterNumber *int64
				fresh       bool
			)
			if err := rows.Scan(&x.Lane, &x.Number, &x.IDs, &x.Bytes, &afterLane, &afterNumber, &fresh); err != nil {
				return err
			}
			if afterLane != nil {
				x.After = &batchRef{*afterLane, *afterNumber}
			}
			ok = ok && fresh
			f.Batches = append(f.Batches, x)
		}
		return rows.Err()
	})
	b.Queue(`
		select o.id, o.lane, o.namespace, o.kind, o.key, o.payload::text
		from batches b
		cross join lateral unnest(b.entries) e (id)
		join outbox o on o.id = e.id
		where b.fan_out = $1 and b.verdict = 'pending'`, fanOut).Query(func(rows pgx.Rows) error {
		return scanEntries(rows, entries)
	})
	b.Queue(`
		select `+lagColumns+`
		from lagging l
		where l.lane in (
			select unnest(array[lane, after_lane]) from batches where fan_out = $1 and verdict = 'pending'
		)`, fanOut).Query(func(rows pgx.Rows) error {
		return scanLags(rows, func(l lag) { f.Lagging[l.peerLane] = l })
	})
	if err := s.pool.SendBatch(ctx, &b).Close(); err != nil {
		return f, false, fmt.Errorf("load fan-out %d: %w", fanOut, err)
	}
	return f, ok, fill(f.Batches, entries)
}

const lagColumns = `
	l.peer, l.lane, l.cursor, l.pushed_to,
	l.leased_until is not null and l.leased_until > clock_timestamp(),
	greatest(l.not_before, l.leased_until) - clock_timestamp(),
	coalesce(l.retry, 0), l.failures,
	coalesce((select b.position from batches b where b.lane = l.lane order by b.number desc limit 1), 0)
		- coalesce((select b.position from batches b where b.lane = l.lane and b.number <= l.cursor order by b.number desc limit 1), 0)`

func scanLags(rows pgx.Rows, each func(lag)) error {
	var l lag
	_, err := pgx.ForEachRow(rows, []any{&l.Peer, &l.Lane, &l.Cursor, &l.PushedTo, &l.Held, &l.Wait, &l.Retry, &l.Failures, &l.Behind}, func() error {
		each(l)
		return nil
	})
	return err
}

func scanEntries(rows pgx.Rows, into map[int64]entry) error {
	for rows.Next() {
		var e entry
		if err := rows.Scan(&e.ID, &e.Lane, &e.Namespace, &e.Kind, &e.Key, &e.Payload); err != nil {
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

// reclaim moves a fan-out's undecided batches to a new token with a fresh lease and returns the token, 0 if nothing is left to do.
// Whoever holds the old token (an earlier attempt of the job that was given up for dead) records nothing any more.
func reclaim(ctx context.Context, db querier, fanOut int64, lease time.Duration) (int64, error) {
	var token int64
	err := db.QueryRow(ctx, `
		with token as materialized (
			select nextval('tokens') as id
		), moved as (
			update batches
			set fan_out = (select id from token), leased_until = clock_timestamp() + $2::interval
			where fan_out = $1 and verdict = 'pending'
			returning lane
		)
		select (select id from token) where exists (select from moved)`, fanOut, lease).Scan(&token)
	if errors.Is(err, pgx.ErrNoRows) {
		return 0, nil
	}
	if err != nil {
		return 0, fmt.Errorf("reclaim fan-out %d: %w", fanOut, err)
	}
	return token, nil
}

// querier is a pool or a transaction.
type querier interface {
	QueryRow(ctx context.Context, sql string, args ...any) pgx.Row
}

// pickUp leases lagging lanes to a fan-out that will push them from their cursor up to its own batch, and returns those that it got. A lane with a batch that must
// wait for another lane is left to the retry, which looks at that.
func (s *store) pickUp(ctx context.Context, token int64, want []advance) (map[peerLane]lag, error) {
	peers, lanes, numbers := splitAdvances(want)
	rows, err := s.pool.Query(ctx, `
		update lagging l
		set holder = $1, leased_until = clock_timestamp() + $2::interval, pushed_to = greatest(l.pushed_to, w.number)
		from unnest($3::text[], $4::smallint[], $5::bigint[]) w (peer, lane, number)
		where l.peer = w.peer and l.lane = w.lane
		  and (l.leased_until is null or l.leased_until < clock_timestamp()) and l.not_before <= clock_timestamp()
		  and not exists (select from batches b where b.lane = l.lane and b.number > l.cursor and b.after_lane is not null)
		returning `+lagColumns, token, s.lease, peers, lanes, numbers)
	if err != nil {
		return nil, fmt.Errorf("pick up lagging lanes: %w", err)
	}
	got := map[peerLane]lag{}
	if err := scanLags(rows, func(l lag) { got[l.peerLane] = l }); err != nil {
		return nil, fmt.Errorf("pick up lagging lanes: %w", err)
	}
	return got, nil
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
		select lane, number, entries, bytes, after_lane, after_number
		from batches
		where lane = $1 and number > $2 and (number < $3 or $3 = 0)
		order by number
		limit nullif($4, 0)`, r.Lane, r.Cursor, r.Before, r.AtMost)
	if err != nil {
		return nil, fmt.Errorf("load lane %d: %w", r.Lane, err)
	}
	list, err := pgx.CollectRows(rows, func(row pgx.CollectableRow) (batch, error) {
		var (
			b           batch
			afterLane   *int16
			afterNumber *int64
		)
		err := row.Scan(&b.Lane, &b.Number, &b.IDs, &b.Bytes, &afterLane, &afterNumber)
		if afterLane != nil {
			b.After = &batchRef{*afterLane, *afterNumber}
		}
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

// loadNext reads, lane by lane, what a lagging peer is pushed next: from each lane's cursor as many batches as items and bytes allow, but at least
// up to PushedTo, and never a batch that must wait for another lane. A lane that does not fit any more is left for the next round, whole.
func (s *store) loadNext(ctx context.Context, lanes []lag, most limits, waits func(batch) bool) ([]batch, error) {
	var chosen []batch
	items, size := 0, int64(0)
	for _, l := range lanes {
		list, err := s.loadBatches(ctx, laneRange{Lane: l.Lane, Cursor: l.Cursor, AtMost: max(most.items, int(l.PushedTo-l.Cursor))})
		if err != nil {
			return nil, err
		}
		taken, n, bytes := 0, 0, int64(0)
		for _, b := range list {
			if waits(b) {
				break
			}
			fits := items+n+len(b.IDs) <= most.items && size+bytes+b.Bytes <= int64(most.bytes)
			first := len(chosen) == 0 && taken == 0
			if !fits && !first && (b.Number > l.PushedTo || len(chosen) > 0) {
				break
			}
			taken++
			n += len(b.IDs)
			bytes += b.Bytes
		}
		if taken == 0 || list[taken-1].Number < l.PushedTo {
			continue
		}
		chosen = append(chosen, list[:taken]...)
		items += n
		size += bytes
		if items >= most.items {
			break
		}
	}
	return chosen, s.loadEntries(ctx, chosen)
}

func (s *store) loadEntries(ctx context.Context, batches []batch) error {
	var ids []int64
	for _, b := range batches {
		ids = append(ids, b.IDs...)
	}
	if len(ids) == 0 {
		return nil
	}
	rows, err := s.pool.Query(ctx, `select id, lane, namespace, kind, key, payload::text from outbox where id = any ($1)`, ids)
	if err != nil {
		return fmt.Errorf("load entries: %w", err)
	}
	entries := make(map[int64]entry, len(ids))
	if err := scanEntries(rows, entries); err != nil {
		return fmt.Errorf("load entries: %w", err)
	}
	return fill(batches, entries)
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

// behind is a peer that misses a batch.
type behind struct {
	peerLane
	Cursor   int64
	PushedTo int64
	Class    string
	Delay    time.Duration // before the first retry
	Fails    int32         // 1 if a push failed, 0 if none was tried
}

// recordBehind writes down that peers miss batches; a peer that was known to lag keeps its row. It returns the retries to insert.
func recordBehind(ctx context.Context, tx pgx.Tx, list []behind) ([]PeerRetryArgs, error) {
	if len(list) == 0 {
		return nil, nil
	}
	n := len(list)
	peers, lanes, cursors, classes := make([]string, n), make([]int16, n), make([]int64, n), make([]string, n)
	pushed := make([]int64, n)
	delays, fails := make([]time.Duration, n), make([]int32, n)
	for i, b := range list {
		peers[i], lanes[i], cursors[i], classes[i], delays[i], fails[i] = b.Peer, b.Lane, b.Cursor, b.Class, b.Delay, b.Fails
		pushed[i] = b.PushedTo
	}
	rows, err := tx.Query(ctx, `
		insert into lagging (peer, lane, cursor, pushed_to, retry, not_before, failures, last_class)
		select w.peer, w.lane, w.cursor, w.pushed_to, nextval('tokens'), clock_timestamp() + w.delay, w.fails, w.class
		from unnest($1::text[], $2::smallint[], $3::bigint[], $4::bigint[], $5::text[], $6::interval[], $7::int[])
			w (peer, lane, cursor, pushed_to, class, delay, fails)
		on conflict (peer, lane) do nothing
		returning peer, lane, retry`, peers, lanes, cursors, pushed, classes, delays, fails)
	if err != nil {
		return nil, fmt.Errorf("record lagging peers: %w", err)
	}
	return collectRetries(rows)
}

func collectRetries(rows pgx.Rows) ([]PeerRetryArgs, error) {
	retries, err := pgx.CollectRows(rows, pgx.RowToStructByPos[PeerRetryArgs])
	if err != nil {
		return nil, fmt.Errorf("record lagging peers: %w", err)
	}
	return retries, nil
}

// recordStragglers writes down, leased to the fan-out, the peers whose answer it still waits for, so that the lanes' next batches do not overtake it.
func (s *store) recordStragglers(ctx context.Context, tx pgx.Tx, token int64, list []behind, remaining time.Duration) error {
	n := len(list)
	peers, lanes, cursors, pushed := make([]string, n), make([]int16, n), make([]int64, n), make([]int64, n)
	for i, b := range list {
		peers[i], lanes[i], cursors[i], pushed[i] = b.Peer, b.Lane, b.Cursor, b.PushedTo
	}
	_, err := tx.Exec(ctx, `
		insert into lagging (peer, lane, cursor, pushed_to, holder, leased_until)
		select w.peer, w.lane, w.cursor, w.pushed_to, $1, clock_timestamp() + $6::interval
		from unnest($2::text[], $3::smallint[], $4::bigint[], $5::bigint[]) w (peer, lane, cursor, pushed_to)
		on conflict (peer, lane) do nothing`, token, peers, lanes, cursors, pushed, remaining+s.lease/2)
	if err != nil {
		return fmt.Errorf("record stragglers: %w", err)
	}
	return nil
}

// advance is a lane of a peer that acknowledged everything up to Cursor.
type advance struct {
	peerLane
	Cursor int64
}

// position is where a held lane is after its cursor was moved.
type position struct {
	peerLane
	Newer bool // there are batches after the cursor; otherwise the last one is not decided yet
}

// recordAdvances moves cursors of rows that token holds. A row whose cursor is the lane's newest batch is removed, unless that is undecided: its
// fan-out may not have begun, and must find that the peer has the batch already. The lanes are locked against the relay meanwhile, so that a
// fan-out that has seen a row and finds it gone knows that the peer has its batch: either the row's holder saw the batch too, or the
// fan-out would not have seen the row.
// The rows that stay are returned; they stay held. errLeaseLost if one of them is not token's any more.
func recordAdvances(ctx context.Context, tx pgx.Tx, token int64, list []advance) (still []position, err error) {
	if len(list) == 0 {
		return nil, nil
	}
	slices.SortFunc(list, func(a, b advance) int { return a.compare(b.peerLane) })
	peers, lanes, cursors := splitAdvances(list)
	if err := outbox.LockLanes(ctx, tx, lanes); err != nil {
		return nil, fmt.Errorf("record cursors: %w", err)
	}
	rows, err := tx.Query(ctx, `
		with w as (
			select w.*,
			       exists (select from batches b where b.lane = w.lane and b.number > w.cursor) as newer,
			       exists (select from batches b where b.lane = w.lane and b.verdict = 'pending') as undecided
			from unnest($2::text[], $3::smallint[], $4::bigint[]) w (peer, lane, cursor)
		), done as (
			delete from lagging l
			using w
			where l.peer = w.peer and l.lane = w.lane and l.holder = $1 and l.leased_until > clock_timestamp()
			  and not w.newer and not w.undecided
			returning l.peer, l.lane
		), moved as (
			update lagging l
			set cursor = w.cursor, pushed_to = greatest(l.pushed_to, w.cursor), failures = 0, last_class = ''
			from w
			where l.peer = w.peer and l.lane = w.lane and l.holder = $1 and l.leased_until > clock_timestamp()
			  and (w.newer or w.undecided)
			returning l.peer, l.lane, w.newer
		)
		select peer, lane, false, false from done
		union all
		select peer, lane, true, newer from moved`, token, peers, lanes, cursors)
	if err != nil {
		return nil, fmt.Errorf("record cursors: %w", err)
	}
	var (
		at    position
		stays bool
		seen  int
	)
	_, err = pgx.ForEachRow(rows, []any{&at.Peer, &at.Lane, &stays, &at.Newer}, func() error {
		seen++
		if stays {
			still = append(still, at)
		}
		return nil
	})
	if err != nil {
		return nil, fmt.Errorf("record cursors: %w", err)
	}
	if seen != len(list) {
		return nil, fmt.Errorf("record cursors: %w", errLeaseLost)
	}
	return still, nil
}

// release is a held row that is given back.
type release struct {
	peerLane
	Class string        // what stopped it; "" after success
	Delay time.Duration // before the next attempt
	Fails int32         // 1 if a push failed, 0 after success
}

// recordReleases gives rows back that token holds. Rows that no job carries yet get a retry; those are returned. A row whose lease ended meanwhile
// is left alone: the sweeper or its new holder looks after it.
func recordReleases(ctx context.Context, tx pgx.Tx, token int64, list []release) ([]PeerRetryArgs, error) {
	if len(list) == 0 {
		return nil, nil
	}
	n := len(list)
	peers, lanes, classes := make([]string, n), make([]int16, n), make([]string, n)
	delays, fails := make([]time.Duration, n), make([]int32, n)
	for i, r := range list {
		peers[i], lanes[i], classes[i], delays[i], fails[i] = r.Peer, r.Lane, r.Class, r.Delay, r.Fails
	}
	rows, err := tx.Query(ctx, `
		with w (peer, lane, class, delay, fails) as (
			select * from unnest($2::text[], $3::smallint[], $4::text[], $5::interval[], $6::int[])
		), old as (
			select l.peer, l.lane, l.retry is null as orphan
			from lagging l
			join w using (peer, lane)
			where l.holder = $1
			for update of l
		), freed as (
			update lagging l
			set holder = null, leased_until = null, not_before = clock_timestamp() + w.delay, failures = l.failures + w.fails,
			    last_class = w.class, retry = coalesce(l.retry, nextval('tokens'))
			from w
			join old using (peer, lane)
			where l.peer = w.peer and l.lane = w.lane
			returning l.peer, l.lane, l.retry, old.orphan
		)
		select peer, lane, retry from freed where orphan`, token, peers, lanes, classes, delays, fails)
	if err != nil {
		return nil, fmt.Errorf("release lanes: %w", err)
	}
	return collectRetries(rows)
}

// recordErrors notes what a peer failed with, at most once a second and class for each.
func recordErrors(ctx context.Context, tx pgx.Tx, classes map[string]string) error {
	peers := make([]string, 0, len(classes))
	for p := range classes {
		peers = append(peers, p)
	}
	slices.Sort(peers) // one order of locks for all
	for _, p := range peers {
		_, err := tx.Exec(ctx, `
			update peers
			set last_error_class = $2, last_error_at = now()
			where id = $1 and (last_error_class <> $2 or last_error_at is null or last_error_at < now() - interval '1 second')`, p, classes[p])
		if err != nil {
			return fmt.Errorf("record errors of peers: %w", err)
		}
	}
	return nil
}

// claimLanes leases the lagging lane of a retry and, with it, every other lane of the peer that is free: they go in one push.
// own is the row of the retry itself, nil if it is out of date. Nothing is leased unless own is.
func (s *store) claimLanes(ctx context.Context, args PeerRetryArgs, lease time.Duration) (own *lag, token int64, lanes []lag, err error) {
	err = pgx.BeginFunc(ctx, s.pool, func(tx pgx.Tx) error {
		rows, err := tx.Query(ctx, `select `+lagColumns+` from lagging l where l.peer = $1 and l.lane = $2 for update`, args.Peer, args.Lane)
		if err != nil {
			return err
		}
		if err := scanLags(rows, func(l lag) { own = &l }); err != nil {
			return err
		}
		if own == nil || own.Retry != args.Retry {
			own = nil
			return nil
		}
		if !own.free() {
			return nil
		}
		if err := tx.QueryRow(ctx, `select nextval('tokens')`).Scan(&token); err != nil {
			return err
		}
		rows, err = tx.Query(ctx, `
			with free as (
				select peer, lane
				from lagging
				where peer = $2 and (lane = $3 or
					((leased_until is null or leased_until < clock_timestamp()) and not_before <= clock_timestamp() and retry is not null))
				for update skip locked
			)
			update lagging l
			set holder = $1, leased_until = clock_timestamp() + $4::interval
			from free
			where l.peer = free.peer and l.lane = free.lane
			returning `+lagColumns, token, args.Peer, args.Lane, lease)
		if err != nil {
			return err
		}
		return scanLags(rows, func(l lag) { lanes = append(lanes, l) })
	})
	if err != nil {
		return nil, 0, nil, fmt.Errorf("claim lagging lanes of %s: %w", args, err)
	}
	slices.SortFunc(lanes, func(a, b lag) int { return int(a.Lane) - int(b.Lane) })
	return own, token, lanes, nil
}

// announce notes how far a holder is about to push its lanes, and gives it another lease. errLeaseLost if one of them is gone.
func (s *store) announce(ctx context.Context, token int64, upTo []advance, lease time.Duration) error {
	peers, lanes, numbers := splitAdvances(upTo)
	tag, err := s.pool.Exec(ctx, `
		update lagging l
		set pushed_to = greatest(l.pushed_to, w.number), leased_until = clock_timestamp() + $5::interval
		from unnest($2::text[], $3::smallint[], $4::bigint[]) w (peer, lane, number)
		where l.peer = w.peer and l.lane = w.lane and l.holder = $1 and l.leased_until > clock_timestamp()`,
		token, peers, lanes, numbers, lease)
	if err != nil {
		return fmt.Errorf("announce a push: %w", err)
	}
	if tag.RowsAffected() != int64(len(upTo)) {
		return fmt.Errorf("announce a push: %w", errLeaseLost)
	}
	return nil
}

func splitAdvances(list []advance) (peers []string, lanes []int16, numbers []int64) {
	for _, a := range list {
		peers = append(peers, a.Peer)
		lanes = append(lanes, a.Lane)
		numbers = append(numbers, a.Cursor)
	}
	return peers, lanes, numbers
}

// claimMore leases to a holder the peer's other lagging lanes that nobody holds, also those that are left alone after a failure: the peer answers again.
func (s *store) claimMore(ctx context.Context, token int64, p string, lease time.Duration) (lanes []lag, err error) {
	rows, err := s.pool.Query(ctx, `
		with free as (
			select peer, lane
			from lagging
			where peer = $2 and (leased_until is null or leased_until < clock_timestamp()) and retry is not null
			for update skip locked
		)
		update lagging l
		set holder = $1, leased_until = clock_timestamp() + $3::interval
		from free
		where l.peer = free.peer and l.lane = free.lane
		returning `+lagColumns, token, p, lease)
	if err != nil {
		return nil, fmt.Errorf("claim more lanes of %s: %w", p, err)
	}
	if err := scanLags(rows, func(l lag) { lanes = append(lanes, l) }); err != nil {
		return nil, fmt.Errorf("claim more lanes of %s: %w", p, err)
	}
	return lanes, nil
}

// cursors returns the lagging lanes of a peer.
func (s *store) cursors(ctx context.Context, p string) (map[peerLane]lag, error) {
	rows, err := s.pool.Query(ctx, `select `+lagColumns+` from lagging l where l.peer = $1`, p)
	if err != nil {
		return nil, fmt.Errorf("read lagging lanes of %s: %w", p, err)
	}
	got := map[peerLane]lag{}
	if err := scanLags(rows, func(l lag) { got[l.peerLane] = l }); err != nil {
		return nil, fmt.Errorf("read lagging lanes of %s: %w", p, err)
	}
	return got, nil
}
