package jobs

import (
	"context"
	"errors"
	"slices"
	"time"

	"quorumbox/internal/fault"
	"quorumbox/internal/peer"
)

// delivery is what came of a shipment.
type delivery struct {
	shipment shipment
	peer     string
	how      isolation
	acked    bool // the peer has acknowledged something of it
	probed   bool // the peer was asked to acknowledge an empty push, and answered:
	probeErr error

	// err is nil if the peer has the shipment, but for the entries in refused.
	err error
	// refused are the entries that the peer refuses, each isolated from the others. They stand also if err is not nil.
	refused []refusal
	// inDoubt means that a push of the shipment may still be applied later, after whatever is pushed next. It can be so although all was acknowledged.
	inDoubt bool
	// applied is how many items the peer has, counted from the first, as far as it is known after a failure.
	applied int
}

// isolation says how far send goes to find out which of several items a peer refuses.
type isolation struct {
	// parts sends the parts of a push that was refused.
	parts Pusher
	// until is when it gives up; what was found by then is told.
	until time.Time
	// patient leaves it open whether the peer refuses an item that needs another one to be there, such as a link: it may come.
	patient bool

	// repeats is how often a push is repeated that failed after others of its shipment were acknowledged: if it fails for good, all of them are pushed again.
	repeats int

	// suspicions is how often in a row pushes from the same place have broken the peer: from suspectAfter on the item at which it breaks is looked for.
	suspicions int
	// acked says that the peer has acknowledged something else meanwhile.
	acked bool
}

const (
	// suspectAfter is how often pushes of the same items must have broken the peer before one of them is suspected: a peer that is about to stop, or a proxy
	// before one that is away, answers so, too.
	suspectAfter = 3

	// certainAfter is the same for a peer that acknowledges nothing else meanwhile, because there is nothing or because it can take nothing at all. In that case one item at a time
	// is blamed, so that a peer whose disk is full for a day refuses a few entries and not all of them.
	certainAfter = 10
)

// breaks reports whether a failure may come of an item at which the peer breaks: it answers with a server error, or not at all and closes the connection. More often it
// is the peer's own trouble.
func breaks(class peer.Class) bool {
	return class == peer.ClassServerError || class == peer.ClassConnectionLost
}

func breakingClasses() []string {
	var list []string
	for _, c := range peer.Classes() {
		if breaks(c) {
			list = append(list, string(c))
		}
	}
	return list
}

// suspicionsAfter is how suspicious so many failures in a row of a class are.
func suspicionsAfter(class peer.Class, failures int) int {
	if breaks(class) {
		return failures
	}
	return 0
}

// send pushes the shipment in order and stops at the first push that is neither acknowledged nor refused. A push of several items that is
// refused is cut in halves until it is known which of them the peer refuses; the others are pushed without them. So is one that breaks the peer, if that has happened
// before ([isolation]).
func (s shipment) send(ctx context.Context, to Pusher, peerID string, how isolation) delivery {
	d := delivery{shipment: s, peer: peerID, how: how}
	if how.suspicions >= suspectAfter && !how.acked {
		// A peer that takes nothing is asked with one small request and not with two.
		if d.err = d.probe(ctx); d.err != nil {
			return d
		}
	}
	for i, l := range s.pushes {
		if i > 0 {
			fault.Hit(fault.ShipmentPart)
		}
		d.err = d.push(ctx, to, l)
		for n := 0; n < how.repeats && i > 0 && waitToRepeat(ctx, n, d.err); n++ {
			d.err = d.push(ctx, to, l)
		}
		if d.err != nil {
			return d
		}
		d.applied += len(l.items)
	}
	return d
}

const (
	// pushRepeats are the repeats of whoever has no deadline.
	pushRepeats = 2

	// repeatPause is the pause before the first repeat of a push; before the second it is twice that.
	repeatPause = 100 * time.Millisecond

	// longestRepeatPause is the most that a peer may ask to wait for, for a push to be repeated.
	longestRepeatPause = time.Second
)

// waitToRepeat reports whether a push that failed is worth being repeated at once, after a pause that it makes: the peer fails now and then, and has not asked to be left alone.
func waitToRepeat(ctx context.Context, n int, err error) bool {
	class := peer.ClassOf(err)
	if err == nil || !ofPeer(class) || class.Configuration() || class == peer.ClassRateLimited {
		return false
	}
	pause := repeatPause << n
	if e, ok := errors.AsType[*peer.Error](err); ok {
		pause = max(pause, e.RetryAfter)
	}
	return pause <= longestRepeatPause && rest(ctx, pause) == nil
}

func (d *delivery) push(ctx context.Context, to Pusher, l load) error {
	err := d.post(ctx, to, l)
	class := peer.ClassOf(err)
	if class == peer.ClassQuota {
		if e, ok := errors.AsType[*peer.Error](err); ok {
			d.applied += min(e.Applied, len(l.items)-1) // what was refused is one at least
		}
	}
	suspect := breaks(class) && d.how.suspicions >= suspectAfter
	if !class.Refusal() && !suspect || !d.understands(ctx, class) {
		return err
	}
	culprits := blame(l.items, err)
	if len(culprits) == 0 {
		if time.Now().After(d.how.until) {
			return err
		}
		half := len(l.items) / 2
		for _, items := range [][]item{l.items[:half], l.items[half:]} {
			fault.Hit(fault.ShipmentHalved)
			if err := d.push(ctx, d.how.parts, load{items, request(items, d.shipment.senderID)}); err != nil {
				return err
			}
		}
		return nil
	}
	if suspect {
		if again := d.again(ctx, l, err); !breaks(peer.ClassOf(again)) || !d.convicts() {
			return again
		}
	}
	for _, it := range culprits {
		if d.how.patient && class == peer.ClassSkipped && it.needsOthers() {
			return err
		}
	}
	for _, it := range culprits {
		d.refuse(refusal{Entry: it.entry.ID, Lane: it.entry.Lane, Class: class})
	}
	return nil
}

// post sends one push and notes what came of it.
func (d *delivery) post(ctx context.Context, to Pusher, l load) error {
	report, err := to.Push(ctx, d.peer, l.req)
	d.inDoubt = d.inDoubt || report.InDoubt || peer.OutcomeOf(err) == peer.Unknown
	d.acked = d.acked || err == nil
	return err
}

// convicts reports whether what is known is enough to blame an item at which the peer breaks.
func (d *delivery) convicts() bool {
	return d.acked || d.how.acked || d.how.suspicions >= certainAfter && len(d.refused) == 0
}

// again pushes an item once more that broke the peer, if it may be blamed for that: it may have been by chance.
func (d *delivery) again(ctx context.Context, l load, err error) error {
	if !d.convicts() {
		return err
	}
	return d.post(ctx, d.how.parts, l)
}

// understands reports whether the peer takes pushes at all. One that answers 400, 413 or a server error to an empty push, too, refuses the sender, is no peer or is
// broken: no entry is to be blamed for that.
func (d *delivery) understands(ctx context.Context, class peer.Class) bool {
	if class == peer.ClassSkipped || class == peer.ClassUnsupported {
		return true
	}
	return d.probe(ctx) == nil
}

// probe asks the peer, once, to acknowledge an empty push.
func (d *delivery) probe(ctx context.Context) error {
	if !d.probed {
		empty := peer.Request{Body: peer.Message{}.Encode(d.shipment.senderID), Catchup: peer.CatchupBulk}
		_, d.probeErr = d.how.parts.Push(ctx, d.peer, empty)
		d.probed = true
	}
	return d.probeErr
}

// refuse notes a refused entry; one that has several items is noted once.
func (d *delivery) refuse(r refusal) {
	if !slices.ContainsFunc(d.refused, func(known refusal) bool { return known.Entry == r.Entry }) {
		d.refused = append(d.refused, r)
	}
}

// refusedIn is what is refused of a lane.
func (d *delivery) refusedIn(lane int16) []refusal {
	return slices.DeleteFunc(slices.Clone(d.refused), func(r refusal) bool { return r.Lane != lane })
}

// has returns the batches that the peer has although the shipment failed, because its quota let the first entries pass: a prefix of the batches,
// nothing unless the shipment is inOrder.
func (d *delivery) has() []batch {
	if !d.shipment.inOrder {
		return nil
	}
	left := d.applied
	for i, b := range d.shipment.batches {
		if left -= len(b.Entries); left < 0 {
			return d.shipment.batches[:i]
		}
	}
	return d.shipment.batches
}

// blame returns the items that an answer refuses, if it says which: there is only one, it refuses all of them, or it leaves out just those of the
// lists that the storage of a Postgres-backed peer does not know (wire.md 5.2). Then the others were acknowledged.
func blame(items []item, err error) []item {
	e, ok := errors.AsType[*peer.Error](err)
	if len(items) == 1 {
		return items
	}
	if !ok || e.Class != peer.ClassSkipped && e.Class != peer.ClassUnsupported {
		return nil
	}
	if e.Refused >= len(items) {
		return items
	}
	culprits := slices.DeleteFunc(slices.Clone(items), func(it item) bool {
		return it.list == memories || it.list == deletions || it.list == links
	})
	if e.Class == peer.ClassUnsupported && len(culprits) == e.Refused {
		return culprits
	}
	return nil
}

// needsOthers reports whether a receiver skips the item as long as something else is missing: a link's ends, a standard's memory, the place of a
// restored memory.
func (i item) needsOthers() bool {
	return i.list == links || i.list == namespaceMeta || i.list == restores
}
