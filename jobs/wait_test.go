package jobs_test

import (
	"context"
	"slices"
	"testing"
)

// heldLane makes c miss the only batch of the lane and puts that lane into somebody's hands.
func (f *fleet) heldLane() {
	f.t.Helper()
	f.await(f.store("m-1")...)
	f.eventually("all in step", func() bool { return f.lagging() == 0 && len(f.peers.got("c")) == 1 })
	f.exec(`
		insert into lagging (peer, lane, cursor, pushed_to, holder, leased_until, retry)
		select 'c', lane, 0, 1, nextval('tokens'), now() + interval '1 hour', nextval('tokens') from batches`)
}

// A fan-out that takes over what another one left undone at a peer does not keep the verdict back for that: the votes of the others are enough.
func TestVerdictDoesNotWaitForALaneThatWasTakenOver(t *testing.T) {
	t.Parallel()
	f := start(t)
	f.heldLane()
	answerA, answerC := make(chan struct{}), make(chan struct{})
	pushing := make(chan context.Context, 100)
	f.peers.set("a", func(ctx context.Context) error { return until(ctx, answerA) })
	f.peers.set("c", func(ctx context.Context) error {
		pushing <- ctx
		return until(ctx, answerC)
	})
	entries := f.store("m-2")
	f.eventually("a is asked", func() bool { return f.peers.count("a") == 2 })
	f.exec(`update lagging set holder = null, leased_until = null`)
	push := <-pushing
	close(answerA)
	if v := f.await(entries...); !v.IsMet() {
		t.Errorf("got %+v, want met", v)
	}
	if push.Err() != nil {
		t.Errorf("got a verdict after the push to c had ended (%v), want it before", context.Cause(push))
	}
	close(answerC)
	f.eventually("c in step", func() bool { return f.lagging() == 0 })
	if got := f.peers.got("c"); !slices.Contains(got, "store m-2") {
		t.Errorf("c got %q, without m-2", got)
	}
}

// until waits for the channel to be closed.
func until(ctx context.Context, answer <-chan struct{}) error {
	select {
	case <-answer:
		return nil
	case <-ctx.Done():
		return context.Cause(ctx)
	}
}
