package jobs

import (
	"cmp"
	"context"
	"fmt"
	"slices"
	"time"

	"github.com/jackc/pgx/v5"

	"quorumbox/internal/fault"
	"quorumbox/internal/peer"
	"quorumbox/outbox"
)

// peerLane names a peer's position in one lane.
type peerLane struct {
	Peer string
	Lane int16
}

func (a peerLane) String() string { return fmt.Sprintf("peer %s, lane %d", a.Peer, a.Lane) }

func (a peerLane) compare(b peerLane) int {
	return cmp.Or(cmp.Compare(a.Peer, b.Peer), cmp.Compare(a.Lane, b.Lane))
}

// lag is a row of the table lagging.
type lag struct {
	peerLane
	Cursor   int64
	PushedTo int64         // a push must reach at least to this batch
	Held     bool          // leased to somebody; if that lease ran out, until the sweeper or a retry ends it (expire)
	Wait     time.Duration // until not_before or the end of the lease; 0 or less: now
	Retry    int64         // 0 while a fan-out still waits for the answer
	Failures int
	Behind   int64      // entries that the peer misses, up to the lane's newest batch
	Class    peer.Class // of the last failure, "" if there was none since the peer answered
	Paused   bool       // an operator has paused the peer

	// Suspicions is how often, since the cursor moved, pushes of the lane have broken the peer.
	Suspicions int

	AtHead bool // the peer has the newest batch, which is not decided yet; known to a retry only
}

// free reports whether the row may be leased by a retry.
func (l lag) free() bool { return !l.Held && l.Wait <= 0 && !l.Paused }

// expired reports whether the lease ran out and nobody has ended it yet.
func (l lag) expired() bool { return l.Held && l.Wait <= 0 }

// ready reports whether the row may be leased by a fan-out, too: whether a peer that failed is back is found out by its retries.
func (l lag) ready() bool {
	failed := ofPeer(l.Class) && l.Failures > 1 || away(l.Class)
	return l.free() && !failed
}

const lagColumns = `
	l.peer, l.lane, l.cursor, l.pushed_to,
	l.leased_until is not null,
	greatest(l.not_before, l.leased_until) - clock_timestamp(),
	coalesce(l.retry, 0), l.failures,
	coalesce((select b.position from batches b where b.lane = l.lane order by b.number desc limit 1), 0)
		- coalesce((select b.position from batches b where b.lane = l.lane and b.number <= l.cursor order by b.number desc limit 1), 0),
	l.last_class, l.suspicions, ` + pausedPeer

func scanLags(rows pgx.Rows, each func(lag)) error {
	var l lag
	into := []any{&l.Peer, &l.Lane, &l.Cursor, &l.PushedTo, &l.Held, &l.Wait, &l.Retry, &l.Failures, &l.Behind, &l.Class, &l.Suspicions, &l.Paused}
	_, err := pgx.ForEachRow(rows, into, func() error {
		each(l)
		return nil
	})
	return err
}

// pickUp leases lagging lanes to a fan-out that will push them from their cursor up to its own batch, and returns those that it got. A lane with a batch that must
// wait for another one, which the peer misses, is left alone, and so are the lanes of a peer that is paused or failed.
func (s *store) pickUp(ctx context.Context, token int64, want []advance) (map[peerLane]lag, error) {
	peers, lanes, numbers := splitAdvances(want)
	rows, err := s.pool.Query(ctx, `
		update lagging l
		set holder = $1, leased_until = clock_timestamp() + $2::interval, pushed_to = greatest(l.pushed_to, w.number)
		from unnest($3::text[], $4::smallint[], $5::bigint[]) w (peer, lane, number)
		where l.peer = w.peer and l.lane = w.lane
		  and l.leased_until is null and l.not_before <= clock_timestamp()
		  and not (l.last_class = any ($6) and (l.failures > 1 or l.last_class = any ($7))) and not `+pausedPeer+`
		  and not exists (
			select
			from (
				select b.after_lanes, b.after_numbers
				from batches b
				where b.lane = l.lane and b.number > l.cursor and b.after_lanes is not null
				offset 0 -- keep it apart: as a join it would read every batch there is
			) b
			cross join lateral unnest(b.after_lanes, b.after_numbers) first (lane, number)
			join lagging x on x.peer = l.peer and x.lane = first.lane and x.cursor < first.number
		)
		returning `+lagColumns, token, s.lease, peers, lanes, numbers, peerClasses(), awayClasses())
	if err != nil {
		return nil, fmt.Errorf("pick up lagging lanes: %w", err)
	}
	got := map[peerLane]lag{}
	if err := scanLags(rows, func(l lag) { got[l.peerLane] = l }); err != nil {
		return nil, fmt.Errorf("pick up lagging lanes: %w", err)
	}
	return got, nil
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

// recordBehind writes down that peers miss batches; a peer that was known to lag keeps its row. A lane of a peer that is left alone is left alone with the
// others. It returns the retries to insert.
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
		select w.peer, w.lane, w.cursor, w.pushed_to, nextval('tokens'), greatest(clock_timestamp() + w.delay, h.not_before),
		       greatest(w.fails, h.failures), coalesce(nullif(w.class, ''), h.class, '')
		from unnest($1::text[], $2::smallint[], $3::bigint[], $4::bigint[], $5::text[], $6::interval[], $7::int[])
			w (peer, lane, cursor, pushed_to, class, delay, fails)
		cross join lateral (
			select max(x.not_before) as not_before, max(x.failures) as failures, max(x.last_class) as class
			from lagging x
			where x.peer = w.peer and x.last_class = any ($8) and (x.failures > 1 or x.last_class = any ($9))
		) h
		on conflict (peer, lane) do nothing
		returning peer, lane, retry`, peers, lanes, cursors, pushed, classes, delays, fails, peerClasses(), awayClasses())
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

// recordStragglers writes down, leased to the fan-out, the peers whose answer it still waits for, so that the lanes' next batches do not overtake it. It
// returns the lanes that are the fan-out's now: not those that somebody holds for another purpose, after which the batch is pushed again.
func (s *store) recordStragglers(ctx context.Context, tx pgx.Tx, token int64, list []behind, remaining time.Duration) (ours []peerLane, err error) {
	n := len(list)
	peers, lanes, cursors, pushed := make([]string, n), make([]int16, n), make([]int64, n), make([]int64, n)
	for i, b := range list {
		peers[i], lanes[i], cursors[i], pushed[i] = b.Peer, b.Lane, b.Cursor, b.PushedTo
	}
	rows, err := tx.Query(ctx, `
		insert into lagging (peer, lane, cursor, pushed_to, holder, leased_until)
		select w.peer, w.lane, w.cursor, w.pushed_to, $1, clock_timestamp() + $6::interval
		from unnest($2::text[], $3::smallint[], $4::bigint[], $5::bigint[]) w (peer, lane, cursor, pushed_to)
		on conflict (peer, lane) do nothing
		returning peer, lane`, token, peers, lanes, cursors, pushed, remaining+s.lease/2)
	if err != nil {
		return nil, fmt.Errorf("record stragglers: %w", err)
	}
	if ours, err = pgx.CollectRows(rows, pgx.RowToStructByPos[peerLane]); err != nil {
		return nil, fmt.Errorf("record stragglers: %w", err)
	}
	return ours, nil
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
// fan-out may not have begun, and must find that the peer has the batch already. Lanes without newer batches are locked against the relay meanwhile, so that a
// fan-out that has seen a row and finds it gone knows that the peer has its batch: either the row's holder saw the batch too, or the
// fan-out would not have seen the row. In the others the row stays whatever the relay does, which a peer that catches up would keep waiting a lot.
// The rows that stay are returned; they stay held. errLeaseLost if one of them is not token's any more.
func recordAdvances(ctx context.Context, tx pgx.Tx, token int64, list []advance) (still []position, err error) {
	if len(list) == 0 {
		return nil, nil
	}
	slices.SortFunc(list, func(a, b advance) int { return a.compare(b.peerLane) })
	peers, lanes, cursors := splitAdvances(list)
	if err := outbox.LockHeads(ctx, tx, lanes, cursors); err != nil {
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
			set cursor = w.cursor, pushed_to = greatest(l.pushed_to, w.cursor), failures = 0, last_class = '', suspicions = 0
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
	Class string        // what stopped it; "" if nothing did, or nothing was tried
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
			    last_class = coalesce(nullif(w.class, ''), l.last_class), retry = coalesce(l.retry, nextval('tokens')),
			    suspicions = l.suspicions + case when w.class = any ($7) then w.fails else 0 end
			from w
			join old using (peer, lane)
			where l.peer = w.peer and l.lane = w.lane
			returning l.peer, l.lane, l.retry, old.orphan
		)
		select peer, lane, retry from freed where orphan`, token, peers, lanes, classes, delays, fails, breakingClasses())
	if err != nil {
		return nil, fmt.Errorf("release lanes: %w", err)
	}
	return collectRetries(rows)
}

// clearSuspicions forgets what was suspected of the lanes of a holder: an entry was found that explains it.
func clearSuspicions(ctx context.Context, tx pgx.Tx, token int64) error {
	if _, err := tx.Exec(ctx, `update lagging set suspicions = 0 where holder = $1 and suspicions > 0`, token); err != nil {
		return fmt.Errorf("clear suspicions: %w", err)
	}
	return nil
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

// claimLanes leases the lagging lane of a retry and, with it, every other lane of the peer that is free: they go in one push. Of a peer that failed only
// the retry's own lane is leased, to find out whether it is back, and the others are left alone for the time of probe.
// own is the row of the retry itself, nil if it is out of date. Nothing is leased unless own is.
func (s *store) claimLanes(ctx context.Context, args PeerRetryArgs, lease, probe time.Duration) (own *lag, token int64, lanes []lag, err error) {
	// Most retries find that their lane is in step or held, and need not wait for each other to see that.
	own, err = s.ownLag(ctx, s.pool, args, "")
	if err != nil {
		return nil, 0, nil, fmt.Errorf("claim lagging lanes of %s: %w", args, err)
	}
	if own == nil || !own.free() && !own.expired() {
		return own, 0, nil, nil
	}
	err = pgx.BeginFunc(ctx, s.pool, func(tx pgx.Tx) error {
		if err := lockProbes(ctx, tx, args.Peer); err != nil {
			return err
		}
		if _, err := s.expire(ctx, tx, []string{args.Peer}); err != nil {
			return err
		}
		if own, err = s.ownLag(ctx, tx, args, "for update"); err != nil || own == nil {
			return err
		}
		if !own.free() {
			return nil
		}
		if err := tx.QueryRow(ctx, `select nextval('tokens')`).Scan(&token); err != nil {
			return err
		}
		if ofPeer(own.Class) {
			if err := setBack(ctx, tx, args.Peer, setback{delay: probe}); err != nil {
				return err
			}
		}
		rows, err := tx.Query(ctx, `
			with free as (
				select peer, lane
				from lagging
				where peer = $2 and leased_until is null and (lane = $3 or (not_before <= clock_timestamp() and retry is not null))
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
		if err := scanLags(rows, func(l lag) { lanes = append(lanes, l) }); err != nil {
			return err
		}
		fault.Hit(fault.RetryClaiming)
		return nil
	})
	if err != nil {
		return nil, 0, nil, fmt.Errorf("claim lagging lanes of %s: %w", args, err)
	}
	slices.SortFunc(lanes, func(a, b lag) int { return int(a.Lane) - int(b.Lane) })
	return own, token, lanes, nil
}

// ownLag reads the row of a retry, nil if it is gone or carries another one.
func (s *store) ownLag(ctx context.Context, db querier, args PeerRetryArgs, lock string) (own *lag, err error) {
	rows, err := db.Query(ctx, `select `+lagColumns+` from lagging l where l.peer = $1 and l.lane = $2 and l.retry = $3 `+lock, args.Peer, args.Lane, args.Retry)
	if err != nil {
		return nil, err
	}
	err = scanLags(rows, func(l lag) { own = &l })
	return own, err
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
			where peer = $2 and leased_until is null and retry is not null
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
