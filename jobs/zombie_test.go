package jobs_test

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"quorumbox/internal/peer"
	"quorumbox/internal/pgtest"
	"quorumbox/jobs"
)

// A push that was given up is applied after what came later. When it cannot arrive any more, the peer is what the others are.
func TestPushThatArrivesLateIsPutRight(t *testing.T) {
	t.Parallel()
	x := memoryNamed("x", "ns", "X", "one")
	tests := []struct {
		name   string
		before []string
		doubt  []string // its push to c is given up and arrives late
		hold   []string // what marks that push
		after  []string
		harm   bool // the late push leaves c different from the others
	}{
		{"a store after the delete", nil, []string{x}, []string{`"one"`}, []string{`select memory_delete('x')`}, true},
		{"a store after a newer store", nil, []string{x}, []string{`"one"`}, []string{memoryNamed("x", "ns", "X", "two")}, false},
		{
			"a delete after the memory was stored again",
			[]string{x, memoryNamed("y", "ns", "Y", "y")},
			[]string{`select memory_delete('x')`},
			[]string{`"deletions":["x"]`},
			[]string{x, linked("y", "x"), `select namespace_set('{"namespace": "ns", "standard_id": "x"}')`},
			true,
		},
		{
			"a store of the old title after the rename and the delete", nil,
			[]string{x},
			[]string{`"one"`},
			[]string{memoryNamed("x", "ns", "renamed", "one"), `select memory_delete('x')`},
			true,
		},
		{"an archive after the restore", []string{x}, []string{`select memory_archive('x')`}, []string{`"archives":["x"]`}, []string{`select memory_restore('x')`}, true},
		{
			"a restore after the archive",
			[]string{x, `select memory_archive('x')`},
			[]string{`select memory_restore('x')`},
			[]string{`"restores":["x"]`},
			[]string{`select memory_archive('x')`},
			true,
		},
		{
			"a store before it was archived and its title taken",
			nil,
			[]string{x},
			[]string{`"one"`},
			[]string{`select memory_archive('x')`, memoryNamed("y", "ns", "X", "taker")},
			false, // merged into the taker, which is newer
		},
		{
			"a memory that moved to another lane", nil,
			[]string{x},
			[]string{`"ns"`},
			[]string{memoryNamed("x", "elsewhere", "X", "one"), `select memory_delete('x')`},
			true,
		},
		{
			"a link of a memory that began again",
			[]string{x, memoryNamed("y", "ns", "Y", "y")},
			[]string{linked("x", "y")},
			[]string{`"links":[{`},
			[]string{`select memory_delete('x')`, x},
			true,
		},
		{
			"a consolidation after the new memory went",
			[]string{x, memoryNamed("y", "ns", "Y", "y")},
			[]string{`select memory_consolidate('{"id": "z", "namespace": "ns", "title": "Z", "content": "z", "tier": "mid", "source": "consolidation"}', '{x,y}')`},
			[]string{`"z"`},
			[]string{`select memory_delete('z')`, x},
			true,
		},
		{
			"a namespace's standard after it was cleared",
			[]string{x},
			[]string{`select namespace_set('{"namespace": "ns", "standard_id": "x"}')`},
			[]string{`"namespace_meta":[{`},
			[]string{`select namespace_clear('ns')`},
			true,
		},
		{
			"a pending action after its decision", nil,
			[]string{`select pending_put('{"id": "p", "action_type": "note", "namespace": "ns", "payload": {}, "requested_by": "ai:x"}')`},
			[]string{`"pendings":[{`},
			[]string{`select pending_decide('p', false, 'ai:y')`},
			true,
		},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			f, l := startLate(t)
			all := func(statements []string) {
				for _, sql := range statements {
					f.exec(sql)
					f.inStep()
				}
			}
			all(tt.before)
			l.hold(tt.hold...)
			for _, sql := range tt.doubt {
				f.exec(sql)
			}
			f.eventually("the push is given up", func() bool { return l.holding() > 0 })
			l.answer()
			f.inStep()
			all(tt.after)
			l.land()
			if harm := !slices.Equal(l.state("a"), l.state("c")); harm != tt.harm {
				t.Errorf("got harm done %t by the late push, want %t:\n%s", harm, tt.harm, cmp.Diff(l.state("a"), l.state("c")))
			}
			f.settled()
			if diff := cmp.Diff(l.state("a"), l.state("c")); diff != "" {
				t.Errorf("c is not what the others are (-want +got):\n%s", diff)
			}
		})
	}
}

// The sender of the late push was killed, so nobody knows of it but the rows.
func TestPushOfAKilledWorkerIsInDoubt(t *testing.T) {
	t.Parallel()
	for name, kill := range map[string]string{
		// What a fan-out leaves behind whose worker was killed: undecided batches with a lease that runs out, and a job that River takes for running.
		"fan-out": `
			update batches set verdict = 'pending', decided_at = null, fan_out = nextval('tokens'), leased_until = now() where number = 1;
			delete from lagging`,
		// What a retry leaves behind: a lane that it holds, pushed farther than the cursor.
		"retry": `
			insert into lagging (peer, lane, cursor, pushed_to, holder, leased_until, retry)
			select 'c', lane, 0, 1, nextval('tokens'), now(), nextval('tokens') from batches where number = 1`,
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			f, l := startLate(t)
			f.exec(memoryNamed("x", "ns", "X", "one"))
			f.inStep()
			f.exec(kill)
			f.eventually("taken over", func() bool { return f.scalar(`select count(*) from doubts where peer = 'c'`) == 1 })
			f.inStep()
			f.exec(`select memory_delete('x')`)
			f.inStep()
			var memory []byte
			if err := f.pool.QueryRow(t.Context(), `select payload from outbox where kind = 'store'`).Scan(&memory); err != nil {
				t.Fatal(err)
			}
			if err := l.apply("c", peer.Message{Memories: []json.RawMessage{memory}}.Encode("ai:leader")); err != nil {
				t.Fatal(err)
			}
			if got := l.state("c"); len(got) != 1 {
				t.Fatalf("got %q, want that the memory is back", got)
			}
			f.settled()
			if got := l.state("c"); len(got) != 0 {
				t.Errorf("got %q, want nothing", got)
			}
		})
	}
}

// What nothing came after needs no repair: the late push does what was done already.
func TestDoubtWithoutLaterEntriesIsNoRepair(t *testing.T) {
	t.Parallel()
	f, l := startLate(t)
	f.exec(`
		create table made (n int);
		create function note_repair() returns trigger language plpgsql as $$ begin insert into made values (1); return new; end $$;
		create trigger note_repair after insert on repairs for each row execute function note_repair()`)
	l.hold(`"one"`)
	f.exec(memoryNamed("x", "ns", "X", "one"))
	f.eventually("in doubt", func() bool { return f.scalar(`select count(*) from doubts`) > 0 })
	l.answer()
	f.inStep()
	f.settled()
	if n := f.scalar(`select count(*) from made`); n != 0 {
		t.Errorf("got %d repairs, want none", n)
	}
}

// A fan-out's first request may arrive after its second one was acknowledged.
func TestAcknowledgedPushCanBeInDoubt(t *testing.T) {
	t.Parallel()
	l := newLate(t)
	f := start(t, func(c *jobs.Config) {
		c.RetryPush, c.Policy.W = l, 2
		c.FanOut = jobs.PushFunc(func(ctx context.Context, id string, req peer.Request) (peer.Report, error) {
			_, err := l.Push(ctx, id, req)
			return peer.Report{Attempts: 2, InDoubt: id == "b"}, err
		})
	})
	f.await(f.store("x")...)
	f.eventually("b is in doubt", func() bool {
		return f.scalar(`select count(*) from doubts where peer = 'b' and from_number = 0 and to_number = 1`) == 1
	})
	if n := f.scalar(`select count(*) from doubts where peer <> 'b'`); n != 0 {
		t.Errorf("got %d doubts of others, want none", n)
	}
	if n := f.lagging(); n != 0 {
		t.Errorf("got %d lagging lanes, want none: b has acknowledged", n)
	}
}

// An application that keeps memories in tables of its own has no rows in ours: the log says what the peer should have.
func TestDoubtOfAnAppendedEntry(t *testing.T) {
	t.Parallel()
	f, l := startLate(t)
	store := `select outbox_append('ns', 'store', 'x', '{"id": "x", "namespace": "ns", "title": "X", "content": %q, "tier": "mid", "source": "api"}')`
	l.hold(`"one"`)
	f.exec(fmt.Sprintf(store, "one"))
	f.eventually("given up", func() bool { return l.holding() > 0 })
	l.answer()
	f.inStep()
	f.exec(`select outbox_append('ns', 'delete', 'x')`)
	f.inStep()
	l.land()
	if got := l.state("c"); len(got) != 1 {
		t.Fatalf("got %q, want that the memory is back", got)
	}
	f.settled()
	if got := l.state("c"); len(got) != 0 {
		t.Errorf("got %q, want nothing", got)
	}
}

// A worker that is told to stop while a fan-out pushes leaves the pushes in doubt, although the next run is a first attempt for River.
func TestStoppedFanOutIsInDoubt(t *testing.T) {
	t.Parallel()
	f := &fleet{t: t, pool: pgtest.New(t), peers: newScripted()}
	pushing := make(chan struct{})
	var once sync.Once
	f.peers.set("c", func(ctx context.Context) error {
		once.Do(func() { close(pushing) })
		<-ctx.Done()
		return errors.Join(&peer.Error{Class: peer.ClassCanceled}, context.Cause(ctx))
	})
	stop := f.run(func(c *jobs.Config) { c.AckTimeout, c.Policy.W, c.SoftStop = 5*time.Second, 4, time.Millisecond })
	f.store("x")
	<-pushing
	stop()
	if n := f.scalar(`select count(*) from doubts where peer = 'c'`); n != 1 {
		f.dump()
		t.Errorf("got %d doubts, want 1", n)
	}
}

// A late store makes room for nobody: what is stored under its title after it is merged into it, and would go with it.
func TestLateStoreTakesATitle(t *testing.T) {
	t.Parallel()
	f, l := startLate(t)
	l.hold(`"one"`)
	f.exec(memoryNamed("x", "ns", "T", "one"))
	f.eventually("the push is given up", func() bool { return l.holding() > 0 })
	l.answer()
	f.inStep()
	f.exec(`select memory_delete('x')`)
	f.inStep()
	l.land()
	f.exec(memoryNamed("y", "ns", "T", "two"))
	f.inStep()
	if got := l.state("c"); len(got) != 1 || !strings.HasPrefix(got[0], "live x: ") {
		t.Fatalf("got %q, want that y was merged into x", got)
	}
	f.settled()
	if diff := cmp.Diff(l.state("a"), l.state("c")); diff != "" {
		t.Errorf("c is not what the others are (-want +got):\n%s", diff)
	}
}
