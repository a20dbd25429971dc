package jobs_test

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/jackc/pgx/v5/pgconn"
	"github.com/riverqueue/river"

	"quorumbox/internal/peer"
	"quorumbox/internal/pgtest"
	"quorumbox/internal/refpeer"
	"quorumbox/jobs"
)

// late are reference peers of which c applies some pushes only when it is told to, long after their sender has given them up.
type late struct {
	t     *testing.T
	peers map[string]*refpeer.Peer

	mu    sync.Mutex
	holds func(body string) bool // c does not answer a push that it says yes to, and keeps it. Nil: none
	kept  [][]byte
}

func newLate(t *testing.T) *late {
	t.Helper()
	l := &late{t: t, peers: map[string]*refpeer.Peer{}}
	for _, id := range []string{"a", "b", "c"} {
		p, err := refpeer.Open(t.Context(), refpeer.Config{ID: "host:" + id, DataDir: t.TempDir(), Sync: refpeer.Off})
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { _ = p.Close() })
		l.peers[id] = p
	}
	return l
}

// hold makes c keep the pushes whose bodies hold one of the texts.
func (l *late) hold(texts ...string) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.holds = func(body string) bool {
		return slices.ContainsFunc(texts, func(s string) bool { return strings.Contains(body, s) })
	}
}

func (l *late) answer() {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.holds = nil
}

// holding is how many pushes c has kept.
func (l *late) holding() int {
	l.mu.Lock()
	defer l.mu.Unlock()
	return len(l.kept)
}

// land lets c apply what it kept.
func (l *late) land() {
	l.mu.Lock()
	kept := l.kept
	l.kept = nil
	l.mu.Unlock()
	for _, body := range kept {
		_ = l.apply("c", body) // whatever it says, nobody listens
	}
}

func (l *late) Push(_ context.Context, id string, req peer.Request) (peer.Report, error) {
	if id == "c" && l.keep(req.Body) {
		return peer.Report{Attempts: 1, InDoubt: true}, &peer.Error{Class: peer.ClassTimeout}
	}
	return peer.Report{Attempts: 1}, l.apply(id, req.Body)
}

func (l *late) keep(body []byte) bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.holds == nil || !l.holds(string(body)) {
		return false
	}
	l.kept = append(l.kept, bytes.Clone(body))
	return true
}

func (l *late) apply(id string, body []byte) error {
	req := httptest.NewRequestWithContext(context.Background(), http.MethodPost, "/api/v1/sync/push", bytes.NewReader(body))
	req.Header.Set("X-Peer-Id", "ai:leader")
	rec := httptest.NewRecorder()
	l.peers[id].Handler().ServeHTTP(rec, req)
	var answer struct{ Skipped int }
	switch err := json.Unmarshal(rec.Body.Bytes(), &answer); {
	case err != nil || rec.Code != http.StatusOK:
		return &peer.Error{Class: peer.ClassServerError, Status: rec.Code}
	case answer.Skipped > 0:
		return &peer.Error{Class: peer.ClassSkipped, Status: http.StatusOK, Refused: answer.Skipped}
	}
	return nil
}

// state is what a peer has, as lines.
func (l *late) state(id string) []string {
	l.t.Helper()
	var lines []string
	memory := func(what string, raw []byte) {
		var m struct{ ID, Namespace, Title, Content string }
		if err := json.Unmarshal(raw, &m); err != nil {
			l.t.Fatal(err)
		}
		lines = append(lines, fmt.Sprintf("%s %s: %s/%s %s", what, m.ID, m.Namespace, m.Title, m.Content))
	}
	var live bytes.Buffer
	if err := l.peers[id].Memories(l.t.Context(), &live); err != nil {
		l.t.Fatal(err)
	}
	for raw := range bytes.Lines(live.Bytes()) {
		memory("live", raw)
	}
	rest, err := l.peers[id].State(l.t.Context())
	if err != nil {
		l.t.Fatal(err)
	}
	for _, raw := range rest.Archived {
		memory("archived", raw)
	}
	for _, x := range rest.Links {
		lines = append(lines, fmt.Sprintf("link %s %s %s", x.SourceID, x.Relation, x.TargetID))
	}
	for _, x := range rest.NamespaceMeta {
		lines = append(lines, fmt.Sprintf("standard of %s: %s", x.Namespace, x.StandardID))
	}
	for _, x := range rest.Pendings {
		lines = append(lines, fmt.Sprintf("pending %s: %s", x.ID, x.Status))
	}
	slices.Sort(lines)
	return lines
}

// startLate runs a worker on late peers. A push that was given up may arrive until pass is called.
func startLate(t *testing.T) (*fleet, *late) {
	t.Helper()
	l := newLate(t)
	f := start(t, func(c *jobs.Config) { c.FanOut, c.RetryPush, c.Zombie, c.Policy.W = l, l, time.Hour, 2 })
	return f, l
}

// pass ends the time in which a push that was given up may arrive.
func (f *fleet) pass() {
	f.t.Helper()
	for _, sql := range []string{
		`update doubts set until = until - interval '2 hours'`,
		`update repairs set due_at = least(due_at, now()), again_at = again_at - interval '2 hours'`,
	} {
		_, err := f.pool.Exec(f.t.Context(), sql)
		// It locks all rows, in any order, and may be the one that gives way to the worker.
		if e, ok := errors.AsType[*pgconn.PgError](err); ok && e.Code == "40P01" {
			continue
		}
		if err != nil {
			f.t.Fatal(err)
		}
	}
}

// settled waits until everybody has everything and nothing is in doubt, and lets the time for that pass.
func (f *fleet) settled() {
	f.t.Helper()
	f.eventually("everything is pushed and nothing in doubt", func() bool {
		f.pass() // also for what a repair has noted of itself
		return f.scalar(`select (select count(*) from undispatched) + (select count(*) from batches where verdict = 'pending') + (select count(*) from lagging)
			+ (select count(*) from doubts) + (select count(*) from repairs) + (select count(*) from refusals)`) == 0
	})
}

func (f *fleet) inStep() {
	f.t.Helper()
	f.eventually("everybody is in step", func() bool {
		return f.scalar(`select (select count(*) from undispatched) + (select count(*) from batches where verdict = 'pending') + (select count(*) from lagging)`) == 0
	})
}

func memoryNamed(id, ns, title, content string) string {
	return fmt.Sprintf(`select memory_store('{"id": %q, "namespace": %q, "title": %q, "content": %q, "tier": "mid", "source": "api"}')`, id, ns, title, content)
}

func linked(source, target string) string {
	return fmt.Sprintf(`select memory_link('{"source_id": %q, "target_id": %q, "relation": "related_to"}')`, source, target)
}

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
