package jobs_test

import (
	"bytes"
	"context"
	"slices"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/riverqueue/river"

	"quorumbox/internal/peer"
	"quorumbox/jobs"
)

// A repair's own push can be given up, and arrive after what was stored since.
func TestRepairThatArrivesLateIsRepeated(t *testing.T) {
	t.Parallel()
	f, l := startLate(t)
	x := memoryNamed("x", "ns", "X", "one")
	f.exec(x)
	f.inStep()
	l.hold(`"deletions":["x"]`)
	f.exec(`insert into repairs (peer, subject, key, lane, method, reason) values ('c', 'memory', 'x', outbox_lane('ns'), 'renew', 'verify')`)
	f.eventually("the repair is given up", func() bool { return l.holding() > 0 })
	l.answer()
	f.eventually("it is done, and kept for once more", func() bool {
		return f.scalar(`select count(*) from repairs where again_at is null and due_at > clock_timestamp()`) == 1
	})
	l.land()
	if got := l.state("c"); len(got) != 0 {
		t.Fatalf("got %q, want that the late push has deleted it", got)
	}
	f.settled()
	if diff := cmp.Diff(l.state("a"), l.state("c")); diff != "" {
		t.Errorf("c is not what the others are (-want +got):\n%s", diff)
	}
}

// A subject that a peer refuses is tried from scratch, then slowly, and holds nothing up.
func TestRefusedRepairGoesOnSlowly(t *testing.T) {
	t.Parallel()
	f := start(t, func(c *jobs.Config) {
		c.Redeliver = jobs.Schedule{Initial: 50 * time.Millisecond, Max: 100 * time.Millisecond}
	})
	f.await(f.store("x", "y")...)
	f.peers.refuse("x")
	f.exec(`
		insert into repairs (peer, subject, key, lane, method, reason)
		select 'c', 'memory', id, outbox_lane('ns'), 'store', 'verify' from unnest('{x,y}'::text[]) id`)
	f.eventually("y is repaired, x renewed and refused", func() bool {
		return f.scalar(`select count(*) from repairs where key = 'x' and method = 'renew' and class = 'skipped' and attempts > 1`) == 1 &&
			f.scalar(`select count(*) from repairs where key = 'y'`) == 0
	})
	f.peers.refuse()
	f.eventually("x is repaired", func() bool { return f.scalar(`select count(*) from repairs`) == 0 })
	if got := f.peers.got("c"); got[len(got)-1] != "store x" {
		t.Errorf("got %q, want that x was stored at last", got)
	}
}

// A repair that has to be done once more later is done then, too, if it becomes due for another reason before.
func TestDoubtKeepsTheRepetitionOfARepair(t *testing.T) {
	t.Parallel()
	f, l := startLate(t)
	x := memoryNamed("x", "ns", "X", "one")
	l.hold(`"one"`)
	f.exec(x)
	f.eventually("the push is given up", func() bool { return l.holding() > 0 })
	l.answer()
	f.inStep()
	f.exec(`
		select memory_delete('x');
		insert into repairs (peer, subject, key, lane, method, reason, due_at)
		values ('c', 'memory', 'x', outbox_lane('ns'), 'renew', 'doubt', now() + interval '1 hour')`)
	f.inStep()
	f.exec(`update doubts set until = until - interval '2 hours'`)
	f.eventually("the doubt is over", func() bool { return f.scalar(`select count(*) from doubts`) == 0 })
	f.eventually("the repair is done, and waits", func() bool {
		return f.scalar(`select count(*) from repairs where due_at > now() + interval '30 minutes'`) == 1
	})
}

// A repair does not run ahead of the log: the archive that comes behind it would take along the memory's next life.
func TestRepairWaitsForTheLog(t *testing.T) {
	t.Parallel()
	l := newLate(t)
	f := start(t, func(c *jobs.Config) { c.FanOut, c.RetryPush, c.Policy.W, c.MaxItems = l, l, 2, 1 }) // the archive and the store after it in two pushes
	f.exec(memoryNamed("x", "ns", "X", "one"))
	f.inStep()
	events, unsubscribe := f.client.Subscribe(river.EventKindQueuePaused)
	defer unsubscribe()
	if err := f.client.QueuePause(t.Context(), jobs.FanOutQueue, nil); err != nil {
		t.Fatal(err)
	}
	<-events // the producer has heard of it
	f.exec(`select memory_archive('x')`)
	f.eventually("dispatched", func() bool { return f.scalar(`select count(*) from batches`) == 2 })
	f.exec(memoryNamed("x", "ns", "X", "two"))
	f.exec(`
		insert into repairs (peer, subject, key, lane, method, reason, due_at)
		values ('c', 'memory', 'x', outbox_lane('ns'), 'renew', 'verify', now() - interval '1 minute')`)
	f.eventually("the repair is left for later, or done", func() bool {
		return f.scalar(`select count(*) from repairs where due_at < now() - interval '30 seconds'`) == 0
	})
	if err := f.client.QueueResume(t.Context(), jobs.FanOutQueue, nil); err != nil {
		t.Fatal(err)
	}
	f.settled()
	if diff := cmp.Diff(l.state("a"), l.state("c")); diff != "" {
		t.Errorf("c is not what the others are (-want +got):\n%s", diff)
	}
}

// A repair holds the lanes of the memories that come along, because they have a title by now that its subject may have at the peer: what another repair or the log does to them must
// not come in between.
func TestRepairHoldsTheLanesOfItsGuests(t *testing.T) {
	t.Parallel()
	l := newLate(t)
	pushing, goOn := make(chan struct{}, 100), make(chan struct{})
	stops := jobs.PushFunc(func(ctx context.Context, id string, req peer.Request) (peer.Report, error) {
		if id == "c" && bytes.Contains(req.Body, []byte(`"deletions":["x"`)) {
			pushing <- struct{}{}
			select {
			case <-goOn:
			case <-ctx.Done():
			}
		}
		return l.Push(ctx, id, req)
	})
	f := start(t, func(c *jobs.Config) { c.FanOut, c.RetryPush, c.Policy.W = stops, stops, 2 })
	f.exec(memoryNamed("x", "ns", "X", "one"))
	f.exec(memoryNamed("y", "other", "Y", "one"))
	f.inStep()
	f.exec(`
		insert into repairs (peer, subject, key, lane, method, reason, places)
		values ('c', 'memory', 'x', outbox_lane('ns'), 'renew', 'doubt', '[["other", "Y"]]')`)
	<-pushing
	if n := f.scalar(`
		select count(*) from lagging where lane in (outbox_lane('ns'), outbox_lane('other')) and leased_until > clock_timestamp()`); n != 2 {
		t.Errorf("got %d lanes held, want that of the subject and that of the guest", n)
	}
	close(goOn)
	f.settled()
	if diff := cmp.Diff(l.state("a"), l.state("c")); diff != "" {
		t.Errorf("c is not what the others are (-want +got):\n%s", diff)
	}
}

// While somebody else holds the lane of a guest, the repair is left for later, and nothing of it is pushed.
func TestRepairWaitsForTheLanesOfItsGuests(t *testing.T) {
	t.Parallel()
	f, l := startLate(t)
	f.exec(memoryNamed("x", "ns", "X", "one"))
	f.exec(memoryNamed("y", "other", "Y", "one"))
	f.inStep()
	f.exec(`
		insert into lagging (peer, lane, cursor, pushed_to, holder, leased_until)
		select 'c', lane, max(number), max(number), nextval('tokens'), now() + interval '1 hour' from batches where lane = outbox_lane('other') group by lane`)
	l.hold(`"x"`)
	f.exec(`
		insert into repairs (peer, subject, key, lane, method, reason, places, due_at)
		values ('c', 'memory', 'x', outbox_lane('ns'), 'renew', 'doubt', '[["other", "Y"]]', now() - interval '1 minute')`)
	f.eventually("the repair is left for later", func() bool {
		return f.scalar(`select count(*) from repairs where key = 'x' and due_at > now() - interval '30 seconds'`) == 1
	})
	if n := l.holding(); n != 0 {
		t.Errorf("%d pushes of it were sent", n)
	}
	l.answer()
	f.exec(`delete from lagging`)
	f.settled()
}

// What a namespace's standard became while a repair was pushed is not undone by the repair.
func TestRepairOfAStandardThatChangedMeanwhile(t *testing.T) {
	t.Parallel()
	l := newLate(t)
	pushing, goOn := make(chan struct{}, 1), make(chan struct{})
	stops := jobs.PushFunc(func(ctx context.Context, id string, req peer.Request) (peer.Report, error) {
		if id == "c" && bytes.Contains(req.Body, []byte(`"namespace_meta":[{`)) && bytes.Contains(req.Body, []byte(`"standard_id":"x"`)) {
			select {
			case pushing <- struct{}{}:
				<-goOn
			default: // the first one only
			}
		}
		return l.Push(ctx, id, req)
	})
	f := start(t, func(c *jobs.Config) { c.FanOut, c.RetryPush, c.Policy.W = l, stops, 2 })
	f.exec(memoryNamed("x", "ns", "X", "one"))
	f.exec(memoryNamed("y", "ns", "Y", "one"))
	f.exec(`select namespace_set('{"namespace": "other", "standard_id": "x"}')`)
	f.inStep()
	f.exec(`insert into repairs (peer, subject, key, lane, method, reason) values ('c', 'memory', 'x', outbox_lane('ns'), 'renew', 'doubt')`)
	<-pushing
	f.exec(`select namespace_set('{"namespace": "other", "standard_id": "y"}')`)
	f.eventually("the log has brought the new standard", func() bool { return slices.Contains(l.state("c"), "standard of other: y") })
	close(goOn)
	f.settled()
	if diff := cmp.Diff(l.state("a"), l.state("c")); diff != "" {
		t.Errorf("c is not what the others are (-want +got):\n%s", diff)
	}
}
