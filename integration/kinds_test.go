package integration

import (
	"math/rand/v2"
	"testing"
	"time"

	"quorumbox/internal/fault"
)

// Several writers do operations of all kinds, in several namespaces, while workers are killed between durable steps, a peer is
// killed and comes back, and another one loses answers, answers late or not at all. In the end every list of every peer equals the writer's.
func TestAllKinds(t *testing.T) {
	t.Parallel()
	f := newFleet(t, setup{ackTimeout: time.Second})
	seed := rand.Uint64() //nolint:gosec // no secret
	t.Logf("seed of the kills: %d", seed)
	rng := rand.New(rand.NewPCG(seed, 0)) //nolint:gosec // no secret
	o := &operations{fleet: f}
	killed, faulty := f.peers[1], f.peers[2]

	faults := map[fault.Point]string{
		fault.RelayDispatched: `{"mode":"lose_answer","probability":0.5}`,
		fault.FanOutAcked:     `[{"status":503,"probability":0.3},{"mode":"down","probability":0.3}]`,
		fault.FanOutDecided:   `{"mode":"slow","delay":"150ms"}`,
		fault.RetryClaimed:    `[{"mode":"lose_answer","probability":0.3},{"status":500,"probability":0.3}]`,
		fault.RetryAcked:      `{"mode":"lose_answer","probability":0.7}`,
		fault.RetryRecorded:   `[{"mode":"slow","delay":"2s","probability":0.2},{"mode":"lose_answer","probability":0.2}]`,
	}
	for i, point := range []fault.Point{
		fault.RelayChosen, fault.RelayDispatched, fault.FanOutLoaded, fault.FanOutAcked, fault.FanOutDecided, fault.FanOutRecorded,
		fault.RetryClaimed, fault.RetryAcked, fault.RetryRecorded,
	} {
		if point == fault.FanOutDecided { // which is reached only if a peer in step answers late
			f.settle(t)
		}
		faulty.setFaults(t, faults[point])
		switch point {
		case fault.FanOutLoaded, fault.RetryClaimed:
			killed.kill(t)
		case fault.FanOutAcked, fault.RetryAcked:
			killed.start(t)
		default:
		}
		nth := 1 + rng.IntN(3)
		if point == fault.FanOutDecided {
			nth = 1 // before the late one lags
		}
		w := f.worker(t, kill(point, nth))
		o.round = i
		f.burstsUntilKilled(t, w, o)
	}
	faulty.setFaults(t, `{"mode":"lose_answer","count":5}`)
	f.worker(t, "")
	o.round++
	l := startLoad(t, 4, o.step)
	l.reach(t, 100)
	o.reachAllKinds(t)
	o.reachAllRefusals(t)
	l.stop(t)
	until(t, "answers were lost", func() []string {
		c, err := faulty.counters(t.Context())
		return append(problem(err), holds(c.Faults["lose_answer"] >= 5, "C10: too few")...)
	})
	f.convergeAll(t, changes)
	o.wantKinds(t)
	o.wantRefusals(t)
}

// settle lets a worker bring every peer in step.
func (f *fleet) settle(t *testing.T) {
	t.Helper()
	for _, p := range f.peers {
		p.setFaults(t, "")
	}
	w := f.worker(t, "")
	f.convergeAll(t, changes)
	w.terminate(t)
}

// burstsUntilKilled writes until the worker has killed itself, with pauses in which peers that are well get in step.
func (f *fleet) burstsUntilKilled(t *testing.T, w *process, o *operations) {
	t.Helper()
	until(t, w.name+" has killed itself", func() []string {
		l := startLoad(t, 4, o.step)
		l.reach(t, 60)
		l.stop(t)
		until(t, "all is decided", func() []string {
			if w.hasEnded() {
				return nil
			}
			left, err := f.strings(t.Context(), `
				select 'entry ' || entry || ' is not dispatched' from undispatched
				union all
				select 'batch ' || number || ' of lane ' || lane || ' is not decided' from batches where verdict = 'pending'
				union all
				select peer || ' lags in lane ' || lane from lagging where peer = $1`, f.peers[0].id)
			return append(left, problem(err)...)
		})
		return holds(w.hasEnded(), "it has not")
	})
	w.wantKilled(t)
}

// Without a fault nothing is refused or skipped, not even for a moment, and a peer that was down for all of it gets the same from its backlog.
func TestAllKindsToAPeerThatWasDown(t *testing.T) {
	t.Parallel()
	f := newFleet(t, setup{})
	late := f.peers[2]
	late.kill(t)
	o := &operations{fleet: f}
	f.worker(t, "")
	l := startLoad(t, 4, o.step)
	l.reach(t, 500)
	o.reachAllKinds(t)
	o.reachAllRefusals(t)
	l.stop(t)
	until(t, "the others have all", func() []string {
		left, err := f.strings(t.Context(), `select peer || ' lags' from lagging where peer <> $1
			union all select 'entry ' || entry || ' is not dispatched' from undispatched
			union all select 'batch is not decided' from batches where verdict = 'pending'`, late.id)
		return append(left, problem(err)...)
	})
	if f.count(t, `select count(*) from lagging where peer = $1`, late.id) == 0 {
		t.Error("C10: the peer that is down does not lag")
	}
	late.start(t)
	f.convergeAll(t, changes)
	o.wantKinds(t)
	o.wantRefusals(t)
	for _, p := range f.peers {
		log, err := p.log(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		for _, a := range log {
			// A circle of reflections that a change in a third lane has broken may still be there for a moment.
			if (a.Result == "skipped" || a.Result == "merged") && a.Reason != "circle" {
				t.Errorf("%s: %s of %q was %s: %s", p.id, a.Op, a.ID, a.Result, a.Reason)
			}
		}
	}
}
