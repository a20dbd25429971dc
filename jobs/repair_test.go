package jobs_test

import (
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/riverqueue/river"

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
