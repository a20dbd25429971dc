package integration

import (
	"flag"
	"math/rand/v2"
	"testing"
	"time"
)

//nolint:gochecknoglobals // a flag of the test binary
var stormFlag = flag.Duration("storm", 5*time.Second, "for how long TestOneKilledEverySecond kills workers")

// Of two workers under load one is killed every second, and started again. Nothing is lost. It prints how long it takes until another worker pushes
// what a dead one had.
func TestOneKilledEverySecond(t *testing.T) {
	t.Parallel()
	f := newFleet(t, setup{})
	seed := rand.Uint64() //nolint:gosec // no secret
	t.Logf("seed of the kills: %d", seed)
	rng := rand.New(rand.NewPCG(seed, 0)) //nolint:gosec // no secret
	watch := watchTakeovers(t, f)

	workers := []*process{f.worker(t, ""), f.worker(t, "")}
	l := startLoad(t, 4, f.inserts)
	ticker := time.NewTicker(time.Second)
	defer ticker.Stop()
	kills := 0
	for end := time.Now().Add(*stormFlag); time.Now().Before(end) || len(watch.distribution()) == 0 && kills < 60; kills++ { // a worker may die with nothing in its hands
		select {
		case <-ticker.C:
		case <-t.Context().Done():
			t.Fatal("the test ended")
		}
		i := rng.IntN(len(workers))
		workers[i].kill(t)
		if err := watch.died(t.Context(), workers[i], time.Now()); err != nil {
			t.Fatal(err)
		}
		workers[i] = f.worker(t, "")
	}
	l.reach(t, 50)
	l.stop(t)
	f.converge(t, insertsOnly)
	t.Logf("%d workers killed, %d writes committed; lanes of dead workers taken over: %s", kills, l.committed.Load(), watch.distribution())
	if got, want := f.count(t, `select count(*) from memories`), int(l.committed.Load()); got != want {
		t.Errorf("the database has %d memories, the writers committed %d", got, want)
	}
	if kills < 3 || len(watch.distribution()) == 0 {
		t.Errorf("C10: %d workers were killed, and %d lanes of theirs were measured", kills, len(watch.distribution()))
	}
}
