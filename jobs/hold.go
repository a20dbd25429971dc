package jobs

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"sync"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/riverqueue/river"

	"quorumbox/internal/fault"
	"quorumbox/outbox"
)

// hold is a lane of a peer that is kept from everybody else while something beside the log is pushed to it: an entry that was refused, or a repair.
type hold struct {
	peerLane
	token  int64
	cursor int64 // what the peer has
	head   int64 // the newest batch: cursor, or the one after it that was not decided when the lane was taken, and that somebody may be pushing
}

// takeLane holds a lane in which the peer is in step. ok is false if it lags there. The peer gets a row in lagging for as long as that lasts, so that
// what depends on the lane waits in the other lanes, too.
func (s *store) takeLane(ctx context.Context, tx pgx.Tx, at peerLane) (h hold, ok bool, err error) {
	if err := outbox.LockLanes(ctx, tx, []int16{at.Lane}); err != nil {
		return h, false, err
	}
	h.peerLane = at
	err = tx.QueryRow(ctx, `
		insert into lagging (peer, lane, cursor, pushed_to, holder, leased_until)
		select $1, $2, coalesce(case when b.verdict = 'pending' then b.number - 1 else b.number end, 0), coalesce(b.number, 0), nextval('tokens'),
		       clock_timestamp() + $3::interval
		from (select) one
		left join lateral (select b.number, b.verdict from batches b where b.lane = $2 order by b.number desc limit 1) b on true
		on conflict (peer, lane) do nothing
		returning holder, cursor, pushed_to`, at.Peer, at.Lane, retryLease).Scan(&h.token, &h.cursor, &h.head)
	if errors.Is(err, pgx.ErrNoRows) {
		return h, false, nil
	}
	if err != nil {
		return h, false, fmt.Errorf("hold lane %d of %s: %w", at.Lane, at.Peer, err)
	}
	return h, true, nil
}

const (
	// decidedSoon is how long a holder waits for the verdict of the batch that was undecided when it took the lane, and lookAgain how often it looks.
	decidedSoon = 250 * time.Millisecond
	lookAgain   = 5 * time.Millisecond
)

// awaitHead waits a little for the verdict of the batch that was undecided when the lane was taken. If the peer acknowledged it, the holder may go on from there;
// otherwise it is pushed again when the lane is given back.
func (s *store) awaitHead(ctx context.Context, h *hold) error {
	if h.head == h.cursor {
		return nil
	}
	ctx, cancel := context.WithTimeout(ctx, decidedSoon)
	defer cancel()
	ticker := time.NewTicker(lookAgain)
	defer ticker.Stop()
	for {
		var decided, acked bool
		err := s.pool.QueryRow(ctx, `select verdict <> 'pending', $3 = any (acked) from batches where lane = $1 and number = $2`, h.Lane, h.head, h.Peer).
			Scan(&decided, &acked)
		if ctx.Err() != nil {
			return nil // not decided yet, which is no error
		}
		if err != nil {
			return fmt.Errorf("look at batch %d of lane %d: %w", h.head, h.Lane, err)
		}
		if decided {
			if acked {
				h.cursor = h.head
			}
			return nil
		}
		select {
		case <-ctx.Done():
			return nil
		case <-ticker.C:
		}
	}
}

// giveBack ends the hold in tx, after delay. errLeaseLost if the lane is somebody else's by now. A batch that somebody else may be pushing is not
// pushed again, nor overtaken, before that push has ended.
func (s *store) giveBack(ctx context.Context, tx pgx.Tx, h hold, delay time.Duration) error {
	still, err := recordAdvances(ctx, tx, h.token, []advance{{peerLane: h.peerLane, Cursor: h.cursor}})
	if err != nil || len(still) == 0 {
		return err
	}
	if h.cursor < h.head {
		delay = max(delay, s.lease)
	}
	retries, err := recordReleases(ctx, tx, h.token, []release{{peerLane: h.peerLane, Delay: delay}})
	if err != nil {
		return err
	}
	return insertRetries(ctx, river.ClientFromContext[pgx.Tx](ctx), tx, retries)
}

// keepLease renews the leases of lanes until stop is called, which must be. The context it returns ends, with a cause, when one of them is lost.
func (s *store) keepLease(ctx context.Context, token int64, upTo []advance) (leased context.Context, stop func()) {
	upTo = slices.Clone(upTo)
	return keepRenewing(ctx, func(ctx context.Context) error { return s.announce(ctx, token, upTo, retryLease) })
}

// keepRenewing calls renew now and then until stop is called, which must be. The context it returns ends, with a cause, when renew has failed.
func keepRenewing(ctx context.Context, renew func(context.Context) error) (leased context.Context, stop func()) {
	leased, giveUp := context.WithCancelCause(ctx)
	done := make(chan struct{})
	var renewing sync.WaitGroup
	renewing.Go(func() {
		ticker := time.NewTicker(renewEvery)
		defer ticker.Stop()
		for {
			select {
			case <-done:
				return
			case <-leased.Done():
				return
			case <-ticker.C:
			}
			if err := renew(leased); err != nil && leased.Err() == nil {
				giveUp(err)
				return
			}
			fault.Hit(fault.LeaseRenewed)
		}
	})
	return leased, func() {
		close(done)
		renewing.Wait()
		giveUp(nil)
	}
}
