package quorum

import (
	"context"
	"fmt"
	"slices"
	"sync"
	"time"
)

// ErrDeadline is the cause of a send's context when the deadline of its [FanOut] passes. It wraps
// [context.DeadlineExceeded], because net/http returns the cause in place of it.
var ErrDeadline = fmt.Errorf("quorum: ack deadline passed: %w", context.DeadlineExceeded)

// Send pushes to one peer and returns one outcome per tracker, by the tracker's index. It runs in its own goroutine,
// beside the sends to other peers. It must return soon after ctx is done, must not panic, and must not touch the
// trackers. An outcome that is missing or none of the named ones counts as [Unknown]; outcomes too many are ignored.
type Send func(ctx context.Context, peer string) []Outcome

// Decided is told the peers that have no answer yet, sorted, once every vote is decided: the moment to write the
// verdicts down. It may read the trackers, which stand still until it returns. Its ctx is the one given to
// [FanOut.Run], so the deadline does not cut it short.
type Decided func(ctx context.Context, stragglers []string) error

// FanOut pushes to every peer at once against one deadline.
type FanOut struct {
	// Deadline is the instant after which no acknowledgement counts. Computed once by the caller, who tells the peers'
	// users the same instant. If it has passed already, sends start with a context that is done.
	Deadline time.Time
	// Grace is how long to wait for stragglers after every vote is decided and before they are reported: peers are
	// often as quick as each other, and a straggler costs a write. Not cut off by Deadline. 0 or less reports at once.
	Grace time.Duration
	// Enough, if not nil, is called once when every vote is decided and peers are missing, before Grace begins: a send that only waits for something may
	// return. It is called by the goroutine of Run and must not block.
	Enough func()
}

// Run calls send for each of peers at once and records the outcomes in trackers. It returns nil when every send has
// returned; then no vote of which all peers were sent to or recorded beforehand is pending.
//
// The context of a send ends at Deadline with the cause [ErrDeadline]. An acknowledgement counts if its send returned
// before Deadline; one at that very instant may go either way, which is safe because delivery is idempotent. A later
// one is recorded as [Unknown].
//
// When every vote is decided and peers are missing, Run waits Grace for them. If some still are, it calls decided
// (which may be nil) once, from the loop that owns the trackers, while those sends go on; then it collects the rest.
//
// If decided returns an error, the sends are cancelled, and Run returns that error. If ctx ends first, the sends end
// with it, and Run returns [context.Cause] of ctx; the trackers hold what was learnt. In every case Run returns only
// after its goroutines have, so a send that ignores its context delays it: nothing outlives the call.
//
// Each of peers must have a vote in each tracker ([ErrUnknownPeer]) and be named once ([ErrDuplicatePeer]); otherwise
// nothing is sent. Trackers may hold more peers: those that are skipped, which the caller records beforehand. Run owns
// the trackers until it returns.
func (f FanOut) Run(ctx context.Context, peers []string, trackers []*Tracker, send Send, decided Decided) error {
	if err := checkVotes(peers, trackers); err != nil {
		return err
	}
	sendCtx, stop := context.WithCancelCause(ctx)
	sendCtx, release := context.WithDeadlineCause(sendCtx, f.Deadline, ErrDeadline)
	results := make(chan result, len(peers)) // one each, so that no sender ever waits for the loop
	var senders sync.WaitGroup
	defer senders.Wait()
	defer release()
	defer stop(nil)
	for _, peer := range peers {
		senders.Go(func() {
			outcomes := send(sendCtx, peer)
			results <- result{peer: peer, outcomes: outcomes, at: time.Now()}
		})
	}

	c := collector{deadline: f.Deadline, trackers: trackers, results: results, missing: slices.Sorted(slices.Values(peers))}
	c.untilDecided(ctx)
	if len(c.missing) > 0 && ctx.Err() == nil && f.Enough != nil {
		f.Enough()
	}
	c.forGrace(ctx, f.Grace)
	if len(c.missing) > 0 && ctx.Err() == nil && decided != nil {
		if err := decided(ctx, slices.Clone(c.missing)); err != nil {
			stop(fmt.Errorf("quorum: fan-out given up: %w", context.Canceled))
			c.untilAnswered()
			return err
		}
	}
	c.untilAnswered()
	if ctx.Err() != nil {
		return context.Cause(ctx)
	}
	return nil
}

// checkVotes makes sure that recording an outcome cannot fail later.
func checkVotes(peers []string, trackers []*Tracker) error {
	if _, err := sortedSet(peers); err != nil {
		return err
	}
	for _, t := range trackers {
		for _, peer := range peers {
			if _, found := slices.BinarySearch(t.peers, peer); !found {
				return fmt.Errorf("quorum: fan-out to %q: %w", peer, ErrUnknownPeer)
			}
		}
	}
	return nil
}

// result is what one send came to, and when.
type result struct {
	peer     string
	outcomes []Outcome
	at       time.Time
}

// collector is the loop's state: only the goroutine of [FanOut.Run] touches it.
type collector struct {
	deadline time.Time
	trackers []*Tracker
	results  <-chan result
	missing  []string // sorted
}

// untilDecided collects until every vote is decided, every peer has answered, or ctx ends.
func (c *collector) untilDecided(ctx context.Context) {
	for len(c.missing) > 0 && slices.ContainsFunc(c.trackers, (*Tracker).pending) {
		select {
		case r := <-c.results:
			c.record(r)
		case <-ctx.Done():
			return
		}
	}
}

// forGrace collects until every peer has answered, grace is over, or ctx ends. What has arrived by then is recorded.
func (c *collector) forGrace(ctx context.Context, grace time.Duration) {
	timer := time.NewTimer(grace)
	defer timer.Stop()
	for len(c.missing) > 0 {
		select {
		case r := <-c.results:
			c.record(r)
		case <-timer.C:
			c.arrived()
			return
		case <-ctx.Done():
			return
		}
	}
}

// arrived collects what is there without waiting: a select picks at random between the timer and a result.
func (c *collector) arrived() {
	for {
		select {
		case r := <-c.results:
			c.record(r)
		default:
			return
		}
	}
}

// untilAnswered collects the rest. It needs no context of its own: the sends end with theirs.
func (c *collector) untilAnswered() {
	for len(c.missing) > 0 {
		c.record(<-c.results)
	}
}

func (c *collector) record(r result) {
	c.missing = slices.DeleteFunc(c.missing, func(peer string) bool { return peer == r.peer })
	for i, t := range c.trackers {
		o := Unknown
		if i < len(r.outcomes) && r.outcomes[i].valid() {
			o = r.outcomes[i]
		}
		if o == Ack && r.at.After(c.deadline) {
			o = Unknown
		}
		if vote, found := slices.BinarySearch(t.peers, r.peer); found {
			t.set(vote, o)
		}
	}
}
