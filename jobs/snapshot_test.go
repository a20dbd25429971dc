package jobs_test

import (
	"context"
	"fmt"
	"math/rand/v2"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/jackc/pgx/v5"

	"quorumbox/internal/peer"
	"quorumbox/internal/pgtest"
	"quorumbox/jobs"
	"quorumbox/quorum"
)

// joining is a fleet on late peers that peers join and leave.
type joining struct {
	*fleet

	late   *late
	zombie time.Duration
	stop   func()
}

func newJoining(t *testing.T) *joining {
	t.Helper()
	return &joining{fleet: &fleet{t: t, pool: pgtest.New(t), peers: newScripted()}, late: newLate(t), zombie: time.Hour, stop: func() {}}
}

// with runs the worker with these peers, in place of the one that runs.
func (j *joining) with(peers ...string) {
	j.t.Helper()
	j.stop()
	j.stop = j.run(func(c *jobs.Config) {
		c.Peers, c.Policy = peers, quorum.Policy{N: 1 + len(peers), W: 1}
		c.FanOut, c.RetryPush, c.Zombie = j.late, j.late, j.zombie
	})
}

func (j *joining) snapshots() int { return j.scalar(`select count(*) from snapshots`) }

// pass ends the time in which what was given up may arrive.
func (j *joining) pass() {
	j.fleet.pass()
	// The sweeper makes a job for it at once.
	j.exec(`update snapshots set doubt_until = now(), not_before = least(not_before, now()), retry = null where doubt_until > now()`)
}

func (j *joining) wantEqual() {
	j.t.Helper()
	j.eventually("the snapshots are over", func() bool { return j.snapshots() == 0 })
	j.inStep()
	j.pass() // a worker that was stopped while it pushed left doubts
	j.settled()
	if diff := cmp.Diff(j.late.state("a"), j.late.state("c")); diff != "" {
		j.t.Errorf("c is not what the others are (-want +got):\n%s", diff)
	}
}

// everything is a state with all there is, in more than one part of a snapshot.
func everything() []string {
	return []string{
		`select memory_store(jsonb_build_object('id', 'm-' || i, 'namespace', 'ns/' || i % 40, 'title', 'T' || i, 'content', 'c', 'tier', 'mid', 'source', 'api'))
			from generate_series(1, 1200) i`,
		memoryNamed("x", "ns", "X", "one"), memoryNamed("y", "ns", "Y", "one"), memoryNamed("z", "other", "Z", "one"),
		linked("x", "y"), linked("x", "z"), linked("z", "m-7"),
		`select namespace_set('{"namespace": "ns", "standard_id": "x"}')`,
		`select pending_put('{"id": "p", "action_type": "note", "namespace": "ns", "payload": {}, "requested_by": "ai:x"}')`,
		`select pending_put('{"id": "q", "action_type": "note", "namespace": "ns", "payload": {}, "requested_by": "ai:x"}')`,
		`select pending_decide('q', true, 'ai:y')`,
		memoryNamed("old", "ns", "shared title", "old"), `select memory_archive('old')`,
		memoryNamed("older", "ns", "shared title", "older"), `select memory_archive('older')`,
		memoryNamed("new", "ns", "shared title", "new"),
		memoryNamed("gone", "ns", "gone", "gone"), `select memory_delete('gone')`,
	}
}

func (j *joining) all(statements []string) {
	j.t.Helper()
	for _, sql := range statements {
		j.exec(sql)
	}
}

func TestNewPeerIsBroughtTheCurrentState(t *testing.T) {
	t.Parallel()
	j := newJoining(t)
	j.with("a", "b")
	if n := j.snapshots(); n != 0 {
		t.Errorf("got %d snapshots of the first peers, want none: the log has everything", n)
	}
	j.all(everything())
	j.inStep()
	j.with("a", "b", "c")
	j.wantEqual()
	if got := j.late.state("c"); len(got) < 1200 {
		t.Errorf("got %d lines, want everything", len(got))
	}
	j.exec(memoryNamed("later", "ns", "later", "later"))
	j.wantEqual()
}

// swaps are titles and ids that change places, so that what the peer has left stands in the way of what it should have.
func swaps() []string {
	return []string{
		// a title goes round
		memoryNamed("x", "ns", "X2", "two"), memoryNamed("y", "ns", "X", "two"), memoryNamed("x", "ns", "Y", "two"),
		// from one namespace to another
		memoryNamed("m-1", "ns/2", "moved", "two"), memoryNamed("m-3", "ns/1", "T1", "two"),
		// archived, and the title taken; archived memories back under other titles
		`select memory_archive('z')`, memoryNamed("m-5", "other", "Z", "taker"),
		`select memory_delete('new')`, `select memory_restore('old')`, memoryNamed("old", "ns", "another", "old"), `select memory_restore('older')`,
		`select memory_delete('older')`,
		// deleted and begun again
		`select memory_delete('m-7')`, memoryNamed("m-7", "ns", "gone", "again"), `select memory_delete('m-8')`,
		`select namespace_clear('ns')`, `select namespace_set('{"namespace": "elsewhere", "standard_id": "y"}')`, linked("m-9", "y"),
		`select pending_decide('p', false, 'ai:y')`,
	}
}

// A peer that was away for so long that the log is gone has all sorts of things that stand in the way.
func TestLostPeerIsBroughtTheCurrentState(t *testing.T) {
	t.Parallel()
	j := newJoining(t)
	j.with("a", "b", "c")
	j.all(everything())
	j.settled()
	j.with("a", "b")
	j.all(swaps())
	j.eventually("the others have it", func() bool { return j.scalar(`select count(*) from lagging where peer <> 'c'`) == 0 })
	j.exec(`
		delete from lagging where peer = 'c';
		update peers set state = 'lost' where id = 'c'`)
	j.with("a", "b", "c")
	if n := j.scalar(`select count(*) from snapshots where reason = 'overdue'`); n != 1 {
		t.Errorf("got %d snapshots of an overdue peer, want 1", n)
	}
	j.wantEqual()
}

func (j *joining) resync() {
	j.t.Helper()
	j.inTx(func(tx pgx.Tx) error { return jobs.SwitchToSnapshot(j.t.Context(), tx, "c", jobs.SnapshotAsked) })
}

// writers change a few memories in every way until stop is called.
func (j *joining) writers() (stop func()) {
	ctx, cancel := context.WithCancel(j.t.Context())
	seed := rand.Uint64() //nolint:gosec // no secret
	j.t.Logf("seed %d", seed)
	var wg sync.WaitGroup
	for w := range 3 {
		rng := rand.New(rand.NewPCG(seed, uint64(w))) //nolint:gosec // no secret
		id := func() string { return fmt.Sprintf("m-%d", 1+rng.IntN(30)) }
		ns := func() string { return fmt.Sprintf("ns/%d", rng.IntN(4)) }
		wg.Go(func() {
			pace := time.NewTicker(25 * time.Millisecond) // the relay must keep up: entries that wait for other lanes go one by one while a peer lags
			defer pace.Stop()
			for ctx.Err() == nil {
				<-pace.C
				sql := []string{
					memoryNamed(id(), ns(), fmt.Sprintf("T%d", rng.IntN(30)), fmt.Sprint(rng.Int())),
					memoryNamed(id(), ns(), fmt.Sprintf("T%d", rng.IntN(30)), fmt.Sprint(rng.Int())),
					fmt.Sprintf(`select memory_delete('%s')`, id()), fmt.Sprintf(`select memory_archive('%s')`, id()),
					fmt.Sprintf(`select memory_restore('%s')`, id()), linked(id(), id()), linked(id(), id()),
					fmt.Sprintf(`select namespace_set('{"namespace": "%s", "standard_id": "%s"}')`, ns(), id()),
				}[rng.IntN(8)]
				_, _ = j.pool.Exec(ctx, sql) // refused where it does not fit
			}
		})
	}
	stop = sync.OnceFunc(func() { cancel(); wg.Wait() })
	j.t.Cleanup(stop)
	return stop
}

func TestSnapshotBesideWriters(t *testing.T) {
	t.Parallel()
	for name, stale := range map[string]bool{"new": false, "stale": true} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			j := newJoining(t)
			j.zombie = time.Second
			if stale {
				j.with("a", "b", "c")
			} else {
				j.with("a", "b")
			}
			j.all(everything())
			j.inStep()
			stop := j.writers()
			if stale {
				j.resync()
			} else {
				j.with("a", "b", "c")
			}
			j.eventually("the snapshot is near its end", func() bool { return j.scalar(`select count(*) from snapshots where phase <> 'end'`) == 0 })
			stop()
			j.exec(`update refusals set next_at = now()`)
			j.wantEqual()
		})
	}
}

// Pushes of a snapshot are given up in each phase, tried again, and arrive late.
func TestSnapshotPushThatArrivesLate(t *testing.T) {
	t.Parallel()
	for name, hold := range map[string]string{
		"deletions": `"deletions":["gone"`, "restores": `"restores":["gone"`, "an archived memory": `"archives":["old"`, "memories": `"id": "m-100"`,
		"links": `"links":[{`, "namespaces": `"namespace_meta":[{`, "pending actions": `"pendings":[{`,
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			j := newJoining(t)
			j.with("a", "b", "c")
			j.all(everything())
			j.settled()
			j.late.hold(hold)
			j.resync()
			j.eventually("a push is given up", func() bool { return j.late.holding() > 0 })
			j.all(swaps())
			j.late.answer()
			j.eventually("nothing else is done before it cannot arrive any more", func() bool {
				return j.scalar(`select count(*) from snapshots where doubt_until > now() and not_before > now() + interval '1 minute'`) == 1
			})
			j.late.land()
			for j.snapshots() > 0 {
				j.pass()
				j.eventually("it goes on", func() bool {
					return j.scalar(`select count(*) from snapshots where doubt_until <= now() or doubt_until is null or not_before < now() + interval '1 minute'`) > 0 ||
						j.snapshots() == 0
				})
			}
			j.pass()
			j.wantEqual()
		})
	}
}

// What was pushed before the snapshot began may arrive in the middle of it: it waits first.
func TestSnapshotWaitsForWhatWasPushedBefore(t *testing.T) {
	t.Parallel()
	j := newJoining(t)
	j.with("a", "b", "c")
	j.all(everything())
	j.settled()
	j.late.hold(`"deletions":["x"`)
	j.exec(`select memory_delete('x')`)
	j.eventually("the delete is given up", func() bool { return j.late.holding() > 0 })
	j.late.answer()
	j.inStep()
	j.exec(memoryNamed("x", "ns", "X", "again"))
	j.inStep()
	j.resync()
	j.eventually("it has begun, and waits", func() bool {
		return j.scalar(`select count(*) from snapshots where total > 1200 and pushed = 0 and not_before > now() + interval '1 minute'`) == 1
	})
	j.late.land()
	j.pass()
	j.wantEqual()
	if !slices.ContainsFunc(j.late.state("c"), func(s string) bool { return strings.HasPrefix(s, "live x: ") }) {
		t.Error("x is not there")
	}
}

func (f *fleet) snapshotOver() {
	f.t.Helper()
	f.eventually("the snapshot is over", func() bool { return f.scalar(`select count(*) from snapshots`) == 0 })
}

// wantAllStored checks that c got all memories.
func (f *fleet) wantAllStored() {
	f.t.Helper()
	got := f.peers.got("c")
	slices.Sort(got)
	if n := len(slices.Compact(got)); n != 1200 {
		f.t.Errorf("got %d memories stored at c, want 1200", n)
	}
}

func TestSnapshotOfAPeerThatRefusesAMemory(t *testing.T) {
	t.Parallel()
	f := &fleet{t: t, pool: pgtest.New(t), peers: newScripted()}
	stop := f.run(func(c *jobs.Config) { c.Peers, c.Policy = []string{"a", "b"}, quorum.Policy{N: 3, W: 2} })
	f.exec(everything()[0])
	f.inStep()
	stop()
	f.peers.refuse("m-500", "m-7")
	f.run(func(c *jobs.Config) { c.Policy.W = 2 })
	f.snapshotOver()
	f.eventually("c is in step but for what it refuses", func() bool {
		return f.lagging() == 0 && f.scalar(`select count(*) from repairs where reason = 'snapshot' and key in ('m-7', 'm-500') and class = 'skipped'`) == 2
	})
	if n := f.scalar(`select count(*) from repairs`); n != 2 {
		t.Errorf("got %d repairs, want 2", n)
	}
	f.peers.refuse()
	f.eventually("c gets them at last", func() bool { return f.scalar(`select count(*) from repairs`) == 0 })
	got := f.peers.got("c")
	for _, id := range []string{"m-7", "m-500", "m-8"} {
		if !slices.Contains(got, "store "+id) {
			t.Errorf("%s is not stored", id)
		}
	}
}

// A peer that goes down in the middle costs no attempts, and gets the rest when it is back.
func TestSnapshotOfAPeerThatGoesDown(t *testing.T) {
	t.Parallel()
	var pushes int
	var down sync.Mutex
	f := &fleet{t: t, pool: pgtest.New(t), peers: newScripted()}
	f.peers.set("c", func(context.Context) error {
		down.Lock()
		defer down.Unlock()
		if pushes++; pushes > 1 && pushes < 12 {
			return &peer.Error{Class: peer.ClassRefusedConnection}
		}
		return nil
	})
	stop := f.run(func(c *jobs.Config) { c.Peers, c.Policy = []string{"a", "b"}, quorum.Policy{N: 3, W: 2} })
	f.exec(everything()[0])
	f.inStep()
	stop()
	f.run(func(c *jobs.Config) { c.Policy.W = 2 })
	f.snapshotOver()
	f.eventually("in step", func() bool { return f.lagging() == 0 })
	f.wantAllStored()
	if n := f.scalar(`select coalesce(max(cardinality(errors)), 0) from river_job where kind = 'snapshot'`); n != 0 {
		t.Errorf("got %d errors of the job, want none", n)
	}
}

// The worker was killed while it pushed a part: another one goes on from there, soon, and waits in the end for what may still arrive.
func TestSnapshotOfAKilledWorker(t *testing.T) {
	t.Parallel()
	j := newJoining(t)
	j.with("a", "b")
	j.all(everything())
	j.inStep()
	j.late.hold(`"m-999"`)
	j.with("a", "b", "c")
	j.eventually("in the middle", func() bool {
		return j.scalar(`select count(*) from snapshots where phase = 'memories' and after_key <> '' and failures > 0`) == 1
	})
	j.stop()
	j.exec(`update snapshots set holder = nextval('tokens'), leased_until = now(), retry = nextval('tokens'), doubt_until = null`)
	before := j.scalar(`select pushed from snapshots`)
	j.late.answer()
	j.with("a", "b", "c")
	j.eventually("the rest of the memories is pushed", func() bool {
		return j.scalar(`select count(*) from snapshots where phase = 'links' and doubt_until > now() + interval '1 minute' and holder is null`) == 1
	})
	if n := j.scalar(`select pushed from snapshots`); n <= before {
		t.Errorf("got %d pushed, want more than the %d of the first worker", n, before)
	}
	j.late.land()
	j.pass()
	j.wantEqual()
}

func TestSnapshotAskedForWhileOneRuns(t *testing.T) {
	t.Parallel()
	j := newJoining(t)
	j.zombie = time.Second
	j.with("a", "b", "c")
	j.all(everything())
	j.settled()
	j.late.hold(`"m-500"`)
	j.resync()
	j.eventually("in the middle", func() bool { return j.late.holding() > 0 })
	j.resync()
	if n := j.scalar(`select count(*) from snapshots where phase = 'deletions' and pushed = 0 and reason = 'asked'`); n != 1 {
		t.Errorf("got %d snapshots at their beginning, want 1", n)
	}
	j.late.answer()
	j.wantEqual()
}

// A peer that is taken out of the configuration in the middle goes on where it was when it is back.
func TestSnapshotOfAPeerThatLeaves(t *testing.T) {
	t.Parallel()
	j := newJoining(t)
	j.with("a", "b")
	j.all(everything())
	j.inStep()
	j.zombie = time.Second
	j.late.hold(`"m-999"`)
	j.with("a", "b", "c")
	j.eventually("in the middle", func() bool { return j.late.holding() > 0 })
	j.with("a", "b")
	j.late.answer()
	j.all(swaps())
	j.eventually("the others have it", func() bool { return j.scalar(`select count(*) from lagging where peer <> 'c'`) == 0 })
	if n := j.scalar(`select count(*) from snapshots where phase = 'memories' and pushed > 0`); n != 1 {
		t.Errorf("got %d snapshots in the middle, want 1", n)
	}
	j.with("a", "b", "c")
	j.wantEqual()
}

// What an application keeps in tables of its own is only in the log: what comes after the snapshot's start is not lost.
func TestSnapshotLeavesToTheLogWhatOnlyTheLogHas(t *testing.T) {
	t.Parallel()
	j := newJoining(t)
	j.zombie = time.Second
	j.with("a", "b", "c")
	j.all(everything())
	j.settled()
	j.late.hold(`"deletions":["gone"`)
	j.resync()
	j.eventually("it has begun", func() bool { return j.late.holding() > 0 })
	for i := range 1500 {
		j.exec(fmt.Sprintf(`select outbox_append('app', 'store', 'app-%d',
			'{"id": "app-%[1]d", "namespace": "app", "title": "A%[1]d", "content": "mine", "tier": "mid", "source": "api"}')`, i))
	}
	j.late.answer()
	j.wantEqual()
}
