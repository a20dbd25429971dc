package integration

import (
	"context"
	"fmt"
	"math/rand/v2"
	"testing"

	"github.com/jackc/pgx/v5"

	"quorumbox/outbox"
)

// Healthy peers that fell behind for a moment acknowledge in fan-outs again while writers go on, although what they write depends on other lanes.
func TestLaggingPeersComeBackUnderMoves(t *testing.T) {
	t.Parallel()
	f := newFleet(t, setup{})
	f.worker(t, "")
	l := startLoad(t, 1, f.moves)
	l.reach(t, 50)
	for _, p := range f.peers {
		p.setFaults(t, `{"status":503,"count":4}`)
	}
	for _, p := range f.peers {
		until(t, p.id+" is well again", func() []string {
			c, err := p.counters(t.Context())
			if err != nil {
				return []string{err.Error()}
			}
			return holds(c.Faults["status"] == 4, "it is not")
		})
	}
	until(t, "each peer was found to be well by a probe", func() []string {
		return holds(f.count(t, `select count(*) from lagging where failures > 0`) == 0, "one is still left alone")
	})
	decided := func(verdict string) int {
		return f.count(t, `select count(*) from batches where verdict <> 'pending' and ($1 = '' or verdict = $1)`, verdict)
	}
	await := func(more int) (all, met int) {
		all, met = decided(""), decided("met")
		until(t, "batches are decided", func() []string { return holds(decided("") >= all+more, "not enough") })
		return decided("") - all, decided("met") - met
	}
	await(50)                                   // what was dispatched meanwhile
	if all, met := await(200); met < all*8/10 { // fewer than 58 of 100 where the lag spread
		t.Errorf("%d of %d batches are met, although all peers are well", met, all)
	}
	l.stop(t)
	f.converge(t, changes)
}

// moves is a step that moves a memory of the writer to another namespace.
func (f *fleet) moves(ctx context.Context, rng *rand.Rand, writer, n int) error {
	m := memory(fmt.Sprintf("w%d-%d", writer, rng.IntN(4)), fmt.Sprintf("home/%d", rng.IntN(6)))
	m.Content += fmt.Sprintf(", change %d", n)
	return pgx.BeginFunc(ctx, f.pool, func(tx pgx.Tx) error {
		_, err := outbox.Store(ctx, tx, m)
		return err
	})
}

// A link comes after its target's store also where another transaction took a later id in the target's lane and was dispatched first.
func TestLinkFollowsAStoreWithAnOlderID(t *testing.T) {
	t.Parallel()
	f := newFleet(t, setup{})
	w := f.worker(t, "")
	low, high := f.twoLanes(t)
	f.await(t, f.store(t, memory("source", low))...)
	err := pgx.BeginFunc(t.Context(), f.pool, func(tx pgx.Tx) error {
		stored, err := outbox.Store(t.Context(), tx, memory("target", high))
		if err != nil {
			return err
		}
		w.terminate(t)
		other := f.store(t, memory("other", high)) // commits first, and is not dispatched yet when the link is made
		link, err := outbox.Link(t.Context(), tx, outbox.MemoryLink{SourceID: "source", TargetID: "target", Relation: "related_to"})
		if err != nil {
			return err
		}
		var after []int64
		if err := tx.QueryRow(t.Context(), `select after_entries from undispatched where entry = $1`, link).Scan(&after); err != nil {
			return err
		}
		t.Logf("store of the target is entry %d, other is %d, the link comes after %v", stored.Entry, other[0], after)
		f.peers[2].setFaults(t, `{"mode":"slow","delay":"1s","id":"target"}`)
		f.worker(t, "")
		f.await(t, other...) // dispatched before this transaction commits
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	f.convergeAll(t, changes)
	if first, _ := f.skipped(t.Context()); len(first) > 0 {
		t.Error("a peer skipped the link")
	}
}
