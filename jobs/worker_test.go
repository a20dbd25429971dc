package jobs_test

import (
	"context"
	"fmt"
	"slices"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/riverqueue/river"

	"quorumbox/internal/peer"
	"quorumbox/internal/pgtest"
	"quorumbox/jobs"
	"quorumbox/outbox"
	"quorumbox/quorum"
)

func TestAllAck(t *testing.T) {
	t.Parallel()
	f := start(t)
	if v := f.await(f.store("m-1")...); !v.IsMet() {
		t.Errorf("got %+v, want met", v)
	}
	f.eventually("job completed", func() bool {
		return f.scalar(`select count(*) from river_job where kind = 'fan_out' and state = 'completed'`) == 1
	})
	for _, p := range []string{"a", "b", "c"} {
		if diff := cmp.Diff(stores("m-1"), f.peers.got(p)); diff != "" {
			t.Errorf("%s (-want +got):\n%s", p, diff)
		}
	}
	if n := f.scalar(`select count(*) from batches where acked = '{a,b,c}' and needed = 3 and members = 4 and deadline > decided_at`); n != 1 {
		t.Errorf("got %d batches that say who acknowledged, want 1", n)
	}
	if n := f.lagging(); n != 0 {
		t.Errorf("got %d lagging rows on the happy path, want none", n)
	}
}

func TestManyEntriesGoInFewPushes(t *testing.T) {
	t.Parallel()
	f := start(t)
	var ids []string
	for i := range 500 {
		ids = append(ids, fmt.Sprintf("ns%d:m-%d", i%30, i))
	}
	if v := f.await(f.store(ids...)...); !v.IsMet() || v.Met != 500 {
		t.Errorf("got %+v, want 500 met", v)
	}
	f.eventually("all peers have all", func() bool { return len(f.peers.got("c")) == 500 && f.lagging() == 0 })
	if n := f.peers.count("a"); n > 3 {
		t.Errorf("got %d pushes for one transaction, want at most 3", n)
	}
}

func TestPeerDownLagsAndCatchesUp(t *testing.T) {
	t.Parallel()
	f := start(t)
	f.peers.set("c", refusing(peer.ClassRefusedConnection))
	var ids []string
	for i := range 30 {
		id := fmt.Sprintf("m-%02d", i)
		ids = append(ids, id)
		if v := f.await(f.store(id)...); !v.IsMet() {
			t.Fatalf("%s: got %+v, want met by the other two", id, v)
		}
	}
	if n := f.lagging(); n != 1 {
		t.Errorf("got %d lagging rows for one lane of one peer, want 1", n)
	}
	if n := f.scalar(`select count(*) from river_job where kind = 'peer_retry' and state in ('available', 'scheduled', 'running', 'retryable')`); n != 1 {
		t.Errorf("got %d live retries, want 1", n)
	}
	if n := f.scalar(`select count(*) from peers where last_error_class = 'refused_connection' and last_error_at is not null`); n != 1 {
		t.Errorf("got %d peers with their last error, want 1", n)
	}
	f.peers.set("c", nil)
	f.eventually("c in step", func() bool { return f.lagging() == 0 })
	if diff := cmp.Diff(stores(ids...), f.peers.got("c")); diff != "" {
		t.Errorf("c got (-want +got):\n%s", diff)
	}
	if v := f.await(f.store("last")...); !v.IsMet() {
		t.Errorf("got %+v, want met", v)
	}
	f.eventually("c is pushed by the fan-out again", func() bool { return slices.Contains(f.peers.got("c"), "store last") })
	if n := f.scalar(`select count(*) from batches where 'c' = any (acked)`); n != 1 {
		t.Errorf("got %d batches that c acknowledged in time, want the last", n)
	}
}

func TestNotMetIsHonestAndDeliveredLater(t *testing.T) {
	t.Parallel()
	for name, c := range map[string]struct {
		answer func(context.Context) error
		want   outbox.Reason
	}{
		"down":     {refusing(peer.ClassRefusedConnection), outbox.ReasonUnreachable},
		"id drift": {refusing(peer.ClassIDDrift), outbox.ReasonIDDrift},
		"skipped":  {refusing(peer.ClassSkipped), outbox.ReasonRefused},
		"timeout": {func(ctx context.Context) error {
			<-ctx.Done()
			return &peer.Error{Class: peer.ClassTimeout}
		}, outbox.ReasonTimeout},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			f := start(t, func(c *jobs.Config) { c.AckTimeout, c.PushTimeout = 300*time.Millisecond, 300*time.Millisecond })
			f.peers.set("b", c.answer)
			f.peers.set("c", c.answer)
			v := f.await(f.store("m-1")...)
			if v.IsMet() || v.NotMet[c.want] != 1 {
				t.Errorf("got %+v, want not met: %s", v, c.want)
			}
			f.peers.set("b", nil)
			f.peers.set("c", nil)
			f.eventually("all peers in step", func() bool {
				return f.lagging() == 0 && slices.Contains(f.peers.got("b"), "store m-1") && slices.Contains(f.peers.got("c"), "store m-1")
			})
			if f.scalar(`select count(*) from batches where verdict = 'not_met'`) != 1 {
				t.Error("the verdict changed afterwards")
			}
		})
	}
}

// The verdict is recorded when W-1 peers have it; the straggler's answer comes later, and the lane does not wait for it.
func TestStragglerDoesNotDelayTheVerdict(t *testing.T) {
	t.Parallel()
	f := start(t)
	release := make(chan struct{})
	f.peers.set("c", func(ctx context.Context) error {
		select {
		case <-release:
			return nil
		case <-ctx.Done():
			return &peer.Error{Class: peer.ClassTimeout}
		}
	})
	if v := f.await(f.store("m-1")...); !v.IsMet() {
		t.Fatalf("got %+v, want met", v)
	}
	if n := f.scalar(`select count(*) from lagging where peer = 'c' and holder is not null and retry is null`); n != 1 {
		t.Errorf("got %d rows of the straggler, want one, held by the fan-out", n)
	}
	if v := f.await(f.store("m-2")...); !v.IsMet() {
		t.Fatalf("got %+v, want met while c is slow", v)
	}
	close(release)
	f.eventually("c in step", func() bool { return f.lagging() == 0 && len(f.peers.got("c")) >= 2 })
	if diff := cmp.Diff(stores("m-1", "m-2"), f.peers.got("c")); diff != "" {
		t.Errorf("c got (-want +got):\n%s", diff)
	}
}

// slow answers after a while.
func slow(d time.Duration) func(context.Context) error {
	return func(ctx context.Context) error {
		timer := time.NewTimer(d)
		defer timer.Stop()
		select {
		case <-timer.C:
			return nil
		case <-ctx.Done():
			return &peer.Error{Class: peer.ClassTimeout}
		}
	}
}

// A peer that is always a little slower than the others is sent everything once, in order, and in larger pushes.
func TestSlowPeerIsSentNothingTwice(t *testing.T) {
	t.Parallel()
	f := start(t)
	f.peers.set("c", slow(20*time.Millisecond))
	var ids []string
	for i := range 100 {
		id := fmt.Sprintf("m-%03d", i)
		ids = append(ids, id)
		if v := f.await(f.store(id)...); !v.IsMet() {
			t.Fatalf("%s: got %+v, want met", id, v)
		}
	}
	f.eventually("c in step", func() bool { return f.lagging() == 0 })
	for _, p := range []string{"a", "b", "c"} {
		if diff := cmp.Diff(stores(ids...), f.peers.got(p)); diff != "" {
			t.Errorf("%s got (-want +got):\n%s", p, diff)
		}
	}
}

// A straggler of one batch is a member of the next one's quorum, if it is needed: its lane is waited for.
func TestStragglerIsWaitedForWhenNeeded(t *testing.T) {
	t.Parallel()
	f := start(t)
	f.peers.set("c", slow(20*time.Millisecond))
	for i := range 60 {
		if i == 20 {
			f.peers.set("b", refusing(peer.ClassRefusedConnection))
		}
		if v := f.await(f.store(fmt.Sprintf("m-%03d", i))...); !v.IsMet() {
			f.dump()
			t.Fatalf("entry %d: got %+v, want met by a and the slow c", i, v)
		}
	}
}

// Our tables are the truth: whatever happens to River's rows, the work gets a new job.
func TestSweeperReplacesLostJobs(t *testing.T) {
	t.Parallel()
	for name, lose := range map[string]string{
		"deleted":   `delete from river_job where kind = 'peer_retry' and state <> 'running'`,
		"cancelled": `update river_job set state = 'cancelled', finalized_at = now() where kind = 'peer_retry' and state <> 'running'`,
		"discarded": `update river_job set state = 'discarded', finalized_at = now() where kind = 'peer_retry' and state <> 'running'`,
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			f := start(t, func(c *jobs.Config) {
				c.Retry = jobs.Schedule{Initial: 500 * time.Millisecond, Max: 500 * time.Millisecond}
			})
			f.peers.set("c", refusing(peer.ClassUnavailable))
			f.await(f.store("m-1")...)
			f.eventually("the retry is lost", func() bool {
				tag, err := f.pool.Exec(t.Context(), lose)
				if err != nil {
					t.Fatal(err)
				}
				return tag.RowsAffected() == 1
			})
			f.peers.set("c", nil)
			f.eventually("c in step", func() bool { return f.lagging() == 0 })
			if diff := cmp.Diff(stores("m-1"), f.peers.got("c")); diff != "" {
				t.Errorf("c got (-want +got):\n%s", diff)
			}
		})
	}
}

func TestSweeperReplacesLostFanOut(t *testing.T) {
	t.Parallel()
	f := start(t, func(c *jobs.Config) { c.AckTimeout, c.Lease = 100*time.Millisecond, 400*time.Millisecond })
	events, unsubscribe := f.client.Subscribe(river.EventKindQueuePaused)
	defer unsubscribe()
	if err := f.client.QueuePause(t.Context(), jobs.FanOutQueue, nil); err != nil {
		t.Fatal(err)
	}
	<-events // the producer has heard of it
	entries := f.store("m-1")
	f.eventually("dispatched, job lost", func() bool {
		tag, err := f.pool.Exec(t.Context(), `delete from river_job where kind = 'fan_out' and state = 'available'`)
		if err != nil {
			t.Fatal(err)
		}
		return tag.RowsAffected() == 1
	})
	f.eventually("a new job", func() bool {
		return f.scalar(`select count(*) from river_job where kind = 'fan_out' and state = 'available'`) == 1
	})
	// A paused queue's job is left alone, however long its lease has run out.
	before := f.scalar(`select max(id) from river_job`)
	f.eventually("lease over", func() bool {
		return f.scalar(`select count(*) from batches where leased_until < now() - interval '1500 ms'`) == 1
	})
	if after := f.scalar(`select max(id) from river_job`); after != before {
		t.Errorf("got another job %d beside the waiting one %d", after, before)
	}
	if err := f.client.QueueResume(t.Context(), jobs.FanOutQueue, nil); err != nil {
		t.Fatal(err)
	}
	if v := f.await(entries...); !v.IsMet() {
		t.Errorf("got %+v, want met", v)
	}
}

// A store that follows the memory's delete in another lane does not reach a peer that misses that delete.
func TestMoveWaitsForTheOtherLaneAtEachPeer(t *testing.T) {
	t.Parallel()
	f := start(t)
	f.await(f.store("ns:m-1")...)
	f.eventually("all in step", func() bool { return f.lagging() == 0 && len(f.peers.got("c")) == 1 })
	f.peers.set("c", refusing(peer.ClassUnavailable))
	f.await(f.store("other:m-1")...) // a move
	f.await(f.store("other:m-2")...)
	f.await(f.store("ns:m-3")...)
	f.peers.set("c", nil)
	f.eventually("c in step", func() bool { return f.lagging() == 0 })
	got := f.peers.got("c")
	deleted, moved := slices.Index(got, "delete m-1"), slices.Index(got[1:], "store m-1")+1
	if deleted < 0 || moved < deleted {
		t.Errorf("c got %q, want m-1 deleted before it is stored again", got)
	}
	for _, id := range []string{"m-2", "m-3"} {
		if !slices.Contains(got, "store "+id) {
			t.Errorf("c got %q, without %s", got, id)
		}
	}
}

// A backlog is pushed in large pushes, in order, not entry by entry.
func TestCatchUpInFewPushes(t *testing.T) {
	t.Parallel()
	f := start(t, func(c *jobs.Config) { c.Retry = jobs.Schedule{Initial: time.Second, Max: time.Second} })
	f.peers.set("c", refusing(peer.ClassRefusedConnection))
	var want []string
	for round := range 5 {
		var ids []string
		for i := range 500 {
			ids = append(ids, fmt.Sprintf("ns:m-%d-%d", round, i))
			want = append(want, fmt.Sprintf("store m-%d-%d", round, i))
		}
		f.await(f.store(ids...)...)
	}
	before := f.peers.count("c")
	f.peers.set("c", nil)
	f.eventually("c in step", func() bool { return f.lagging() == 0 })
	if diff := cmp.Diff(want, f.peers.got("c")); diff != "" {
		t.Errorf("c got (-want +got):\n%s", diff)
	}
	if n := f.peers.count("c") - before; n > 6 {
		t.Errorf("got %d pushes for 2500 entries, want at most 6", n)
	}
}

// A retry whose lease is taken from it while it pushes gives the push up, and the peer is not blamed for that.
func TestRetryGivesUpAPushWithItsLease(t *testing.T) {
	t.Parallel()
	f := start(t)
	f.peers.set("c", refusing(peer.ClassRefusedConnection))
	f.await(f.store("m-1")...)
	pushing, givenUp := make(chan struct{}), make(chan struct{})
	f.peers.set("c", func(ctx context.Context) error {
		close(pushing)
		<-ctx.Done()
		f.peers.set("c", nil)
		close(givenUp)
		return &peer.Error{Class: peer.ClassCanceled}
	})
	<-pushing
	failures := f.scalar(`select failures from lagging`)
	if _, err := f.pool.Exec(t.Context(), `update lagging set holder = nextval('tokens')`); err != nil {
		t.Fatal(err)
	}
	<-givenUp
	if n := f.scalar(`select failures from lagging`); n != failures {
		t.Errorf("got %d failures after the lost lease, want %d as before", n, failures)
	}
	f.eventually("c in step", func() bool { return f.lagging() == 0 })
	if n := f.scalar(`select count(*) from peers where last_error_class = 'canceled'`); n != 0 {
		t.Error("the peer was blamed")
	}
}

func TestConfigurationErrorIsProbedSlowly(t *testing.T) {
	t.Parallel()
	f := start(t, func(c *jobs.Config) {
		c.Retry = jobs.Schedule{Initial: time.Millisecond, Max: time.Second, Hold: time.Hour}
	})
	f.peers.set("c", refusing(peer.ClassUnauthorized))
	f.await(f.store("m-1")...)
	f.eventually("held", func() bool {
		return f.scalar(`select count(*) from lagging where peer = 'c' and last_class = 'unauthorized' and not_before > now() + interval '50 minutes'`) == 1
	})
}

func TestRetryAfterIsHeeded(t *testing.T) {
	t.Parallel()
	f := start(t)
	f.peers.set("c", func(context.Context) error { return &peer.Error{Class: peer.ClassUnavailable, RetryAfter: time.Hour} })
	f.await(f.store("m-1")...)
	f.eventually("held", func() bool {
		return f.scalar(`select count(*) from lagging where peer = 'c' and not_before > now() + interval '50 minutes'`) == 1
	})
}

func TestNoPeers(t *testing.T) {
	t.Parallel()
	f := start(t, func(c *jobs.Config) { c.Peers, c.Policy = nil, quorum.Policy{N: 1, W: 1} })
	if v := f.await(f.store("m-1")...); !v.IsMet() {
		t.Errorf("got %+v, want met by the local commit", v)
	}
}

// A peer that is taken out of the configuration and put back gets what was written meanwhile.
func TestPeerIsAbsentForAWhile(t *testing.T) {
	t.Parallel()
	f := &fleet{t: t, pool: pgtest.New(t), peers: newScripted()}
	stop := f.run()
	f.await(f.store("m-1", "other:m-2")...)
	f.eventually("all in step", func() bool { return f.lagging() == 0 && len(f.peers.got("c")) == 2 })
	stop()

	stop = f.run(func(c *jobs.Config) { c.Peers, c.Policy = []string{"a", "b"}, quorum.Policy{N: 3, W: 2} })
	if v := f.await(f.store("m-3", "other:m-4", "third:m-5")...); !v.IsMet() {
		t.Errorf("got %+v, want met without c", v)
	}
	if n := f.scalar(`select count(*) from peers where id = 'c' and state = 'absent'`); n != 1 {
		t.Error("c is not absent")
	}
	if n := f.scalar(`select count(*) from river_job where kind = 'peer_retry'`); n != 0 {
		t.Errorf("got %d retries for a peer that is not configured, want none", n)
	}
	stop()

	f.run()
	f.eventually("c in step", func() bool { return f.lagging() == 0 })
	got := f.peers.got("c")
	slices.Sort(got)
	if diff := cmp.Diff(stores("m-1", "m-2", "m-3", "m-4", "m-5"), slices.Compact(got)); diff != "" {
		t.Errorf("c got (-want +got):\n%s", diff)
	}
}

func TestNewClientRefusesBadConfig(t *testing.T) {
	t.Parallel()
	ok := newScripted()
	for name, cfg := range map[string]jobs.Config{
		"policy": {Peers: []string{"a"}, Policy: quorum.Policy{N: 3, W: 2}, FanOut: ok, RetryPush: ok},
		"timeouts": {
			Peers: []string{"a"}, Policy: quorum.Policy{N: 2, W: 2}, FanOut: ok, RetryPush: ok,
			JobTimeout: 3 * time.Second, PushTimeout: 3 * time.Second,
		},
		"pushers": {Peers: []string{"a"}, Policy: quorum.Policy{N: 2, W: 2}},
	} {
		if _, err := jobs.NewClient(nil, cfg); err == nil {
			t.Errorf("%s: got no error", name)
		}
	}
}
