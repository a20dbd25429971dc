package jobs_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"net/http"
	"slices"
	"sync/atomic"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/jackc/pgx/v5"

	"quorumbox/internal/peer"
	"quorumbox/jobs"
	"quorumbox/outbox"
)

// never is a redelivery schedule for tests that look at refusals.
func never(c *jobs.Config) { c.Redeliver = jobs.Schedule{Initial: time.Hour, Max: time.Hour} }

// One entry that a peer refuses keeps nothing else from it: not the other entries of the push, not the verdicts of other batches, not the lane.
func TestRefusedEntryIsIsolated(t *testing.T) {
	t.Parallel()
	f := start(t, never)
	f.peers.refuse("bad")
	if v := f.await(f.store("m-1", "bad", "m-2", "m-3")...); !v.IsMet() {
		t.Errorf("got %+v, want met by the other two peers", v)
	}
	f.eventually("c has the others", func() bool {
		got := f.peers.got("c")
		return slices.Contains(got, "store m-1") && slices.Contains(got, "store m-2") && slices.Contains(got, "store m-3")
	})
	f.eventually("nothing lags", func() bool { return f.lagging() == 0 })
	if n := f.scalar(`
		select count(*) from refusals r join outbox o on o.id = r.entry where r.peer = 'c' and o.key = 'bad' and r.class = 'skipped'`); n != 1 {
		t.Errorf("got %d refusals of the entry, want 1", n)
	}
	if n := f.scalar(`select count(*) from refusals`); n != 1 {
		t.Errorf("got %d refusals in all, want 1", n)
	}
	if n := f.scalar(`select count(*) from batches where 'c' = any (acked) and (select o.id from outbox o where o.key = 'bad') = any (entries)`); n != 0 {
		t.Error("the batch with the refused entry names the peer among those that acknowledged it")
	}
	if v := f.await(f.store("m-4")...); !v.IsMet() {
		t.Errorf("afterwards: got %+v, want met", v)
	}
	f.eventually("c gets what follows from the fan-out", func() bool { return slices.Contains(f.peers.got("c"), "store m-4") })
}

// With W = all, the refusal is the reason.
func TestRefusalDecidesAVerdict(t *testing.T) {
	t.Parallel()
	f := start(t, never, func(c *jobs.Config) { c.Policy.W = 4 })
	f.peers.refuse("bad")
	if v := f.await(f.store("bad")...); v.NotMet[outbox.ReasonRefused] != 1 {
		t.Errorf("got %+v, want refused", v)
	}
	if v := f.await(f.store("good")...); !v.IsMet() {
		t.Errorf("the next one: got %+v, want met", v)
	}
}

// A lagging peer's refusals are found by its retry, and the rest of the backlog arrives.
func TestRetryIsolatesRefusals(t *testing.T) {
	t.Parallel()
	f := start(t, never)
	f.peers.set("c", refusing(peer.ClassRefusedConnection))
	var ids []string
	for i := range 40 {
		ids = append(ids, fmt.Sprintf("m-%02d", i))
		f.await(f.store(ids[i])...)
	}
	f.peers.refuse("m-07", "m-31")
	f.peers.set("c", nil)
	f.eventually("c in step", func() bool { return f.lagging() == 0 })
	for _, id := range ids {
		refused := id == "m-07" || id == "m-31"
		if got := slices.Contains(f.peers.got("c"), "store "+id); got == refused {
			t.Errorf("%s arrived: %t, want %t", id, got, !refused)
		}
	}
	if n := f.scalar(`select count(*) from refusals where peer = 'c'`); n != 2 {
		t.Errorf("got %d refusals, want 2", n)
	}
}

// A refused entry is tried again now and then, and gone from the table once the peer takes it.
func TestRefusedEntryIsRedelivered(t *testing.T) {
	t.Parallel()
	f := start(t)
	f.peers.refuse("m-1")
	f.await(f.store("m-1")...)
	f.eventually("it was tried again", func() bool { return f.scalar(`select coalesce(max(attempts), 0) from refusals`) >= 3 })
	f.peers.refuse()
	f.eventually("c has it", func() bool { return slices.Contains(f.peers.got("c"), "store m-1") })
	f.eventually("nothing is left of it", func() bool { return f.scalar(`select count(*) from refusals`) == 0 && f.lagging() == 0 })
	if n := f.scalar(`select count(*) from river_job where kind = 'redeliver' and queue = 'peer_c'`); n == 0 {
		t.Error("no redelivery went through the peer's queue")
	}
}

// An entry at which a peer breaks, as by a bug, is found and steps aside, whether other lanes show that the peer takes everything else or the entry's own is the only one. The peer
// gets the rest, votes again, and gets the entry once it is mended.
func TestEntryThatBreaksAPeerStepsAside(t *testing.T) {
	t.Parallel()
	for name, others := range map[string]string{"other lanes are pushed": "other/%d:x-%d", "one lane only": "ns:x-%[2]d"} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			f := start(t)
			f.peers.breakAt("bad")
			f.await(f.store("m-1", "bad", "m-2")...)
			n := 0
			f.eventually("the entry is found", func() bool {
				n++
				f.store(fmt.Sprintf(others, n, n))
				return f.scalar(`select count(*) from refusals r join outbox o on o.id = r.entry where r.peer = 'c' and o.key = 'bad' and r.class = 'server_error'`) == 1
			})
			f.eventually("the peer has the rest", func() bool {
				got := f.peers.got("c")
				return slices.Contains(got, "store m-1") && slices.Contains(got, "store m-2") && slices.Contains(got, fmt.Sprintf("store x-%d", n)) && f.lagging() == 0
			})
			f.eventually("it was tried again, and is still refused", func() bool { return f.scalar(`select coalesce(max(attempts), 0) from refusals`) >= 2 })
			if got := f.scalar(`select count(*) from refusals`); got != 1 {
				t.Errorf("got %d refusals, want the one entry", got)
			}
			f.await(f.store("ns:vote")...)
			f.eventually("the peer votes", func() bool {
				f.await(f.store("ns:vote")...)
				return f.scalar(`select count(*) from batches b join outbox o on o.id = any (b.entries) where o.key = 'vote' and 'c' = any (b.acked)`) > 0
			})
			f.peers.breakAt()
			f.eventually("c has it", func() bool { return slices.Contains(f.peers.got("c"), "store bad") })
			f.eventually("nothing is left of it", func() bool { return f.scalar(`select count(*) from refusals`) == 0 && f.lagging() == 0 })
		})
	}
}

// An operator cannot drop the refusal of an entry before its verdict is known, which would count the peer as one that has it.
func TestDropRefusalsLeavesWhatIsUndecided(t *testing.T) {
	t.Parallel()
	f := start(t, never, func(c *jobs.Config) {
		c.AckTimeout, c.JobTimeout, c.RescueAfter = 20*time.Second, 50*time.Second, time.Minute
	})
	answer := make(chan struct{})
	hang := func(ctx context.Context) error {
		select {
		case <-answer:
			return nil
		case <-ctx.Done():
			return &peer.Error{Class: peer.ClassTimeout}
		}
	}
	f.peers.set("a", hang)
	f.peers.set("b", hang)
	entries := f.store("m-1")
	f.eventually("it is dispatched", func() bool { return f.scalar(`select count(*) from batches where verdict = 'pending'`) == 1 })
	f.exec(`insert into refusals (peer, entry, lane, class, next_at) select 'c', entries[1], lane, 'skipped', now() + interval '1 hour' from batches`)
	if n, err := jobs.DropRefusals(t.Context(), f.pool, jobs.RefusalFilter{Peer: "c"}); n != 0 || !errors.Is(err, jobs.ErrUndecided) {
		t.Errorf("got %d, %v, want none and ErrUndecided", n, err)
	}
	close(answer)
	f.await(entries...)
	if n, err := jobs.DropRefusals(t.Context(), f.pool, jobs.RefusalFilter{Peer: "c"}); n != 1 || err != nil {
		t.Errorf("with a verdict: got %d, %v, want 1", n, err)
	}
}

// What later entries have superseded is not sent any more: an old store would bring a deleted memory back.
func TestSupersededRefusalIsNotRedelivered(t *testing.T) {
	t.Parallel()
	for name, later := range map[string]func(tx pgx.Tx) (outbox.EntryID, error){
		"deleted": func(tx pgx.Tx) (outbox.EntryID, error) { return outbox.Delete(t.Context(), tx, "m-1") },
		"consolidated": func(tx pgx.Tx) (outbox.EntryID, error) {
			return outbox.Consolidate(t.Context(), tx, outbox.Memory{ID: "sum", Namespace: "ns", Title: "sum", Content: "c"}, []string{"m-1"})
		},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			f := start(t, never)
			f.peers.refuse("m-1")
			f.await(f.store("m-1")...)
			f.eventually("it is refused", func() bool { return f.scalar(`select count(*) from refusals where peer = 'c'`) == 1 })
			f.peers.refuse()
			f.inTx(func(tx pgx.Tx) error {
				_, err := later(tx)
				return err
			})
			f.eventually("c has the later entry", func() bool { return slices.Contains(f.peers.got("c"), "delete m-1") })
			f.exec(`update refusals set next_at = now()`)
			f.eventually("the refusal is gone", func() bool { return f.scalar(`select count(*) from refusals`) == 0 && f.lagging() == 0 })
			if slices.Contains(f.peers.got("c"), "store m-1") {
				t.Error("the superseded store was sent")
			}
		})
	}
}

// A memory that was archived and stored again is in the archive, too, also at a peer that refused it then.
func TestSupersededArchiveIsNotLost(t *testing.T) {
	t.Parallel()
	l := newLate(t)
	var refuses atomic.Bool
	pushes := jobs.PushFunc(func(ctx context.Context, id string, req peer.Request) (peer.Report, error) {
		if id == "c" && refuses.Load() && bytes.Contains(req.Body, []byte(`"m-1"`)) {
			return peer.Report{Attempts: 1}, &peer.Error{Class: peer.ClassSkipped, Status: http.StatusOK, Refused: 1}
		}
		return l.Push(ctx, id, req)
	})
	refuses.Store(true)
	f := start(t, func(c *jobs.Config) { c.FanOut, c.RetryPush, c.Policy.W = pushes, pushes, 2 })
	f.exec(memoryNamed("m-1", "ns", "title", "archived"))
	f.exec(`select memory_archive('m-1')`)
	f.eventually("both are refused", func() bool { return f.scalar(`select count(*) from refusals where peer = 'c'`) == 2 })
	refuses.Store(false)
	f.exec(memoryNamed("m-1", "ns", "title", "stored again"))
	f.settled()
	if diff := cmp.Diff(l.state("c"), l.state("a")); diff != "" {
		t.Errorf("c differs from a (-c +a):\n%s", diff)
	}
	if got := len(l.state("a")); got != 2 {
		t.Errorf("a has %d memories, want one that lives and one in the archive", got)
	}
}

// A peer that lags, or is down, is not asked for a refused entry; the refusal waits.
func TestRedeliveryWaitsForALaggingPeer(t *testing.T) {
	t.Parallel()
	f := start(t, never, func(c *jobs.Config) { c.Retry = jobs.Schedule{Initial: time.Hour, Max: time.Hour} })
	f.peers.refuse("m-1")
	f.await(f.store("m-1")...)
	f.eventually("it is refused", func() bool { return f.scalar(`select count(*) from refusals where peer = 'c'`) == 1 })
	f.peers.refuse()
	f.peers.set("c", refusing(peer.ClassRefusedConnection))
	f.await(f.store("m-2")...)
	f.eventually("c lags", func() bool { return f.lagging() == 1 })
	f.exec(`update refusals set next_at = now()`)
	client, ctx := f.client, t.Context()
	sweeper := jobs.NewSweeper(f.pool, client, jobs.Config{Peers: []string{"a", "b", "c"}})
	if err := sweeper.Sweep(ctx); err != nil {
		t.Fatal(err)
	}
	if n := f.scalar(`select count(*) from river_job where kind = 'redeliver'`); n != 0 {
		t.Errorf("got %d redeliveries for a lane that lags, want none", n)
	}
	// One that was made before waits, too.
	var entry int64
	if err := f.pool.QueryRow(ctx, `select entry from refusals`).Scan(&entry); err != nil {
		t.Fatal(err)
	}
	if _, err := client.Insert(ctx, jobs.RedeliverArgs{Peer: "c", Entry: entry}, nil); err != nil {
		t.Fatal(err)
	}
	f.eventually("the redelivery has looked", func() bool {
		return f.scalar(`select count(*) from river_job where kind = 'redeliver' and state = 'completed'`) == 1
	})
	if n := f.scalar(`select count(*) from refusals where attempts = 1 and next_at > now()`); n != 1 {
		t.Errorf("got %d refusals that wait, want 1", n)
	}
}

// A link that a peer skips is tried a few times before it counts as refused, because what it needs may come.
func TestSkippedLinkIsGivenSomeTime(t *testing.T) {
	t.Parallel()
	f := start(t, never)
	f.await(f.store("a")...)
	f.await(f.store("b")...)
	f.peers.refuse("a to b")
	f.inTx(func(tx pgx.Tx) error {
		_, err := outbox.Link(t.Context(), tx, outbox.MemoryLink{SourceID: "a", TargetID: "b", Relation: "related_to"})
		return err
	})
	f.eventually("c lags for it", func() bool { return f.scalar(`select count(*) from lagging where peer = 'c' and failures > 0`) == 1 })
	if n := f.scalar(`select count(*) from refusals`); n != 0 {
		t.Error("it was refused at once")
	}
	f.eventually("it is refused in the end", func() bool { return f.scalar(`select count(*) from refusals`) == 1 && f.lagging() == 0 })
}

// While a batch of the lane is on its way to the peer, a redelivery must not make it look delivered.
func TestRedeliveryBesideAPushThatFails(t *testing.T) {
	t.Parallel()
	var f *fleet
	var held atomic.Bool
	answer := make(chan struct{})
	f = start(t, never, func(c *jobs.Config) {
		c.Policy.W, c.AckTimeout = 4, 5*time.Second // the verdict waits for c
		peers := c.FanOut
		c.FanOut = jobs.PushFunc(func(ctx context.Context, id string, req peer.Request) (peer.Report, error) {
			if id == "c" && held.Load() {
				select {
				case <-answer:
				case <-ctx.Done():
				}
				return peer.Report{Attempts: 1}, &peer.Error{Class: peer.ClassUnavailable}
			}
			return peers.Push(ctx, id, req)
		})
	})
	f.peers.refuse("m-1")
	f.await(f.store("m-1")...)
	f.eventually("it is refused", func() bool { return f.scalar(`select count(*) from refusals where peer = 'c'`) == 1 })
	f.peers.refuse()
	held.Store(true)
	entries := f.store("m-2")
	f.eventually("m-2 is on its way", func() bool { return slices.Contains(f.peers.got("a"), "store m-2") })
	f.exec(`update refusals set next_at = now()`)
	f.eventually("m-1 is redelivered meanwhile", func() bool { return f.scalar(`select count(*) from refusals`) == 0 })
	if n := f.scalar(`select count(*) from batches where verdict = 'pending'`); n != 1 {
		t.Fatalf("got %d undecided batches, want that of m-2", n)
	}
	close(answer)
	f.await(entries...)
	f.eventually("c has both", func() bool {
		got := f.peers.got("c")
		return slices.Contains(got, "store m-1") && slices.Contains(got, "store m-2") && f.lagging() == 0
	})
}

// A worker that dies while it holds the lane for a redelivery leaves a lease that runs out and a refusal that is still due: the lane goes on, and the
// entry arrives. It can have died before its push or after it.
func TestRedeliveryOfAWorkerThatDied(t *testing.T) {
	t.Parallel()
	for name, applied := range map[string]bool{"before its push": false, "after its push": true} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			f := start(t, never)
			f.peers.refuse("m-1")
			f.await(f.store("m-1")...)
			f.eventually("it is refused", func() bool { return f.scalar(`select count(*) from refusals where peer = 'c'`) == 1 })
			f.peers.refuse()
			if applied {
				if _, err := f.peers.Push(t.Context(), "c", peer.Request{Body: []byte(`{"memories":[{"id":"m-1"}]}`)}); err != nil {
					t.Fatal(err)
				}
			}
			// What the claim of a redelivery commits.
			f.exec(`
				insert into lagging (peer, lane, cursor, pushed_to, holder, leased_until)
				select 'c', lane, number, number, nextval('tokens'), clock_timestamp() + interval '300 milliseconds'
				from batches order by number desc limit 1`)
			f.exec(`update refusals set next_at = now()`)
			f.await(f.store("m-2")...)
			f.eventually("the lane goes on", func() bool { return slices.Contains(f.peers.got("c"), "store m-2") })
			f.eventually("the entry arrives and nothing is left", func() bool {
				f.exec(`update refusals set next_at = now() where next_at > now()`)
				return slices.Contains(f.peers.got("c"), "store m-1") && f.lagging() == 0 && f.scalar(`select count(*) from refusals`) == 0
			})
		})
	}
}
