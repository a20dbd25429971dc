package integration

import (
	"context"
	"fmt"
	"math/rand/v2"
	"testing"
	"time"

	"quorumbox/internal/fault"
	"quorumbox/outbox"
)

// crash is what surrounds one point at which a worker is killed.
type crash struct {
	// slow: a peer answers late, so that the verdict is known while it is still waited for.
	slow bool
	// back: a peer was down while a first worker worked, and is back.
	back bool
	// left is what must be found after the kill: the rows say where the worker was.
	left string
}

// crashes are the points at which a worker is killed once, with a look at what it leaves. A campaign kills it at all of them, again and again.
func crashes() map[fault.Point]crash {
	const (
		none      = `not exists (select from %s)`
		undecided = `exists (select from batches where verdict = 'pending') and not exists (select from batches where verdict <> 'pending')`
		decided   = `exists (select from batches) and not exists (select from batches where verdict = 'pending')`
		drained   = `not exists (select from undispatched)`
		behind    = `exists (select from lagging where retry is not null and holder is not null)`
	)
	return map[fault.Point]crash{
		fault.RelayChosen:     {left: `exists (select from undispatched) and ` + fmt.Sprintf(none, "batches")},
		fault.RelayDispatched: {left: drained + ` and ` + undecided},
		fault.FanOutLoaded:    {left: drained + ` and ` + undecided},
		fault.FanOutAcked:     {left: drained + ` and ` + undecided},
		fault.FanOutDecided:   {slow: true, left: decided + ` and exists (select from lagging where retry is null and holder is not null)`},
		fault.FanOutRecorded:  {left: decided + ` and ` + fmt.Sprintf(none, "lagging")},
		fault.RetryClaimed:    {back: true, left: behind},
		fault.RetryAcked:      {back: true, left: behind},
		fault.RetryRecorded:   {back: true, left: decided},
	}
}

// pushed says which peers have how many of the entries when the worker dies at the point.
func pushed(p fault.Point, entries int) (peers []int, least, most int) {
	switch p {
	case fault.RelayChosen, fault.FanOutLoaded:
		return []int{0, 1, 2}, 0, 0
	case fault.FanOutAcked, fault.FanOutRecorded:
		return []int{0, 1, 2}, entries, entries
	case fault.FanOutDecided:
		return []int{2}, 0, 0
	case fault.RetryAcked, fault.RetryRecorded: // several retries of the peer run at once
		return []int{2}, 1, entries
	default: // a job of the same process may be quicker than the kill
	}
	return nil, 0, 0
}

// A worker is killed at each point between two durable steps. The next one finishes what it had begun.
func TestWorkerKilledAt(t *testing.T) {
	t.Parallel()
	for point, c := range crashes() {
		t.Run(string(point), func(t *testing.T) {
			t.Parallel()
			c.test(t, point)
		})
	}
}

func (c crash) test(t *testing.T, point fault.Point) {
	t.Helper()
	s := setup{writes: "all"} // so that no verdict is known before the last answer
	if c.slow || c.back {
		s.writes = "majority"
	}
	f := newFleet(t, s)
	third := f.peers[2]
	written := memories("before", 12)
	entries := f.store(t, written...)
	switch {
	case c.slow:
		third.setFaults(t, `{"mode":"slow","delay":"1500ms"}`)
	case c.back:
		third.kill(t)
		w := f.worker(t, "")
		wantMet(t, f.await(t, entries...), len(entries))
		w.kill(t)
		if f.count(t, `select count(*) from lagging`) == 0 {
			t.Fatal("C10: the peer that was down does not lag")
		}
		third.start(t)
	}
	f.workerKilledAt(t, string(point))

	var left bool
	if err := f.pool.QueryRow(t.Context(), `select `+c.left).Scan(&left); err != nil {
		t.Fatal(err)
	}
	if !left {
		t.Errorf("C10: the worker was not killed at %s: want %s", point, c.left)
	}
	f.wantPushed(t, point, len(written))

	// The writer goes on while no worker runs.
	changed := memory(written[5].ID, "team/elsewhere")
	changed.Content += ", moved"
	entries = append(entries, f.store(t, changed)...)
	entries = append(entries, f.delete(t, written[2].ID))
	if c.slow {
		third.wantFault(t, "slow")
		third.setFaults(t, "")
	}
	taken := f.takeover(t)
	f.worker(t, "")
	taken.want(t)
	wantMet(t, f.await(t, entries...), len(entries))
	f.converge(t, changes)
}

// wantPushed checks that the kill came before, or after, the pushes (C10).
func (f *fleet) wantPushed(t *testing.T, point fault.Point, entries int) {
	t.Helper()
	peers, least, most := pushed(point, entries)
	for _, i := range peers {
		log, err := f.peers[i].log(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		if len(log) < least || len(log) > most {
			t.Errorf("C10: %s has %d entries when the worker dies at %s, want %d to %d", f.peers[i].id, len(log), point, least, most)
		}
	}
}

func TestWorkerKilledBeforeTheCommit(t *testing.T) {
	t.Parallel()
	f := newFleet(t, setup{})
	f.worker(t, "").kill(t)

	entries := f.store(t, memories("alone", 9)...)
	f.worker(t, "")
	wantMet(t, f.await(t, entries...), len(entries))
	f.converge(t, insertsOnly)
}

// A worker dies while another one works on: that one takes over, without a restart, within what I8 allows.
func TestWorkerKilledBesideAnother(t *testing.T) {
	t.Parallel()
	for _, point := range []fault.Point{fault.RelayChosen, fault.FanOutLoaded, fault.FanOutAcked, fault.FanOutDecided} {
		t.Run(string(point), func(t *testing.T) {
			t.Parallel()
			f := newFleet(t, setup{})
			doomed := f.worker(t, string(point)+"=kill@5")
			f.worker(t, "")
			if point == fault.FanOutDecided {
				f.peers[2].setFaults(t, `{"mode":"slow","delay":"100ms"}`)
			}
			l := startLoad(t, 3, f.inserts)
			doomed.wait(t, settleTime)
			doomed.wantKilled(t)
			f.takeover(t).want(t)
			f.peers[2].setFaults(t, "")
			l.stop(t)
			f.converge(t, insertsOnly)
		})
	}
}

// takeoverBound is the p99 of I8.
const takeoverBound = 15 * time.Second

// takeover is what a worker that has just died left to the others.
type takeover struct {
	fleet   *fleet
	since   time.Time
	last    outbox.EntryID // the newest that was committed
	holders []int64        // of lagging lanes
}

func (f *fleet) takeover(t *testing.T) takeover {
	t.Helper()
	o := takeover{fleet: f, since: time.Now()}
	err := f.pool.QueryRow(t.Context(), `
		select coalesce(max(id), 0), (select coalesce(array_agg(distinct holder) filter (where holder is not null), '{}') from lagging)
		from outbox`).Scan(&o.last, &o.holders)
	if err != nil {
		t.Fatal(err)
	}
	return o
}

// want waits until all of it is decided, and held by somebody else.
func (o takeover) want(t *testing.T) {
	t.Helper()
	untilWithin(t, takeoverBound, "the dead worker's work is taken over", func() []string {
		left, err := o.fleet.strings(t.Context(), `
			select 'entry ' || entry || ' is not dispatched' from undispatched where entry <= $1
			union all
			select 'batch ' || number || ' of lane ' || lane || ' is not decided' from batches where verdict = 'pending' and first_entry <= $1
			union all
			select peer || ' lags in lane ' || lane || ', which the dead worker holds' from lagging where holder = any ($2)`, o.last, o.holders)
		return append(left, problem(err)...)
	})
	t.Logf("taken over after %s", time.Since(o.since).Round(time.Millisecond))
}

// Workers are killed one after the other at any moment, while writers write and a peer comes and goes.
func TestWorkersKilledUnderLoad(t *testing.T) {
	t.Parallel()
	f := newFleet(t, setup{})
	seed := rand.Uint64() //nolint:gosec // no secret
	t.Logf("seed of the kills: %d", seed)
	rng := rand.New(rand.NewPCG(seed, 0)) //nolint:gosec // no secret

	l := startLoad(t, 3, f.anything)
	for i := range 6 {
		w := f.worker(t, "")
		l.reach(t, 20+rng.IntN(300))
		switch i {
		case 1:
			f.peers[1].kill(t)
		case 3:
			f.peers[1].start(t)
		}
		w.kill(t)
	}
	f.worker(t, "")
	l.reach(t, 100)
	l.stop(t)
	f.converge(t, changes)
}

// retriesMatch waits until lagging lanes and retry jobs match (C3), which they do at any time but around a kill.
func (f *fleet) retriesMatch(t *testing.T) {
	t.Helper()
	until(t, "lagging lanes and retry jobs match", func() []string { return f.retryJobs(context.WithoutCancel(t.Context())) })
}

// kill is the setting that lets a worker kill itself at a point, the n-th time that it gets there.
func kill(point fault.Point, n int) string { return fmt.Sprintf("%s=kill@%d", point, n) }
