package jobs

import (
	"context"
	"errors"
	"log/slog"
	"slices"
	"time"

	"github.com/jackc/pgx/v5"

	"quorumbox/internal/fault"
	"quorumbox/internal/peer"
)

// awaitRow is how often a leg looks whether a lane that somebody else is pushing has been given back.
const awaitRow = 5 * time.Millisecond

// wait looks after lanes that somebody else was pushing, or that must have another lane's batch first, until each is decided: the row is gone or past
// this batch (the peer has it), has been given back (then this fan-out pushes it from its cursor), is left alone for a while, is not needed any more, or
// the deadline has come.
func (f *fanOut) wait(ctx context.Context, l *leg) {
	left := slices.Clone(l.waits)
	ticker := time.NewTicker(awaitRow)
	defer ticker.Stop()
	for len(left) > 0 {
		select {
		case <-ctx.Done():
			for _, lane := range left {
				l.results = append(l.results, legResult{legLane: lane, err: context.Cause(ctx)})
			}
			return
		case <-f.enough:
			for _, lane := range left {
				l.results = append(l.results, legResult{legLane: lane, err: errLeftAlone})
			}
			return
		case <-ticker.C:
		}
		rows, err := f.store.cursors(ctx, l.peer)
		if err != nil {
			continue // the database is asked again until the deadline
		}
		left = slices.DeleteFunc(left, func(lane legLane) bool {
			b := f.batches[lane.ballot]
			row, lagging := rows[peerLane{l.peer, b.Lane}]
			switch {
			case !lagging || row.Cursor >= b.Number:
				refused, err := f.refuses(ctx, l.peer, b)
				if err != nil {
					return false
				}
				lane.refusedBefore = refused
				l.results = append(l.results, legResult{legLane: lane})
				return true
			case row.Held:
				return false
			case !row.near() || row.Retry == 0 || !comes(rows, l.peer, b.After):
				l.results = append(l.results, legResult{legLane: lane, err: errLeftAlone})
				return true
			case misses(rows, l.peer, b.After):
				f.unlessEnough(l, func() { f.bring(ctx, l.peer, rows, b.After) })
				return false
			}
			var result legResult
			taken := false
			f.unlessEnough(l, func() { result, taken = f.takeOver(ctx, l.peer, lane) })
			if taken {
				l.results = append(l.results, result)
			}
			return taken
		})
	}
}

// unlessEnough does something that may push, unless every vote is decided. The leg is not idle meanwhile, so that the verdicts do not wait for it.
func (f *fanOut) unlessEnough(l *leg, do func()) {
	l.idle.Store(false)
	defer l.idle.Store(true)
	select {
	case <-f.enough: // looked at after idle, which is looked at after enough was closed: one of both sees the other
	default:
		do()
	}
}

// errLeftAlone says that a lagging lane was given back and is not to be pushed now: it fails, and its retry looks after it.
var errLeftAlone = errors.New("the peer is left alone after a failure")

// takeOver pushes a lane that was given back, from its cursor. taken is false if somebody else was quicker.
func (f *fanOut) takeOver(ctx context.Context, p string, lane legLane) (result legResult, taken bool) {
	b := f.batches[lane.ballot]
	at := peerLane{p, b.Lane}
	got, err := f.store.pickUp(ctx, f.token, []advance{{peerLane: at, Cursor: b.Number}})
	if err != nil || len(got) == 0 {
		return result, false
	}
	fault.Hit(fault.WaitTaken)
	if got[at].Cursor >= b.Number {
		refused, err := f.refuses(ctx, p, b)
		lane.refusedBefore = refused || err != nil
		return legResult{legLane: lane, ours: true}, true
	}
	d, err := f.pushFrom(ctx, p, b.Lane, got[at].Cursor, b.Number)
	if err != nil {
		d.err = err
	}
	lane.cursor = got[at].Cursor
	return legResult{legLane: lane, err: d.err, inDoubt: d.inDoubt, refused: d.refused, ours: true}, true
}

// bring pushes what a lane must have first, in lanes that nobody holds, from their cursors, and records it at once. What comes of it is seen at the
// next look: the lane's cursor has moved, or the lane is left alone for a while.
func (f *fanOut) bring(ctx context.Context, p string, rows map[peerLane]lag, first []batchRef) {
	for _, ref := range first {
		at := peerLane{p, ref.Lane}
		row, lagging := rows[at]
		if !lagging || row.Cursor >= ref.Number || !row.ready() || row.Retry == 0 {
			continue
		}
		upTo := max(ref.Number, row.PushedTo)
		got, err := f.store.pickUp(ctx, f.token, []advance{{peerLane: at, Cursor: upTo}})
		if err != nil || len(got) == 0 {
			continue // somebody else was quicker, or the lane itself waits for another one
		}
		fault.Hit(fault.BringTaken)
		d, err := f.pushFrom(ctx, p, ref.Lane, got[at].Cursor, upTo)
		if err != nil {
			d.err = err
		}
		fault.Hit(fault.BringPushed)
		if err := f.recordBrought(ctx, at, got[at].Cursor, upTo, d); err != nil {
			f.cfg.Logger.WarnContext(ctx, "what a lane waits for was pushed and not recorded",
				slog.String("peer", p), slog.Int("lane", int(ref.Lane)), slog.String("error", err.Error()))
		}
		fault.Hit(fault.BringRecorded)
	}
}

// pushFrom pushes the batches of a lane after cursor, up to and with upTo.
func (f *fanOut) pushFrom(ctx context.Context, p string, lane int16, cursor, upTo int64) (delivery, error) {
	batches, err := f.store.loadRanges(ctx, []laneRange{{Lane: lane, Cursor: cursor, Before: upTo + 1}})
	if err != nil {
		return delivery{}, err
	}
	without, err := f.store.refusedOf(ctx, p, batches)
	if err != nil {
		return delivery{}, err
	}
	return pack(batches, without, f.cfg.SenderID, f.cfg.limits).send(ctx, f.cfg.FanOut, p, f.isolation()), nil
}

// recordBrought moves the cursor of a lane that was brought, and gives it back.
func (f *fanOut) recordBrought(ctx context.Context, at peerLane, cursor, upTo int64, d delivery) error {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), time.Second) // also if the deadline has come
	defer cancel()
	err := f.record(ctx, nil, func(tx pgx.Tx) ([]PeerRetryArgs, error) {
		if err := f.cfg.recordRefusals(ctx, tx, at.Peer, d.refused); err != nil {
			return nil, err
		}
		if d.inDoubt {
			if err := f.store.recordDoubts(ctx, tx, []doubt{{at, cursor, upTo}}); err != nil {
				return nil, err
			}
		}
		if _, theirs := errors.AsType[*peer.Error](d.err); d.err != nil && !theirs {
			return recordReleases(ctx, tx, f.token, []release{{peerLane: at}}) // the database failed, not the peer
		}
		if d.err != nil {
			class := string(peer.ClassOf(d.err))
			if err := recordErrors(ctx, tx, map[string]string{at.Peer: class}); err != nil {
				return nil, err
			}
			delay := f.cfg.Retry.retryDelay(1, d.err)
			retries, err := recordReleases(ctx, tx, f.token, []release{{peerLane: at, Class: class, Delay: delay, Fails: 1}})
			if err != nil {
				return nil, err
			}
			return retries, setBack(ctx, tx, at.Peer, setback{class: peer.Class(class), delay: delay, failures: 1})
		}
		still, err := recordAdvances(ctx, tx, f.token, []advance{{peerLane: at, Cursor: upTo}})
		if err != nil || len(still) == 0 {
			return nil, err
		}
		return recordReleases(ctx, tx, f.token, []release{{peerLane: at}})
	})
	if err == nil {
		f.cfg.tellRefusals(ctx, at.Peer, d.refused)
	}
	return err
}
