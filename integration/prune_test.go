package integration

import (
	"fmt"
	"testing"

	"quorumbox/internal/fault"
)

// newPruningFleet is a fleet with a history so short that a test sees the log being pruned.
func newPruningFleet(t *testing.T) *fleet {
	t.Helper()
	return newFleet(t, setup{settings: `retention: {history: 1s}`})
}

// A worker is killed before and after the log is pruned. The next one prunes the rest, and no row is left over.
func TestWorkerKilledWhilePruning(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		point fault.Point
		left  string // after the kill
	}{
		{fault.PruneChosen, `select (select count(*) from outbox) = 40 and (select sum(cardinality(entries)) from batches) = 40`},
		{fault.PruneCommitted, `select (select count(*) from outbox) < 40 and (select sum(cardinality(entries)) from batches) = (select count(*) from outbox)`},
	} {
		t.Run(string(c.point), func(t *testing.T) {
			t.Parallel()
			f := newPruningFleet(t)
			w := f.worker(t, kill(c.point, 1))
			for i := range 4 { // a batch of each lane stays, so there are several
				entries := f.store(t, memories(fmt.Sprintf("m%d", i), 10)...)
				wantMet(t, f.await(t, entries...), len(entries))
			}
			w.wait(t, settleTime)
			w.wantKilled(t)
			if n := f.count(t, `select case when (`+c.left+`) then 1 else 0 end`); n != 1 {
				t.Errorf("C10: the worker was not killed at %s: want %s", c.point, c.left)
			}
			f.worker(t, "")
			until(t, "only the newest batch of each lane is left", func() []string {
				return holds(f.count(t, `select count(*) from batches`) == f.count(t, `select count(distinct lane) from batches`), "there are more")
			})
			if n := f.count(t, `select count(*) from outbox o where not exists (select from batches b where b.lane = o.lane and o.id = any (b.entries))`); n != 0 {
				t.Errorf("got %d entries left that no batch names, want none", n)
			}
			for i, p := range f.peers {
				log, err := p.log(t.Context())
				if err != nil {
					t.Fatal(err)
				}
				if len(log) != 40 {
					t.Errorf("peer %d has applied %d entries, want 40", i, len(log))
				}
			}
		})
	}
}

// A peer that was down while others were pruned gets what it missed, and the log goes when it has it.
func TestPruneWaitsForAPeerThatIsDown(t *testing.T) {
	t.Parallel()
	f := newPruningFleet(t)
	f.worker(t, "")
	third := f.peers[2]
	third.kill(t)
	written := 0
	for i := range 4 {
		entries := f.store(t, memories(fmt.Sprintf("m%d", i), 10)...)
		wantMet(t, f.await(t, entries...), len(entries))
		written += len(entries)
	}
	until(t, "the history is over", func() []string {
		return holds(f.count(t, `select count(*) from batches where decided_at > clock_timestamp() - interval '8 s'`) == 0, "not yet")
	})
	if n := f.count(t, `select count(*) from outbox`); n != written {
		t.Errorf("got %d entries while a peer misses them, want all %d", n, written)
	}
	third.start(t)
	until(t, "only the newest batch of each lane is left", func() []string {
		return holds(f.count(t, `select count(*) from batches`) == f.count(t, `select count(distinct lane) from batches`), "there are more")
	})
	log, err := third.log(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	if len(log) != written {
		t.Errorf("the peer that was down has applied %d entries, want %d", len(log), written)
	}
}
