package jobs

import (
	"context"
	"errors"
	"slices"
	"strings"
	"time"

	"quorumbox/internal/fault"
	"quorumbox/internal/peer"
	"quorumbox/outbox"
	"quorumbox/quorum"
)

// Pusher sends one push to one peer. A nil error is a true acknowledgement; any other is a *peer.Error or wraps one. The report says whether a request
// of this push may be applied later although another one was answered; that the push is in doubt itself is in the error.
// It must return soon after ctx ends, and be safe for concurrent use.
type Pusher interface {
	Push(ctx context.Context, peerID string, req peer.Request) (peer.Report, error)
}

// PushFunc is a function as a [Pusher].
type PushFunc func(ctx context.Context, peerID string, req peer.Request) (peer.Report, error)

// Push calls f.
func (f PushFunc) Push(ctx context.Context, peerID string, req peer.Request) (peer.Report, error) {
	return f(ctx, peerID, req)
}

// shipment is a range of batches as the pushes that carry it. The peer has the range when it has acknowledged all of them; a part
// of them says nothing about a single batch, unless the range holds nothing but stores.
type shipment struct {
	batches  []batch
	senderID string
	pushes   []load
	inOrder  bool // the items are the entries, one for one and in their order
}

// load is one push.
type load struct {
	items []item
	req   peer.Request
}

// pack makes the pushes for batches, without the entries that the peer refuses for good: as few as the limits and the receivers' order of
// application allow.
func pack(batches []batch, without map[int64]bool, senderID string, most limits) shipment {
	s := shipment{batches: batches, senderID: senderID, inOrder: len(without) == 0}
	var entries []entry
	for _, b := range batches {
		for _, e := range b.Entries {
			if !without[e.ID] {
				entries = append(entries, e)
			}
			s.inOrder = s.inOrder && e.Kind == outbox.KindStore
		}
	}
	for _, items := range plan(entries, most) {
		s.pushes = append(s.pushes, load{items, request(items, senderID)})
	}
	return s
}

// request is the push of items.
func request(items []item, senderID string) peer.Request {
	req := peer.Request{Body: message(items).Encode(senderID), Catchup: peer.CatchupBulk}
	alone, clears := true, true
	for i, it := range items {
		alone = alone && it.entry.ID == items[0].entry.ID
		clears = clears && it.list == namespaceClears
		if i == 0 || it.entry.ID != items[i-1].entry.ID {
			req.ExpectIDs = append(req.ExpectIDs, it.entry.Key)
		}
	}
	// An operation that travels alone has the reference's headers: its key, and no mark of a catch-up. Clearing several namespaces is one
	// operation of the reference, whose key is all of them (wire.md 2.8).
	if alone {
		req.ExpectIDs = req.ExpectIDs[:1]
	}
	if alone || clears {
		req.IdempotencyKey, req.Catchup = strings.Join(req.ExpectIDs, ","), peer.CatchupNone
	}
	if clears {
		req.ExpectIDs = []string{req.IdempotencyKey}
	}
	return req
}

// message is the body of a push. Of several stores of a memory only the last one's vector is shipped: the others belong to contents that are gone.
func message(items []item) peer.Message {
	var m peer.Message
	last := map[string]int{}
	for i, it := range items {
		if it.list == memories && len(items) > 1 {
			last[it.key] = i
		}
	}
	for i, it := range items {
		switch it.list {
		case memories:
			m.Memories = append(m.Memories, it.body)
			if len(it.embedding) > 0 && (len(items) == 1 || last[it.key] == i) {
				m.Embeddings = append(m.Embeddings, it.embedding)
			}
		case deletions:
			m.Deletions = append(m.Deletions, it.key)
		case archives:
			m.Archives = append(m.Archives, it.key)
		case restores:
			m.Restores = append(m.Restores, it.key)
		case links:
			m.Links = append(m.Links, it.body)
		case pendings:
			m.Pendings = append(m.Pendings, it.body)
		case decisions:
			m.PendingDecisions = append(m.PendingDecisions, it.body)
		case namespaceMeta:
			m.NamespaceMeta = append(m.NamespaceMeta, it.body)
		case namespaceClears:
			m.NamespaceMetaClears = append(m.NamespaceMetaClears, it.key)
		}
	}
	return m
}

// delivery is what came of a shipment.
type delivery struct {
	shipment shipment
	peer     string
	how      isolation
	probed   *bool // whether the peer acknowledges an empty push; nil: not asked yet

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
}

// send pushes the shipment in order and stops at the first push that is neither acknowledged nor refused. A push of several items that is
// refused is cut in halves until it is known which of them the peer refuses; the others are pushed without them.
func (s shipment) send(ctx context.Context, to Pusher, peerID string, how isolation) delivery {
	d := delivery{shipment: s, peer: peerID, how: how}
	for i, l := range s.pushes {
		if i > 0 {
			fault.Hit(fault.ShipmentPart)
		}
		if d.err = d.push(ctx, to, l); d.err != nil {
			return d
		}
		d.applied += len(l.items)
	}
	return d
}

func (d *delivery) push(ctx context.Context, to Pusher, l load) error {
	report, err := to.Push(ctx, d.peer, l.req)
	d.inDoubt = d.inDoubt || report.InDoubt || peer.OutcomeOf(err) == peer.Unknown
	class := peer.ClassOf(err)
	if class == peer.ClassQuota {
		if e, ok := errors.AsType[*peer.Error](err); ok {
			d.applied += min(e.Applied, len(l.items)-1) // what was refused is one at least
		}
	}
	if !class.Refusal() || !d.understands(ctx, class) {
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

// understands reports whether the peer takes pushes at all. One that answers 400 or 413 to an empty push, too, refuses the sender or is no peer: no
// entry is to be blamed for that.
func (d *delivery) understands(ctx context.Context, class peer.Class) bool {
	if class == peer.ClassSkipped || class == peer.ClassUnsupported {
		return true
	}
	if d.probed == nil {
		empty := peer.Request{Body: peer.Message{}.Encode(d.shipment.senderID), Catchup: peer.CatchupBulk}
		_, err := d.how.parts.Push(ctx, d.peer, empty)
		d.probed = new(err == nil)
	}
	return *d.probed
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

// outcome is what an error of a [Pusher] means for a vote.
func outcome(err error) quorum.Outcome {
	if errors.Is(err, errLeftAlone) {
		return quorum.Fail // nothing was sent
	}
	switch peer.OutcomeOf(err) {
	case peer.Ack:
		return quorum.Ack
	case peer.IDDrift:
		return quorum.IDDrift
	case peer.Unknown:
		return quorum.Unknown
	case peer.Fail:
		if peer.ClassOf(err).Refusal() {
			return quorum.Refused
		}
		return quorum.Fail
	}
	return quorum.Unknown
}

// retryDelay is how long to leave a peer alone after a failure: by the schedule, or as long as it asks for. What only a person can mend (a
// configuration error) is probed once in Hold.
func (s Schedule) retryDelay(failures int, err error) time.Duration {
	s = s.withDefaults()
	var floor time.Duration
	if e, ok := errors.AsType[*peer.Error](err); ok {
		floor = e.RetryAfter
	}
	if peer.ClassOf(err).Configuration() {
		floor = max(floor, s.Hold)
	}
	return s.Delay(failures, floor)
}
