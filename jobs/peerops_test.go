package jobs_test

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"quorumbox/internal/peer"
	"quorumbox/internal/pgtest"
	"quorumbox/jobs"
)

// inManyLanes names one memory in each of n namespaces.
func inManyLanes(n int, id string) (ids []string) {
	for i := range n {
		ids = append(ids, fmt.Sprintf("ns%d:%s-%d", i, id, i))
	}
	return ids
}

func (f *fleet) pause(p string) {
	f.t.Helper()
	if changed, err := jobs.PausePeer(f.t.Context(), f.pool, p); err != nil || !changed {
		f.t.Fatalf("pause: got %t, %v", changed, err)
	}
}

func (f *fleet) resume() {
	f.t.Helper()
	if changed, err := jobs.ResumePeer(f.t.Context(), f.pool, "c"); err != nil || !changed {
		f.t.Fatalf("resume: got %t, %v", changed, err)
	}
}

// A paused peer is pushed nothing, in lanes in which it is in step and in those in which it lags, also after a restart of the fleet; resumed, it gets all, in order.
func TestPausedPeerIsNotPushed(t *testing.T) {
	t.Parallel()
	f := &fleet{t: t, pool: pgtest.New(t), peers: newScripted()}
	stop := f.run()
	f.await(f.store("ns:m-0")...)
	f.eventually("all in step", func() bool { return f.lagging() == 0 && len(f.peers.got("c")) == 1 })
	f.pause("c")
	before := f.peers.count("c")
	want := []string{"store m-0"}
	write := func(from int) {
		for i := from; i < from+10; i++ {
			id := fmt.Sprintf("m-%d", i)
			want = append(want, "store "+id)
			if v := f.await(f.store("ns:" + id)...); !v.IsMet() {
				t.Errorf("%s: got %+v, want met by the two others", id, v)
			}
		}
		f.await(f.store(inManyLanes(20, fmt.Sprintf("x%d", from))...)...)
	}
	write(1)
	stop()
	stop = f.run()
	write(11)
	f.eventually("each retry waits in the paused queue", func() bool {
		return f.scalar(`select count(*) from lagging where retry is not null and holder is null`) == f.lagging()
	})
	if n := f.peers.count("c"); n != before {
		t.Errorf("got %d pushes to a paused peer, want none", n-before)
	}
	if n := f.scalar(`select count(*) from lagging where failures > 0 or last_class <> '' or peer <> 'c'`); n != 0 {
		t.Errorf("got %d lanes that failed, want none", n)
	}
	f.resume()
	f.eventually("c in step", func() bool { return f.lagging() == 0 })
	got := slices.DeleteFunc(f.peers.got("c"), func(s string) bool { return strings.HasPrefix(s, "store x") })
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("c got (-want +got):\n%s", diff)
	}
	if n := len(f.peers.got("c")); n != 21+40 {
		t.Errorf("c got %d stores, want 61", n)
	}
	stop()
}

// A quorum that needs a paused peer is not met, and says so.
func TestPausedPeerGivesNoVote(t *testing.T) {
	t.Parallel()
	f := start(t)
	f.pause("b")
	f.pause("c")
	if v := f.await(f.store("m-1")...); v.IsMet() || v.NotMet["unreachable"] != 1 {
		t.Errorf("got %+v, want not met: unreachable", v)
	}
	if n := f.peers.count("b") + f.peers.count("c"); n != 0 {
		t.Errorf("got %d pushes to paused peers, want none", n)
	}
	f.pause("a")
	if v := f.await(f.store("m-2")...); v.IsMet() {
		t.Errorf("got %+v with all peers paused, want not met", v)
	}
}

// A retry that runs when its peer is paused ends after the push that it has begun.
func TestPauseStopsARunningRetry(t *testing.T) {
	t.Parallel()
	f := start(t, func(c *jobs.Config) { c.MaxItems = 10 })
	f.peers.set("c", refusing(peer.ClassRefusedConnection))
	for range 10 {
		var ids []string
		for i := range 10 {
			ids = append(ids, fmt.Sprintf("ns:m-%d-%d", f.scalar(`select count(*) from outbox`), i))
		}
		f.await(f.store(ids...)...)
	}
	pushing, release := make(chan struct{}, 100), make(chan struct{})
	f.peers.set("c", func(ctx context.Context) error {
		pushing <- struct{}{}
		select {
		case <-release:
			return nil
		case <-ctx.Done():
			return &peer.Error{Class: peer.ClassTimeout}
		}
	})
	<-pushing
	f.pause("c")
	count := f.peers.count("c")
	close(release)
	f.eventually("the lanes are given back", func() bool {
		return f.scalar(`select count(*) from lagging where holder is null and cursor > 0`) == 1
	})
	f.await(f.store("ns:last")...)
	if n := f.peers.count("c"); n != count {
		t.Errorf("got %d pushes after the pause, want none", n-count)
	}
	f.resume()
	f.eventually("c in step", func() bool { return f.lagging() == 0 && len(f.peers.got("c")) == 101 })
}

func TestPausePeerRefuses(t *testing.T) {
	t.Parallel()
	pool := pgtest.New(t)
	_, err := jobs.PausePeer(t.Context(), pool, "x")
	if !errors.Is(err, jobs.ErrUnknownPeer) || !strings.Contains(err.Error(), "none is known yet") {
		t.Errorf("got %v, want no known peer", err)
	}
	if _, err := pool.Exec(t.Context(), `insert into peers (id) values ('peer-a'), ('peer-b')`); err != nil {
		t.Fatal(err)
	}
	for name, do := range map[string]func() error{
		"pause":  func() error { _, err := jobs.PausePeer(t.Context(), pool, "peer-c"); return err },
		"resume": func() error { _, err := jobs.ResumePeer(t.Context(), pool, "peer-c"); return err },
		"remove": func() error { _, err := jobs.RemovePeer(t.Context(), pool, "peer-c"); return err },
		"drain":  func() error { _, err := jobs.NewDrain(t.Context(), pool, "peer-c"); return err },
	} {
		if err := do(); !errors.Is(err, jobs.ErrUnknownPeer) || !strings.Contains(err.Error(), "peer-a, peer-b") {
			t.Errorf("%s: got %v, want the known peers", name, err)
		}
	}
}

// No worker needs to have run: the queue is made.
func TestPauseBeforeTheFirstWorker(t *testing.T) {
	t.Parallel()
	f := &fleet{t: t, pool: pgtest.New(t)}
	f.exec(`insert into peers (id) values ('c')`)
	if changed, err := jobs.ResumePeer(t.Context(), f.pool, "c"); err != nil || changed {
		t.Errorf("resume of a peer that is not paused: got %t, %v, want no change", changed, err)
	}
	f.pause("c")
	if changed, err := jobs.PausePeer(t.Context(), f.pool, "c"); err != nil || changed {
		t.Errorf("second pause: got %t, %v, want no change", changed, err)
	}
	if f.scalar(`select count(*) from river_queue where name = 'peer_c' and paused_at is not null`) != 1 {
		t.Error("the queue is not paused")
	}
	f.resume()
	if f.scalar(`select count(*) from river_queue where name = 'peer_c' and paused_at is null`) != 1 {
		t.Error("the queue is paused")
	}
}

func TestRemovePeer(t *testing.T) {
	t.Parallel()
	f := &fleet{t: t, pool: pgtest.New(t)}
	f.exec(`
		insert into peers (id) values ('b'), ('c');
		create table later (who text references peers (id));
		insert into later values ('b'), ('c'), ('c');
		insert into lagging (peer, lane, cursor, pushed_to) values ('b', 1, 0, 0), ('c', 1, 0, 0), ('c', 2, 0, 0);
		insert into refusals (peer, entry, lane, class) values ('b', 1, 1, 'skipped'), ('c', 1, 1, 'skipped');
		insert into doubts (peer, lane, from_number, to_number, until) values ('b', 1, 1, 2, now()), ('c', 1, 1, 2, now());
		insert into repairs (peer, subject, key, lane, method, reason) values ('b', 'memory', 'm', 1, 'store', 'doubt'), ('c', 'memory', 'm', 1, 'store', 'doubt');
		insert into river_queue (name, updated_at) values ('peer_b', now()), ('peer_c', now());
		insert into river_job (kind, args, max_attempts, queue, state) values
			('peer_retry', '{}', 1, 'peer_b', 'available'), ('peer_retry', '{}', 1, 'peer_c', 'available'), ('redeliver', '{}', 1, 'peer_c', 'running')`)
	refused := func(says string) {
		t.Helper()
		if _, err := jobs.RemovePeer(t.Context(), f.pool, "c"); !errors.Is(err, jobs.ErrPeerInUse) || !strings.Contains(err.Error(), says) {
			t.Errorf("got %v, want a refusal that says %q", err, says)
		}
	}
	refused("take c out of the configuration")
	f.exec(`update peers set state = 'absent' where id = 'c'`)
	refused("a job for c is running")
	if n := f.scalar(`select count(*) from lagging where peer = 'c'`); n != 2 {
		t.Errorf("got %d rows after the refusals, want both", n)
	}
	f.exec(`update river_job set state = 'scheduled' where state = 'running'`)

	removed, err := jobs.RemovePeer(t.Context(), f.pool, "c")
	want := map[string]int64{"later": 2, "lagging": 2, "refusals": 1, "doubts": 1, "repairs": 1, "river_queue": 1, "river_job": 2, "peers": 1}
	for table := range removed { // of later migrations: this peer has nothing there
		if _, ok := want[table]; !ok {
			want[table] = 0
		}
	}
	if diff := cmp.Diff(want, removed); err != nil || diff != "" {
		t.Errorf("got %v (-want +got):\n%s", err, diff)
	}
	for _, table := range []string{"later", "lagging", "refusals", "doubts", "repairs", "river_queue", "river_job", "peers"} {
		if n := f.scalar(`select count(*) from ` + table); n != 1 {
			t.Errorf("%s: got %d rows, want that of the other peer", table, n)
		}
	}
}

func TestDrain(t *testing.T) {
	t.Parallel()
	f := start(t)
	look := func(d *jobs.Drain) jobs.DrainState {
		t.Helper()
		s, err := d.Look(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		return s
	}
	begin := func() *jobs.Drain {
		t.Helper()
		d, err := jobs.NewDrain(t.Context(), f.pool, "c")
		if err != nil {
			t.Fatal(err)
		}
		return d
	}
	if s := look(begin()); !s.Done {
		t.Errorf("nothing was ever written: got %+v, want done", s)
	}
	f.pause("c")
	f.await(f.store("ns:m-1", "ns:m-2", "other:m-3")...)
	f.eventually("noted", func() bool { return f.lagging() == 2 })
	d := begin()
	if s := look(d); s.Done || !s.Paused || s.Missing != 3 {
		t.Errorf("got %+v, want 3 entries missing at a paused peer", s)
	}
	f.await(f.store("ns:later")...) // is not waited for
	if s := look(d); s.Missing != 3 {
		t.Errorf("got %+v, want the 3 entries that were there", s)
	}
	f.peers.refuse("m-2")
	f.resume()
	f.eventually("drained", func() bool { return look(d).Done })
	if s := look(d); len(s.Refused) != 1 {
		t.Errorf("got %+v, want the entry that c refuses", s)
	}
}

// What keeps a drain from being done, each alone.
func TestDrainCounts(t *testing.T) {
	t.Parallel()
	const batch = `
		insert into batches (lane, number, entries, first_entry, last_entry, bytes, position, fan_out, leased_until, verdict, needed)
		values (3, 1, '{1}', 1, 1, 0, 1, 1, now(), 'met', 1), (3, 2, '{2,3}', 2, 3, 0, 3, 2, now(), '%s', 1);`
	for name, c := range map[string]struct {
		rows string
		want jobs.DrainState
	}{
		"not dispatched": {`
			insert into outbox (lane, namespace, kind, key) values (5, 'n', 'delete', 'k');
			insert into undispatched (lane, entry, bytes) select lane, id, 1 from outbox`, jobs.DrainState{Undispatched: 1}},
		"undecided":        {fmt.Sprintf(batch, "pending"), jobs.DrainState{Undecided: 1}},
		"in step":          {fmt.Sprintf(batch, "met"), jobs.DrainState{Done: true}},
		"has the newest":   {fmt.Sprintf(batch, "pending") + `insert into lagging (peer, lane, cursor, pushed_to) values ('c', 3, 2, 2)`, jobs.DrainState{Done: true}},
		"misses the last":  {fmt.Sprintf(batch, "met") + `insert into lagging (peer, lane, cursor, pushed_to) values ('c', 3, 1, 2)`, jobs.DrainState{Missing: 2}},
		"misses all":       {fmt.Sprintf(batch, "met") + `insert into lagging (peer, lane, cursor, pushed_to) values ('c', 3, 0, 0)`, jobs.DrainState{Missing: 3}},
		"another misses":   {fmt.Sprintf(batch, "met") + `insert into lagging (peer, lane, cursor, pushed_to) values ('a', 3, 0, 0)`, jobs.DrainState{Done: true}},
		"repair":           {`insert into repairs (peer, subject, key, lane, method, reason) values ('c', 'memory', 'm', 1, 'store', 'doubt')`, jobs.DrainState{Repairs: 1}},
		"repair, not due":  {`insert into repairs (peer, subject, key, lane, method, reason, due_at) values ('c', 'memory', 'm', 1, 'store', 'doubt', now() + interval '1 hour')`, jobs.DrainState{Done: true}},
		"doubt":            {`insert into doubts (peer, lane, from_number, to_number, until) values ('c', 1, 1, 2, now())`, jobs.DrainState{Doubts: 1}},
		"doubt, not due":   {`insert into doubts (peer, lane, from_number, to_number, until) values ('c', 1, 1, 2, now() + interval '1 hour')`, jobs.DrainState{Done: true}},
		"absent":           {`update peers set state = 'absent' where id = 'c'`, jobs.DrainState{Done: true, Absent: true}},
		"refuses an entry": {`insert into refusals (peer, entry, lane, class) values ('c', 7, 1, 'skipped')`, jobs.DrainState{Done: true, Refused: []int64{7}}},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			f := &fleet{t: t, pool: pgtest.New(t)}
			f.exec(`insert into peers (id) values ('a'), ('c');` + c.rows)
			d, err := jobs.NewDrain(t.Context(), f.pool, "c")
			if err != nil {
				t.Fatal(err)
			}
			got, err := d.Look(t.Context())
			if err != nil {
				t.Fatal(err)
			}
			if len(got.Refused) == 0 {
				got.Refused = nil
			}
			if diff := cmp.Diff(c.want, got); diff != "" {
				t.Errorf("(-want +got):\n%s", diff)
			}
		})
	}
}
