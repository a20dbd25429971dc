package jobs

import (
	"context"
	"errors"
	"strings"
	"time"

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
			req.Entries++
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
