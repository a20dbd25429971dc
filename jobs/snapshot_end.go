package jobs

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"slices"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/riverqueue/river"

	"quorumbox/internal/fault"
	"quorumbox/outbox"
)

const (
	// restEntries and restBytes bound what is left of the log in the end and pushed at once.
	restEntries = 5 * changesLeft
	restBytes   = 16 << 20
)

// end lets the peer follow the log, once all that the snapshot may have read is dispatched. What is left until there is pushed as one range of all
// lanes, so that nothing of it is sent that a later entry of it supersedes, which the peer may have already (ADR 7). The lanes cannot do that one by
// one, because each may have to wait for the others in the middle of its part.
func (s *snapshot) end(ctx, leased context.Context) (time.Duration, error) {
	err := s.awaitDispatch(leased)
	if errors.Is(err, errNotDispatched) {
		return s.giveBack(ctx, time.Second)
	}
	if err != nil {
		return 0, err
	}
	rest, err := s.loadRest(leased)
	if err != nil {
		return 0, err
	}
	d := s.send(leased, rest)
	switch {
	case d.err != nil && leased.Err() != nil:
		return 0, context.Cause(leased)
	case d.err != nil:
		return s.failed(ctx, d)
	}
	fault.Hit(fault.SnapshotComplete)
	var behind int
	err = pgx.BeginFunc(ctx, s.store.pool, func(tx pgx.Tx) error {
		retries, err := s.unpark(ctx, tx, d)
		if err != nil {
			return err
		}
		behind = len(retries)
		return insertRetries(ctx, river.ClientFromContext[pgx.Tx](ctx), tx, retries)
	})
	if err != nil {
		return 0, fmt.Errorf("snapshot for %s: %w", s.peer, err)
	}
	s.ended = true
	s.cfg.tellRefusals(ctx, s.peer, d.refused)
	s.cfg.Logger.InfoContext(ctx, "peer has the current state and follows the log", slog.String("peer", s.peer),
		slog.Int64("pushed", s.row.Pushed), slog.Int("lanes_behind", behind), slog.Duration("took", s.row.Since))
	return 0, nil
}

// loadRest is the batches that are left in all lanes. There are none if they are too many, which is so if writers are quicker than this, or if an
// application keeps things in tables of its own: then the lanes' retries push them.
func (s *snapshot) loadRest(ctx context.Context) (rest shipment, err error) {
	lags, err := s.store.cursors(ctx, s.peer)
	if err != nil {
		return rest, err
	}
	entries := int64(0)
	var ranges []laneRange
	for at, l := range lags {
		if l.Behind > 0 {
			entries += l.Behind
			ranges = append(ranges, laneRange{Lane: at.Lane, Cursor: l.Cursor, AtMost: 2 * restEntries})
		}
	}
	if entries > restEntries {
		return rest, nil
	}
	var batches []batch
	bytes := int64(0)
	for _, r := range ranges {
		list, err := s.store.loadBatches(ctx, r)
		if err != nil {
			return rest, err
		}
		for _, b := range list {
			bytes += b.Bytes
		}
		batches = append(batches, list...)
	}
	if bytes > restBytes {
		return rest, nil
	}
	if err := s.store.loadEntries(ctx, batches); err != nil {
		return rest, err
	}
	without, err := s.store.refusedOf(ctx, s.peer, batches)
	if err != nil {
		return rest, err
	}
	// An entry that needs another one, in whatever lane, has the larger id.
	var all batch
	for _, b := range batches {
		all.Entries = append(all.Entries, b.Entries...)
	}
	slices.SortFunc(all.Entries, func(a, b entry) int { return cmp.Compare(a.ID, b.ID) })
	rest = pack([]batch{all}, without, s.cfg.SenderID, s.cfg.limits)
	rest.batches = batches
	return rest, nil
}

// errNotDispatched says that something waits for dispatch for longer than a job should wait for it: no relay runs, or fan-outs are paused.
var errNotDispatched = errors.New("older entries are not dispatched yet")

// awaitDispatch waits a little until everything is dispatched that is older than this phase. [errNotDispatched].
func (s *snapshot) awaitDispatch(ctx context.Context) error {
	ctx, cancel := context.WithTimeoutCause(ctx, s.cfg.RetryBudget, errNotDispatched)
	defer cancel()
	ticker := time.NewTicker(lookAgain)
	defer ticker.Stop()
	for {
		done, err := s.dispatched(ctx)
		if ctx.Err() != nil {
			return context.Cause(ctx)
		}
		if err != nil || done {
			return err
		}
		select {
		case <-ctx.Done():
			return context.Cause(ctx)
		case <-ticker.C:
		}
	}
}

// dispatched reports whether no entry waits for dispatch that is older than this phase.
func (s *snapshot) dispatched(ctx context.Context) (done bool, err error) {
	err = s.store.pool.QueryRow(ctx, `
		select not exists (
			select from generate_series(0, $2::smallint - 1) f (lane)
			cross join lateral (select u.entry from undispatched u where u.lane = f.lane order by u.entry limit 1) u
			join outbox o on o.id = u.entry
			where o.created_at <= (select phase_at from snapshots where peer = $1)
		)`, s.peer, outbox.Lanes).Scan(&done)
	if err != nil {
		return false, fmt.Errorf("snapshot for %s: look for undispatched entries: %w", s.peer, err)
	}
	return done, nil
}

// unpark ends the snapshot, of which the rest was delivered: lanes in which nothing is missing are in step, the others get retries.
func (s *snapshot) unpark(ctx context.Context, tx pgx.Tx, rest delivery) ([]PeerRetryArgs, error) {
	if err := outbox.LockLanes(ctx, tx, allLanes()); err != nil {
		return nil, err
	}
	tag, err := tx.Exec(ctx, `delete from snapshots where peer = $1 and holder = $2 and leased_until > clock_timestamp()`, s.peer, s.token)
	if err != nil {
		return nil, err
	}
	if tag.RowsAffected() == 0 {
		return nil, errLeaseLost
	}
	if err := s.advance(ctx, tx, rest); err != nil {
		return nil, err
	}
	_, err = tx.Exec(ctx, `
		delete from lagging l
		where l.peer = $1 and not exists (select from batches b where b.lane = l.lane and (b.number > l.cursor or b.verdict = 'pending'))`, s.peer)
	if err != nil {
		return nil, err
	}
	rows, err := tx.Query(ctx, `
		update lagging set retry = nextval('tokens'), not_before = clock_timestamp() where peer = $1 returning peer, lane, retry`, s.peer)
	if err != nil {
		return nil, err
	}
	return collectRetries(rows)
}

// advance moves the cursors past what was delivered.
func (s *snapshot) advance(ctx context.Context, tx pgx.Tx, rest delivery) error {
	first, last := map[int16]int64{}, map[int16]int64{}
	for _, b := range rest.shipment.batches {
		if _, ok := first[b.Lane]; !ok {
			first[b.Lane] = b.Number
		}
		last[b.Lane] = b.Number
	}
	var doubts []doubt
	for lane, number := range last {
		_, err := tx.Exec(ctx, `update lagging set cursor = $3, pushed_to = greatest(pushed_to, $3) where peer = $1 and lane = $2`, s.peer, lane, number)
		if err != nil {
			return err
		}
		if rest.inDoubt {
			doubts = append(doubts, doubt{peerLane{s.peer, lane}, first[lane] - 1, number})
		}
	}
	if err := s.store.recordDoubts(ctx, tx, doubts); err != nil {
		return err
	}
	return s.cfg.recordRefusals(ctx, tx, s.peer, rest.refused)
}
