package importer

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"sync"
	"time"

	"quorumbox/outbox"
)

// awaitAgain is the pause after an error of the database.
const awaitAgain = time.Second

// errStopped ends a wait whose time is over.
var errStopped = fmt.Errorf("the time to wait for verdicts is over: %w", context.DeadlineExceeded)

// awaiter counts the verdicts of entries, chunk by chunk in the order in which they are added. What waits in it costs 8 bytes an entry.
type awaiter struct {
	db   outbox.Querier
	wake chan struct{} // capacity 1: one waiting wake-up says as much as many
	over chan struct{} // closed by stop
	done chan struct{} // closed when run has ended

	err error // of run, once done is closed; nil after stop

	mu     sync.Mutex // guards what follows; never held across a wait
	queue  [][]outbox.EntryID
	closed bool
	counts Verdicts
}

func newAwaiter(db outbox.Querier) *awaiter {
	return &awaiter{
		db:   db,
		wake: make(chan struct{}, 1),
		over: make(chan struct{}),
		done: make(chan struct{}),
	}
}

// add hands over committed entries.
func (a *awaiter) add(entries []outbox.EntryID) {
	a.mu.Lock()
	a.queue = append(a.queue, entries)
	a.mu.Unlock()
	a.poke()
}

// close says that nothing is added any more: run ends when all are decided.
func (a *awaiter) close() {
	a.mu.Lock()
	a.closed = true
	a.mu.Unlock()
	a.poke()
}

// stop ends run at once. It may be called once.
func (a *awaiter) stop() { close(a.over) }

func (a *awaiter) poke() {
	select {
	case a.wake <- struct{}{}:
	default:
	}
}

func (a *awaiter) snapshot() Verdicts {
	a.mu.Lock()
	defer a.mu.Unlock()
	v := a.counts
	v.NotMet = maps.Clone(v.NotMet)
	if v.NotMet == nil {
		v.NotMet = map[outbox.Reason]int64{}
	}
	return v
}

// run works until all entries are decided, stop, or ctx's end.
func (a *awaiter) run(ctx context.Context) {
	defer close(a.done)
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	var watch sync.WaitGroup
	defer watch.Wait()
	defer cancel(nil)
	watch.Go(func() {
		select {
		case <-a.over:
			cancel(errStopped)
		case <-ctx.Done():
		}
	})
	for {
		chunk, more := a.next()
		switch {
		case chunk != nil:
			if err := a.await(ctx, chunk); err != nil {
				if !errors.Is(err, errStopped) {
					a.err = err
				}
				return
			}
		case !more:
			return
		default:
			select {
			case <-a.wake:
			case <-ctx.Done():
				return
			}
		}
	}
}

// next returns the oldest chunk, or nil and whether there may be one later.
func (a *awaiter) next() (chunk []outbox.EntryID, more bool) {
	a.mu.Lock()
	defer a.mu.Unlock()
	if len(a.queue) == 0 {
		return nil, !a.closed
	}
	chunk = a.queue[0]
	a.queue[0] = nil
	a.queue = a.queue[1:]
	return chunk, true
}

// await counts one chunk. While the database is away it asks again.
func (a *awaiter) await(ctx context.Context, chunk []outbox.EntryID) error {
	for {
		v, err := outbox.Await(ctx, a.db, chunk...)
		switch {
		case err == nil:
			a.count(v, 0)
			return nil
		case ctx.Err() != nil:
			a.count(v, 0) // those that are decided
			return context.Cause(ctx)
		case errors.Is(err, outbox.ErrUnknownEntry):
			return a.awaitKnown(ctx, chunk)
		case !transient(err):
			return err
		}
		timer := time.NewTimer(awaitAgain)
		select {
		case <-timer.C:
		case <-ctx.Done():
			timer.Stop()
			return context.Cause(ctx)
		}
	}
}

// awaitKnown counts a chunk of which some entries are pruned already, by halves.
func (a *awaiter) awaitKnown(ctx context.Context, chunk []outbox.EntryID) error {
	if len(chunk) == 1 {
		a.count(outbox.Verdict{}, 1)
		return nil
	}
	half := len(chunk) / 2
	if err := a.await(ctx, chunk[:half]); err != nil {
		return err
	}
	return a.await(ctx, chunk[half:])
}

func (a *awaiter) count(v outbox.Verdict, pruned int64) {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.counts.Met += int64(v.Met)
	a.counts.Pruned += pruned
	if a.counts.NotMet == nil {
		a.counts.NotMet = map[outbox.Reason]int64{}
	}
	for reason, n := range v.NotMet {
		a.counts.NotMet[reason] += int64(n)
	}
}
