package jobs_test

import (
	"context"
	"slices"
	"testing"

	"github.com/jackc/pgx/v5"

	"quorumbox/jobs"
	"quorumbox/outbox"
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

// A retry that brings a peer past a batch of which it refuses an entry is no acknowledgement of that batch: by whatever way the fan-out hears of it.
func TestCursorBeyondARefusedEntryIsNoVote(t *testing.T) {
	t.Parallel()
	for name, move := range map[string]string{
		"the lane is still held":   `update lagging set cursor = 2, pushed_to = 2`,
		"the lane was given back":  `update lagging set cursor = 2, pushed_to = 2, holder = null, leased_until = null`,
		"the peer is in step then": `delete from lagging`,
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			f := start(t, func(c *jobs.Config) { c.Policy.W = 4 })
			f.heldLane()
			entries := f.store("m-2")
			f.eventually("a has it", func() bool { return f.peers.count("a") == 2 })
			err := pgx.BeginFunc(t.Context(), f.pool, func(tx pgx.Tx) error {
				if _, err := tx.Exec(t.Context(), `
					insert into refusals (peer, entry, lane, class, next_at)
					select 'c', id, lane, 'skipped', now() + interval '1 hour' from outbox where id = $1`, entries[0]); err != nil {
					return err
				}
				_, err := tx.Exec(t.Context(), move)
				return err
			})
			if err != nil {
				t.Fatal(err)
			}
			if v := f.await(entries...); v.NotMet[outbox.ReasonRefused] != 1 {
				t.Errorf("got %+v, want not met because an entry is refused", v)
			}
		})
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
