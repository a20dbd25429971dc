package jobs_test

import (
	"sync"
	"testing"
	"time"

	"quorumbox/jobs"
)

// turns counts what a fleet's loops and queues tell of.
type turns struct {
	mu     sync.Mutex
	counts map[string]int
	within map[string]time.Duration
}

func (s *turns) note(loop string, within time.Duration) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.counts[loop]++
	s.within[loop] = within
}

func (s *turns) of(loop string) int {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.counts[loop]
}

// What River's producers do is seen, whether or not it succeeds; so is the sweeper.
func TestLoopsTellOfTheirTurns(t *testing.T) {
	t.Parallel()
	seen := &turns{counts: map[string]int{}, within: map[string]time.Duration{}}
	f := start(t, func(c *jobs.Config) {
		c.QueueTurned = seen.note
		c.SweepTurned = func(within time.Duration) { seen.note("sweeper", within) }
	})
	again := func(when string, loops ...string) {
		t.Helper()
		for _, loop := range loops {
			before := seen.of(loop)
			f.eventually(loop+" turns "+when, func() bool { return seen.of(loop) > before+1 })
		}
	}
	again("while idle", jobs.FanOutQueue, jobs.PeerQueue("a"), jobs.PeerQueue("b"), jobs.PeerQueue("c"), "sweeper")

	f.exec(`alter table river_job rename to river_job_away`)
	f.exec(`alter table batches rename to batches_away`)
	again("while each look fails", jobs.FanOutQueue, jobs.PeerQueue("a"), "sweeper")
	f.exec(`alter table batches_away rename to batches`)
	f.exec(`alter table river_job_away rename to river_job`)
	f.await(f.store("m-1")...)

	seen.mu.Lock()
	defer seen.mu.Unlock()
	if got := seen.within[jobs.FanOutQueue]; got < time.Minute || got > 2*time.Minute {
		t.Errorf("got a bound of %s for a queue, want a little more than River's minute", got)
	}
}

// Of a paused queue River looks at the row only.
func TestPausedQueueTurns(t *testing.T) {
	t.Parallel()
	seen := &turns{counts: map[string]int{}, within: map[string]time.Duration{}}
	f := start(t, func(c *jobs.Config) { c.QueueTurned = seen.note })
	if _, err := jobs.PausePeer(t.Context(), f.pool, "a"); err != nil {
		t.Fatal(err)
	}
	queue := jobs.PeerQueue("a")
	look := func() {
		t.Helper()
		if _, err := f.client.QueueGet(t.Context(), queue); err != nil { // as its producer does once a minute
			t.Fatal(err)
		}
	}
	before := 0
	f.eventually("the producer is paused", func() bool { // then only a look at the row is a turn
		look()
		before = seen.of(queue)
		look()
		return seen.of(queue) == before+1
	})
	if _, err := jobs.ResumePeer(t.Context(), f.pool, "a"); err != nil {
		t.Fatal(err)
	}
	f.eventually("it looks for jobs again", func() bool { return seen.of(queue) > before+3 })
}
