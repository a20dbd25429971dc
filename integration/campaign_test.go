package integration

import (
	"context"
	"flag"
	"math/rand/v2"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"quorumbox/internal/fault"
)

//nolint:gochecknoglobals // flags of the test binary
var (
	killsFlag = flag.Int("campaign.kills", 0, "how often TestCampaign kills a worker at each point; 0: it does not run")
	timeFlag  = flag.Duration("campaign.time", 0, "after how long TestCampaign kills no more, whatever it has done by then; 0: never")
)

const (
	// reachTime is how long a worker may take to get to a point at which it is to die: some take a rare coincidence, and other fleets work beside this one.
	reachTime = 3 * time.Minute

	// foundTime is how long the first worker has to find what the second had when that died for it.
	foundTime = 10 * time.Second

	// shared is up to how many kills a point the points of an arrangement share a fleet.
	shared = 3

	// killsPerLook is after how many kills it is checked, under load, what must hold at any time.
	killsPerLook = 25
)

// Workers kill themselves at every point beside a durable step, each as often as -campaign.kills says, while others go on, peers misbehave and
// writers write. The database and the peers stay. It prints a table of the points. A kill at each takes about two minutes on two cores; run it long with
//
//	go test ./integration -run TestCampaign -campaign.kills=100 -parallel=4 -timeout=120m -v
//
// -campaign.time ends it before, with what it has by then.
func TestCampaign(t *testing.T) {
	t.Parallel()
	if *killsFlag == 0 {
		t.Skip("a campaign of its own: -campaign.kills=100 -parallel=4 -timeout=120m (TestWorkerKilledAt and TestAllKinds kill at points in ordinary runs)")
	}
	results := tally{begin: time.Now()}
	t.Run("points", func(t *testing.T) {
		for _, a := range arrangements(t) {
			for _, points := range a.fleets(*killsFlag) {
				t.Run(a.name+"/"+string(points[0]), func(t *testing.T) {
					t.Parallel()
					if results.timeIsUp() {
						t.Skip("the time of the campaign is up")
					}
					a.run(t, points, *killsFlag, &results)
				})
			}
		}
	})
	t.Log("kills by point:\n" + results.table())
}

// fleets splits the points into those that share one fleet.
func (a arrangement) fleets(kills int) [][]fault.Point {
	if kills <= shared {
		return [][]fault.Point{a.points}
	}
	return slices.Collect(slices.Chunk(a.points, 1))
}

// campaign is the kills at some points in one fleet.
type campaign struct {
	arrangement

	fleet     *fleet
	rng       *rand.Rand
	load      *load
	takeovers *takeovers
	workers   [2]*process // that were started last; either may have ended
	results   *tally
}

// run kills workers at the points, one point after the other, and checks in the end that every peer equals the writer.
func (a arrangement) run(t *testing.T, points []fault.Point, kills int, results *tally) {
	t.Helper()
	seed := rand.Uint64() //nolint:gosec // no secret
	t.Logf("seed of the kills: %d", seed)
	f := newFleet(t, setup{writes: a.writes, ackTimeout: time.Second, zombies: a.zombies, settings: "jobs: {timeout: 4s, rescue_after: 14s}" + a.settings})
	c := &campaign{
		arrangement: a, fleet: f, results: results, takeovers: watchTakeovers(t, f),
		rng: rand.New(rand.NewPCG(seed, 0)), //nolint:gosec // no secret
	}
	o := &operations{fleet: f}
	f.peers[2].setFaults(t, a.faults)
	if _, err := f.pool.Exec(t.Context(), a.prepare); err != nil {
		t.Fatal(err)
	}
	do := o.step
	if a.do != nil {
		do = func(ctx context.Context, rng *rand.Rand, writer, n int) error { return a.do(f, ctx, rng, writer, n) }
	}
	begin, ended := time.Now(), make(chan struct{})
	end := sync.OnceFunc(func() { close(ended) })
	defer end()
	c.load = startLoad(t, 3, f.whileLittleWaits(t, do, ended))
	defer func() { // also if a check has ended the test
		if t.Failed() {
			results.add(points[len(points)-1], result{violations: 1})
		}
	}()
	var disturbing sync.WaitGroup
	if a.disturb != "" {
		disturbing.Go(func() {
			f.again(t.Context(), 10*pollEvery, ended, func(ctx context.Context) {
				_, _ = f.pool.Exec(ctx, a.disturb) // may fail, as what it competes with is being killed
			})
		})
	}
	for _, p := range points {
		c.kill(t, p, kills)
	}
	t.Logf("the points were reached after %s", time.Since(begin).Round(time.Second))
	end()
	disturbing.Wait()
	f.peers[2].setFaults(t, "")
	c.endArmed(t)
	if _, err := f.pool.Exec(t.Context(), retriesComeAsEver); err != nil {
		t.Fatal(err)
	}
	f.worker(t, "") // before the load ends: its writers wait until little is left to dispatch
	c.load.stop(t)
	f.convergeAll(t, changes)
	t.Logf("the peers are equal after %s", time.Since(begin).Round(time.Second))
	results.add(points[len(points)-1], result{took: c.takeovers.distribution()})
}

// mostWaiting is how many entries may wait for the relay, and mostMissed how many batches of a lane a peer may miss, while a campaign's writers write:
// else, as the few memories that they write depend on each other across lanes, the backlog of a worker's death would take longer to go than the next
// death to come.
const (
	mostWaiting = 40
	mostMissed  = 60
)

// whileLittleWaits is a step that first waits a moment, and until little is left to do. One look, every now and then until stop is closed, serves all writers.
func (f *fleet) whileLittleWaits(t *testing.T, do step, stop <-chan struct{}) step {
	t.Helper()
	var little atomic.Bool
	var looking sync.WaitGroup
	looking.Go(func() {
		f.again(t.Context(), 5*pollEvery, stop, func(ctx context.Context) {
			is, err := f.littleWaits(ctx)
			little.Store(is || err != nil) // the writer will have that error, too
		})
		little.Store(true)
	})
	t.Cleanup(looking.Wait)
	return func(ctx context.Context, rng *rand.Rand, writer, n int) error {
		ticker := time.NewTicker(pollEvery)
		defer ticker.Stop()
		for {
			select {
			case <-ctx.Done():
				return ctx.Err()
			case <-ticker.C:
			}
			if little.Load() {
				return do(ctx, rng, writer, n)
			}
		}
	}
}

func (f *fleet) littleWaits(ctx context.Context) (little bool, err error) {
	err = f.pool.QueryRow(ctx, `
		select (select count(*) from (select from undispatched limit $1) u) < $1
		   and not exists (
			select from lagging l
			where (select b.number from batches b where b.lane = l.lane order by b.number desc limit 1) > l.cursor + $2
		)`, mostWaiting, mostMissed).Scan(&little)
	return little, err
}

// kill lets workers kill themselves at a point so many times.
func (c *campaign) kill(t *testing.T, p fault.Point, kills int) {
	t.Helper()
	before, looked := c.load.committed.Load(), 0
	var done result
	begin := time.Now()
	defer func() {
		done.entries = c.load.committed.Load() - before
		c.results.add(p, done)
		t.Logf("%s: %d kills in %s, %d writes", p, done.kills, time.Since(begin).Round(100*time.Millisecond), done.entries)
	}()
	deadline := begin.Add(reachTime)
	for done.kills < kills && !c.results.timeIsUp() {
		c.startWorkers(t, p)
		died := c.oneEnds(t, min(time.Until(deadline), foundTime))
		switch {
		case died != nil:
		case t.Context().Err() == nil && time.Now().Before(deadline):
			c.workers[1].startedBeside = nil // what it had was not for the first one to find
			continue
		default:
			t.Errorf("C10: no worker got to %s within %s", p, reachTime)
			return
		}
		at := time.Now()
		died.wantKilled(t)
		if err := c.takeovers.died(t.Context(), died, at); err != nil {
			t.Fatal(err)
		}
		if died.point == p {
			done.kills++
			deadline = at.Add(reachTime)
		}
		if done.kills-looked >= killsPerLook {
			looked = done.kills
			if wrong := c.fleet.wrongNow(t.Context()); len(wrong) > 0 {
				done.violations += len(wrong)
				t.Errorf("%s, after %d kills, invariants do not hold:\n%s", p, done.kills, list(wrong))
			}
		}
	}
	c.endArmed(t)
}

// startWorkers starts those of the two workers that do not run: the first kills itself at the point, the second does what the arrangement says.
func (c *campaign) startWorkers(t *testing.T, p fault.Point) {
	t.Helper()
	for i, w := range c.workers {
		if w != nil && !w.hasEnded() {
			continue
		}
		if i == 1 && w != nil && len(c.others) > 0 && w.startedBeside == c.workers[0] {
			continue // it has died for the first one to find what it had
		}
		switch {
		case i == 0 && c.command != nil:
			c.workers[i] = c.fleet.launch(t, "operator", []string{"FAULTS=" + kill(p, 1)}, append(slices.Clone(c.command), "--config", c.fleet.config)...)
		case i == 0 || c.both:
			c.workers[i] = c.fleet.worker(t, strings.Join(append(slices.Clone(c.with), kill(p, 1+c.rng.IntN(c.most))), ","))
		case len(c.others) > 0:
			c.workers[i] = c.fleet.worker(t, kill(c.others[c.rng.IntN(len(c.others))], 1+c.rng.IntN(2)))
			c.workers[i].startedBeside = c.workers[0]
		default:
			c.workers[i] = c.fleet.worker(t, "")
			continue
		}
		if i == 0 || c.both {
			c.workers[i].point = p
		}
	}
}

// oneEnds waits until one of the workers that run has ended, nil if that takes longer.
func (c *campaign) oneEnds(t *testing.T, within time.Duration) *process {
	t.Helper()
	timer := time.NewTimer(within)
	defer timer.Stop()
	second := c.workers[1].done
	if c.workers[1].counted {
		second = nil
	}
	var ended *process
	select {
	case <-c.workers[0].done:
		ended = c.workers[0]
	case <-second:
		ended = c.workers[1]
	case <-timer.C:
		return nil
	case <-t.Context().Done():
		return nil
	}
	ended.counted = true
	return ended
}

// endArmed kills the workers that would kill themselves.
func (c *campaign) endArmed(t *testing.T) {
	t.Helper()
	for i, w := range c.workers {
		armed := i == 0 || c.both || len(c.others) > 0
		if w != nil && armed && !w.hasEnded() {
			w.kill(t)
		}
	}
}

// again calls do again and again until stop is closed.
func (f *fleet) again(ctx context.Context, every time.Duration, stop <-chan struct{}, do func(context.Context)) {
	ticker := time.NewTicker(every)
	defer ticker.Stop()
	for {
		select {
		case <-stop:
			return
		case <-ctx.Done():
			return
		case <-ticker.C:
			do(ctx)
		}
	}
}
