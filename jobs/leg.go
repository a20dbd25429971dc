package jobs

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"sync/atomic"
	"time"

	"quorumbox/quorum"
)

// awaitRow is how often a leg looks whether a lane that somebody else is pushing has been given back.
const awaitRow = 5 * time.Millisecond

// leg is what one peer has to do with a fan-out.
type leg struct {
	peer  string
	lanes []legLane // those that are pushed at once, in one shipment
	waits []legLane // those that somebody else is pushing to the peer right now
	pack  shipment  // of lanes

	answered atomic.Bool // what was to be pushed at once has been

	recorded bool // belongs to the loop that records

	// results belongs to the goroutine of the peer's send until that has returned.
	results []legResult
}

// legLane is the part of a leg that votes on one batch.
type legLane struct {
	ballot   int // index of batch and tracker
	pickedUp bool
	has      bool // the peer has the batch: its retry was quicker
}

// legResult is what came of a lane.
type legResult struct {
	legLane
	err     error // nil: the peer has the batch, but for what it refuses
	refused []refusal
	ours    bool // this fan-out pushed it, and records it; otherwise somebody else does
}

// stand is where a peer is in a lane when a fan-out begins.
type stand int

const (
	inStep   stand = iota
	pickedUp       // it lags a little; the lane is leased to this fan-out, which pushes it from its cursor
	busy           // it lags a little, and somebody else is pushing it
	behindBy       // it lags, and its retry looks after it
	notYet         // it is in step, but must have another lane's batch first
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
				l.lanes = append(l.lanes, legLane{ballot: i, pickedUp: true, has: row.Cursor >= b.Number})
			case inStep:
				l.lanes = append(l.lanes, legLane{ballot: i})
			case busy:
				l.waits = append(l.waits, legLane{ballot: i, pickedUp: true})
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
	return f, nil
}

// pickUp leases the lagging lanes that this fan-out can bring up to date.
func (f *fanOut) pickUp(ctx context.Context, rows fanOutRows) (map[peerLane]lag, error) {
	var want []advance
	for _, p := range f.cfg.Peers {
		for _, b := range f.batches {
			l, lagging := rows.Lagging[peerLane{p, b.Lane}]
			if lagging && l.free() && l.Retry != 0 && l.Behind <= pickUpLimit && !misses(rows.Lagging, p, b.After) {
				want = append(want, advance{peerLane: l.peerLane, Cursor: b.Number})
			}
		}
	}
	if len(want) == 0 {
		return nil, nil
	}
	return f.store.pickUp(ctx, f.token, want)
}

func (f *fanOut) stand(p string, b batch, rows fanOutRows, got map[peerLane]lag) stand {
	at := peerLane{p, b.Lane}
	row, lagging := rows.Lagging[at]
	_, taken := got[at]
	switch {
	case taken:
		return pickedUp
	case lagging && (row.Held || row.free()) && row.Behind <= pickUpLimit && !misses(rows.Lagging, p, b.After):
		return busy // if it was free, somebody else was quicker
	case lagging:
		return behindBy
	case misses(rows.Lagging, p, b.After):
		return notYet
	}
	return inStep
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
		r := legResult{legLane: lane, err: d.err, refused: d.refusedIn(f.batches[lane.ballot].Lane), ours: true}
		if lane.has {
			r.err = nil
		}
		l.results = append(l.results, r)
	}
	l.answered.Store(true)
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

// outcome is the peer's vote on a batch: it has not acknowledged one of which it refuses an entry.
func (r legResult) outcome(b batch) quorum.Outcome {
	if r.err == nil && slices.ContainsFunc(r.refused, func(x refusal) bool { return slices.Contains(b.IDs, x.Entry) }) {
		return quorum.Refused
	}
	return outcome(r.err)
}

// wait looks after lanes that somebody else was pushing until each is decided: the row is gone or past this batch (the peer has it), has been given back (then this fan-out pushes it from its cursor), is left alone for a while, is not needed any more, or the deadline has
// come.
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
			row, lagging := rows[peerLane{l.peer, f.batches[lane.ballot].Lane}]
			switch {
			case !lagging || row.Cursor >= f.batches[lane.ballot].Number:
				l.results = append(l.results, legResult{legLane: lane})
				return true
			case row.Held:
				return false
			case !row.free() || row.Retry == 0 || row.Behind > pickUpLimit:
				l.results = append(l.results, legResult{legLane: lane, err: errLeftAlone})
				return true
			}
			result, taken := f.takeOver(ctx, l.peer, lane)
			if taken {
				l.results = append(l.results, result)
			}
			return taken
		})
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
	if got[at].Cursor >= b.Number {
		return legResult{legLane: lane, ours: true}, true
	}
	missed, err := f.store.loadRanges(ctx, []laneRange{{Lane: b.Lane, Cursor: got[at].Cursor, Before: b.Number}})
	if err != nil {
		return legResult{legLane: lane, err: err, ours: true}, true
	}
	without, err := f.store.refusedOf(ctx, p, missed)
	if err != nil {
		return legResult{legLane: lane, err: err, ours: true}, true
	}
	d := pack(append(missed, b), without, f.cfg.SenderID, f.cfg.limits).send(ctx, f.cfg.FanOut, p, f.isolation())
	return legResult{legLane: lane, err: d.err, refused: d.refused, ours: true}, true
}
