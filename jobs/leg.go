package jobs

import (
	"context"
	"fmt"
	"slices"
	"sync/atomic"
	"time"

	"github.com/jackc/pgx/v5"

	"quorumbox/internal/fault"
	"quorumbox/quorum"
)

// leg is what one peer has to do with a fan-out.
type leg struct {
	peer  string
	lanes []legLane // those that are pushed at once, in one shipment
	waits []legLane // those that somebody else is pushing to the peer right now, or that must have another lane first
	pack  shipment  // of lanes

	idle atomic.Bool // nothing is being pushed: at most it waits for somebody else's push

	recorded bool // belongs to the loop that records

	// results belongs to the goroutine of the peer's send until that has returned.
	results []legResult
}

// legLane is the part of a leg that votes on one batch.
type legLane struct {
	ballot   int   // index of batch and tracker
	cursor   int64 // what the peer has when the push begins
	pickedUp bool
	has      bool // the peer has the batch: its retry was quicker

	// refusedBefore says that somebody else's push brought the peer past the batch, and that it refuses an entry of it: no acknowledgement.
	refusedBefore bool
}

// legResult is what came of a lane.
type legResult struct {
	legLane
	err     error // nil: the peer has the batch, but for what it refuses
	inDoubt bool  // a push of it may still arrive later
	refused []refusal
	ours    bool // this fan-out pushed it, and records it; otherwise somebody else does
}

// stand is where a peer is in a lane when a fan-out begins.
type stand int

const (
	inStep   stand = iota
	pickedUp       // it lags a little; the lane is leased to this fan-out, which pushes it from its cursor
	busy           // it lags a little, and somebody else is pushing it, or it must have another lane's batch first
	behindBy       // it lags, and its retry looks after it
	soon           // it is in step, but must have another lane's batch first, which it is about to get
	notYet         // the same, but that lane lags far; or the peer is left alone
)

// prepare decides who is sent what, leases the lagging lanes that are taken along, and encodes the pushes.
func (w *fanOutWorker) prepare(ctx context.Context, token int64, rows fanOutRows) (*fanOut, error) {
	f := &fanOut{fanOutWorker: w, token: token, start: time.Now(), batches: rows.Batches, legs: map[string]*leg{}, enough: make(chan struct{})}
	for i, b := range f.batches {
		policy, ackTimeout, err := w.cfg.judge(b.namespace())
		if err != nil {
			return nil, fmt.Errorf("fan-out %d: %w", token, err)
		}
		if i == 0 { // the relay gives a fan-out batches of one rule only
			f.deadline = f.start.Add(ackTimeout)
		}
		t, err := quorum.NewTracker(policy, w.cfg.Peers)
		if err != nil {
			return nil, fmt.Errorf("fan-out %d: %w", token, err)
		}
		f.trackers = append(f.trackers, t)
	}
	got, err := f.pickUp(ctx, rows)
	if err != nil {
		return nil, err
	}
	var noted []behind
	for _, p := range w.cfg.Peers {
		l := &leg{peer: p}
		var load []laneRange
		for i, b := range f.batches {
			switch f.stand(p, b, rows, got) {
			case pickedUp:
				row := got[peerLane{p, b.Lane}]
				if row.Cursor < b.Number-1 {
					load = append(load, laneRange{Lane: b.Lane, Cursor: row.Cursor, Before: b.Number})
				}
				lane := legLane{ballot: i, cursor: row.Cursor, pickedUp: true, has: row.Cursor >= b.Number}
				if lane.has {
					if lane.refusedBefore, err = f.refuses(ctx, p, b); err != nil {
						return nil, err
					}
				}
				l.lanes = append(l.lanes, lane)
			case inStep:
				l.lanes = append(l.lanes, legLane{ballot: i, cursor: b.Number - 1})
			case busy:
				l.waits = append(l.waits, legLane{ballot: i, pickedUp: true})
			case soon:
				l.waits = append(l.waits, legLane{ballot: i, pickedUp: true})
				noted = append(noted, behind{peerLane: peerLane{p, b.Lane}, Cursor: b.Number - 1, PushedTo: b.Number - 1})
			case notYet:
				f.skipped = append(f.skipped, behind{peerLane: peerLane{p, b.Lane}, Cursor: b.Number - 1, PushedTo: b.Number - 1})
				f.pass(i, p)
			case behindBy:
				f.pass(i, p)
			}
		}
		if err := f.packLeg(ctx, l, load); err != nil {
			return nil, err
		}
		if len(l.lanes)+len(l.waits) > 0 {
			f.legs[p] = l
		}
	}
	return f, f.noteBehind(ctx, noted)
}

// noteBehind writes down, before anything is pushed, which lanes a peer cannot be pushed yet, so that its retry brings them after what they wait for. The
// fan-out waits for that.
func (f *fanOut) noteBehind(ctx context.Context, list []behind) error {
	if len(list) == 0 {
		return nil
	}
	slices.SortFunc(list, func(a, b behind) int { return a.compare(b.peerLane) })
	if err := f.record(ctx, nil, func(tx pgx.Tx) ([]PeerRetryArgs, error) { return recordBehind(ctx, tx, list) }); err != nil {
		return err
	}
	fault.Hit(fault.FanOutNoted)
	return nil
}

// pickUp leases the lagging lanes that this fan-out can bring up to date.
func (f *fanOut) pickUp(ctx context.Context, rows fanOutRows) (map[peerLane]lag, error) {
	var want []advance
	for _, p := range f.cfg.Peers {
		for _, b := range f.batches {
			l, lagging := rows.Lagging[peerLane{p, b.Lane}]
			if lagging && l.ready() && !rows.LeftAlone[p] && l.Retry != 0 && l.Behind <= pickUpLimit && !misses(rows.Lagging, p, b.After) {
				want = append(want, advance{peerLane: l.peerLane, Cursor: b.Number})
			}
		}
	}
	if len(want) == 0 {
		return nil, nil
	}
	got, err := f.store.pickUp(ctx, f.token, want)
	fault.Hit(fault.FanOutPickedUp)
	return got, err
}

func (f *fanOut) stand(p string, b batch, rows fanOutRows, got map[peerLane]lag) stand {
	at := peerLane{p, b.Lane}
	row, lagging := rows.Lagging[at]
	_, taken := got[at]
	switch {
	case taken:
		return pickedUp
	case lagging && rows.LeftAlone[p]:
		return behindBy
	case rows.LeftAlone[p]:
		return notYet
	case lagging && row.near() && comes(rows.Lagging, p, b.After):
		return busy // if it was free, somebody else was quicker
	case lagging:
		return behindBy
	case misses(rows.Lagging, p, b.After) && comes(rows.Lagging, p, b.After):
		return soon
	case misses(rows.Lagging, p, b.After):
		return notYet
	}
	return inStep
}

// near reports whether a lagging lane can be brought up to date while a fan-out waits.
func (l lag) near() bool { return (l.Held || l.ready()) && l.Behind <= pickUpLimit }

// comes reports whether all that the peer misses of what must come first is near.
func comes(lagging map[peerLane]lag, p string, after []batchRef) bool {
	return !slices.ContainsFunc(after, func(first batchRef) bool {
		l, ok := lagging[peerLane{p, first.Lane}]
		return ok && l.Cursor < first.Number && !l.near()
	})
}

// misses reports whether the peer does not have a batch yet that must come first.
func misses(lagging map[peerLane]lag, p string, after []batchRef) bool {
	return slices.ContainsFunc(after, func(first batchRef) bool {
		l, ok := lagging[peerLane{p, first.Lane}]
		return ok && l.Cursor < first.Number
	})
}

// pass records that a peer will not acknowledge a batch in time.
func (f *fanOut) pass(ballot int, p string) {
	// Cannot fail: the peer is one of the policy's.
	_ = f.trackers[ballot].Record(p, quorum.Fail)
}

// packLeg encodes what a peer is sent: its lanes' batches, each after those that it misses. Peers that are sent the same share the bytes.
func (f *fanOut) packLeg(ctx context.Context, l *leg, load []laneRange) error {
	if len(load) == 0 {
		for _, other := range f.legs {
			if slices.EqualFunc(other.lanes, l.lanes, sameBatch) && len(other.pack.batches) == len(l.pushed()) {
				l.pack = other.pack
				return nil
			}
		}
	}
	missed, err := f.store.loadRanges(ctx, load)
	if err != nil {
		return err
	}
	without, err := f.store.refusedOf(ctx, l.peer, missed)
	if err != nil {
		return err
	}
	var batches []batch
	for _, lane := range l.pushed() {
		b := f.batches[lane.ballot]
		for _, m := range missed {
			if m.Lane == b.Lane {
				batches = append(batches, m)
			}
		}
		batches = append(batches, b)
	}
	l.pack = pack(batches, without, f.cfg.SenderID, f.cfg.limits)
	return nil
}

func sameBatch(a, b legLane) bool { return a.ballot == b.ballot && a.has == b.has }

// pushed is the lanes of which the peer needs the batch.
func (l *leg) pushed() []legLane {
	return slices.DeleteFunc(slices.Clone(l.lanes), func(lane legLane) bool { return lane.has })
}

// send is the peer's part: its shipment, then the lanes that somebody else holds.
func (f *fanOut) send(ctx context.Context, p string) []quorum.Outcome {
	l := f.legs[p]
	d := l.pack.send(ctx, f.cfg.FanOut, p, f.isolation())
	for _, lane := range l.lanes {
		r := legResult{legLane: lane, err: d.err, inDoubt: d.inDoubt, refused: d.refusedIn(f.batches[lane.ballot].Lane), ours: true}
		if lane.has {
			r.err, r.inDoubt = nil, false
		}
		l.results = append(l.results, r)
	}
	l.idle.Store(true)
	fault.Hit(fault.FanOutPushed)
	if len(l.waits) > 0 {
		f.wait(ctx, l)
	}
	outcomes := make([]quorum.Outcome, len(f.trackers))
	for i := range outcomes {
		outcomes[i] = quorum.Fail // a lane that this peer has no part in is recorded already
	}
	for _, r := range l.results {
		outcomes[r.ballot] = r.outcome(f.batches[r.ballot])
	}
	return outcomes
}

// isolation is how a fan-out finds out what a peer refuses: within its deadline, and leaving what may come right to the retries.
func (f *fanOut) isolation() isolation {
	return isolation{parts: f.cfg.RetryPush, until: f.deadline, patient: true}
}

// refuses reports whether it is known that the peer refuses an entry of the batch. A retry writes that down with the cursor that it moves past it.
func (f *fanOut) refuses(ctx context.Context, p string, b batch) (bool, error) {
	refused, err := f.store.refusedOf(ctx, p, []batch{b})
	return len(refused) > 0, err
}

// outcome is the peer's vote on a batch: it has not acknowledged one of which it refuses an entry.
func (r legResult) outcome(b batch) quorum.Outcome {
	if r.err == nil && r.refusedBefore {
		return quorum.Refused
	}
	if r.err == nil && slices.ContainsFunc(r.refused, func(x refusal) bool { return slices.Contains(b.IDs, x.Entry) }) {
		return quorum.Refused
	}
	return outcome(r.err)
}
