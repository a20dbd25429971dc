package jobs_test

import (
	"context"
	"fmt"
	"sync"
	"testing"
	"time"

	"quorumbox/internal/peer"
	"quorumbox/jobs"
	"quorumbox/outbox"
)

// A dead peer is asked once, by whoever finds it dead; then by one retry in each pause, whatever is written in however many lanes.
func TestDeadPeerIsProbedOnceForAllLanes(t *testing.T) {
	t.Parallel()
	for name, class := range map[string]peer.Class{"refused": peer.ClassRefusedConnection, "server error": peer.ClassServerError, "wrong key": peer.ClassUnauthorized} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			f := start(t, func(c *jobs.Config) {
				c.Retry = jobs.Schedule{Initial: 300 * time.Millisecond, Max: 300 * time.Millisecond, Hold: 300 * time.Millisecond}
			})
			f.peers.set("c", refusing(class))
			f.await(f.store("ns0:first")...)
			f.eventually("found out", func() bool { return f.scalar(`select count(*) from lagging where failures = 1`) == 1 })
			for round := range 3 {
				if v := f.await(f.store(inManyLanes(60, fmt.Sprint(round))...)...); !v.IsMet() {
					t.Errorf("got %+v, want met by the others", v)
				}
			}
			f.eventually("probed", func() bool { return f.scalar(`select min(failures) from lagging`) >= 4 })
			lanes := f.lagging()
			if lanes < 20 {
				t.Fatalf("got %d lagging lanes, want most of 32", lanes)
			}
			// Each request is a failure in a row of the whole peer. One may be under way.
			f.eventually("as many requests as pauses", func() bool {
				requests := f.peers.count("c")
				failures := f.scalar(`select max(failures) from lagging`)
				if requests > failures+1 {
					t.Fatalf("got %d requests and %d failures in a row: the peer was asked by several lanes", requests, failures)
				}
				return requests == failures
			})
			f.eventually("all lanes wait for the same instant", func() bool {
				return f.scalar(`select count(*) from (select 1 from lagging group by not_before having count(*) >= `+fmt.Sprint(lanes-1)+`) x`) == 1
			})
			f.peers.set("c", nil)
			f.eventually("c in step", func() bool { return f.lagging() == 0 && len(f.peers.got("c")) == 181 })
		})
	}
}

// A peer that answers nothing costs each lane a deadline or two, until a second failure in a row, which comes with the first retry; one that cannot be connected to
// costs one.
func TestSilentPeerHoldsUpFewFanOuts(t *testing.T) {
	t.Parallel()
	for class, most := range map[peer.Class]int{peer.ClassTimeout: 2 * outbox.Lanes, peer.ClassConnectTimeout: 1} {
		t.Run(string(class), func(t *testing.T) {
			t.Parallel()
			holdsUpFewFanOuts(t, class, most)
		})
	}
}

// holdsUpFewFanOuts has c answer nothing, and wants no more than most requests of fan-outs.
func holdsUpFewFanOuts(t *testing.T, class peer.Class, most int) {
	t.Helper()
	f := start(t, func(c *jobs.Config) { c.AckTimeout, c.PushTimeout = 300*time.Millisecond, 300*time.Millisecond })
	f.peers.set("c", func(ctx context.Context) error {
		<-ctx.Done()
		return &peer.Error{Class: class}
	})
	f.await(f.store("ns0:first")...)
	f.eventually("found out", func() bool { return f.scalar(`select count(*) from lagging where last_class like '%timeout'`) == 1 })
	for i := range 100 {
		if v := f.await(f.store(fmt.Sprintf("ns%d:m-%d", i, i))...); !v.IsMet() {
			t.Fatalf("write %d: got %+v, want met by the others", i, v)
		}
	}
	if requests, failures := f.peers.count("c"), f.scalar(`select max(failures) from lagging`); requests > failures+most+1 { // one may be under way
		t.Errorf("got %d requests and %d failures in a row for 100 writes, want at most %d requests that are no probes", requests, failures, most)
	}
}

// What a peer asks for in one lane holds for all.
func TestRetryAfterHoldsTheWholePeer(t *testing.T) {
	t.Parallel()
	f := start(t)
	f.peers.set("c", func(context.Context) error { return &peer.Error{Class: peer.ClassRateLimited, RetryAfter: time.Hour} })
	f.await(f.store("ns0:first")...)
	f.eventually("found out", func() bool { return f.lagging() == 1 })
	f.await(f.store(inManyLanes(60, "x")...)...)
	f.eventually("all lanes held", func() bool {
		return f.lagging() >= 20 && f.scalar(`select count(*) from lagging where not_before < now() + interval '50 minutes'`) == 0
	})
	if n := f.peers.count("c"); n != 1 {
		t.Errorf("got %d requests to a peer that asked to be left alone for an hour, want 1", n)
	}
}

// A refused entry is the entry's trouble: the other lanes go on.
func TestRefusalDoesNotHoldThePeer(t *testing.T) {
	t.Parallel()
	f := start(t, never)
	f.peers.refuse("first")
	f.await(f.store("ns0:first")...)
	f.await(f.store(inManyLanes(40, "x")...)...)
	f.eventually("c has the others", func() bool { return len(f.peers.got("c")) == 40 })
	if n := f.scalar(`select count(*) from lagging where last_class <> ''`); n != 0 {
		t.Errorf("got %d lanes left alone, want none", n)
	}
}

// A peer that is away is asked for one refused entry, not for all of them.
func TestRefusalsOfADeadPeerWait(t *testing.T) {
	t.Parallel()
	f := start(t, func(c *jobs.Config) {
		c.RetryWorkers = 1
		c.Redeliver = jobs.Schedule{Initial: time.Hour, Max: time.Hour}
	})
	var ids []string
	for i := range 50 {
		ids = append(ids, fmt.Sprintf("ns:r-%d", i))
	}
	f.peers.mu.Lock()
	for i := range 50 {
		f.peers.refused["c"] = append(f.peers.refused["c"], fmt.Sprintf("r-%d", i))
	}
	f.peers.mu.Unlock()
	f.await(f.store(ids...)...)
	f.eventually("all refused", func() bool { return f.scalar(`select count(*) from refusals`) == 50 && f.lagging() == 0 })
	f.peers.set("c", refusing(peer.ClassRefusedConnection))
	before := f.peers.count("c")
	f.exec(`update refusals set next_at = now()`)
	f.eventually("all wait again", func() bool {
		return f.scalar(`select count(*) from refusals where next_at > now() + interval '30 minutes'`) == 50
	})
	f.eventually("no job is left", func() bool {
		return f.scalar(`select count(*) from river_job where kind = 'redeliver' and state <> 'completed'`) == 0
	})
	if n := f.peers.count("c") - before; n != 1 {
		t.Errorf("got %d requests for 50 refused entries of a dead peer, want 1", n)
	}
}

// A peer that comes back with a backlog in all lanes is never pushed by more retries at a time than are configured.
func TestReturningPeerIsNotFlooded(t *testing.T) {
	t.Parallel()
	const workers = 2
	f := start(t, func(c *jobs.Config) {
		c.RetryWorkers, c.MaxItems = workers, 20
		c.CatchupRates = map[string]int{"c": 5000}
	})
	f.peers.set("c", refusing(peer.ClassRefusedConnection))
	f.await(f.store("ns0:first")...)
	f.eventually("found out", func() bool { return f.lagging() == 1 })
	for round := range 10 {
		f.await(f.store(inManyLanes(60, fmt.Sprint(round))...)...)
	}
	var (
		mu        sync.Mutex
		now, most int
	)
	f.peers.set("c", func(context.Context) error {
		mu.Lock()
		now++
		most = max(most, now)
		mu.Unlock()
		timer := time.NewTimer(2 * time.Millisecond) // the time that a push takes
		defer timer.Stop()
		<-timer.C
		mu.Lock()
		now--
		mu.Unlock()
		return nil
	})
	f.eventually("c in step", func() bool { return f.lagging() == 0 && len(f.peers.got("c")) == 601 })
	mu.Lock()
	defer mu.Unlock()
	if most > workers || most == 0 {
		t.Errorf("got %d requests at a time, want 1 to %d", most, workers)
	}
}
