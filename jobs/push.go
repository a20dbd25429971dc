package jobs

import (
	"context"
	"errors"
	"time"

	"quorumbox/internal/peer"
	"quorumbox/quorum"
)

// Pusher sends one push to one peer. nil is a true acknowledgement; any other result is a *peer.Error or wraps one.
// It must return soon after ctx ends, and be safe for concurrent use.
type Pusher interface {
	Push(ctx context.Context, peerID string, req peer.Request) error
}

// PushFunc is a function as a [Pusher].
type PushFunc func(ctx context.Context, peerID string, req peer.Request) error

// Push calls f.
func (f PushFunc) Push(ctx context.Context, peerID string, req peer.Request) error {
	return f(ctx, peerID, req)
}

// shipment is a range of batches as the pushes that carry it. The peer has the range when it has acknowledged all of them; a part
// of them says nothing about a single batch.
type shipment struct {
	batches []batch
	pushes  []peer.Request
}

// pack makes the pushes for batches: as few as the limits and the receivers' order of application allow.
func pack(batches []batch, senderID string, most limits) shipment {
	var entries []entry
	for _, b := range batches {
		entries = append(entries, b.Entries...)
	}
	s := shipment{batches: batches}
	for _, part := range plan(entries, most) {
		req := peer.Request{Body: message(part).Encode(senderID), ExpectIDs: keys(part), Catchup: peer.CatchupBulk}
		if len(part) == 1 {
			// An operation that travels alone has the reference's headers: its key, and no mark of a catch-up.
			req.IdempotencyKey, req.Catchup = part[0].Key, peer.CatchupNone
		}
		s.pushes = append(s.pushes, req)
	}
	return s
}

func keys(entries []entry) []string {
	list := make([]string, len(entries))
	for i, e := range entries {
		list[i] = e.Key
	}
	return list
}

// send pushes the shipment in order and stops at the first push that is not acknowledged.
func (s shipment) send(ctx context.Context, to Pusher, peerID string) error {
	for _, req := range s.pushes {
		if err := to.Push(ctx, peerID, req); err != nil {
			return err
		}
	}
	return nil
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
// configuration error, or a push that is refused for good) is probed as rarely as the schedule allows.
func (s Schedule) retryDelay(failures int, err error) time.Duration {
	s = s.withDefaults()
	var floor time.Duration
	if e, ok := errors.AsType[*peer.Error](err); ok {
		floor = e.RetryAfter
	}
	if class := peer.ClassOf(err); class.Configuration() || class.Refusal() {
		floor = max(floor, s.Max)
	}
	return s.Delay(failures, floor)
}
