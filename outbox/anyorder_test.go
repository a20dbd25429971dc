package outbox_test

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"math/rand/v2"
	"slices"
	"strings"
	"sync"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"
	"github.com/jackc/pgx/v5/pgxpool"

	"quorumbox/internal/pgtest"
	"quorumbox/outbox"
)

// The law of the log: a peer that gets the entries in any order that keeps each lane's and the dependencies skips nothing and ends as the writer.
func TestAnyOrderThatKeepsLanesAndDependencies(t *testing.T) {
	t.Parallel()
	const writes, orders = 400, 60
	kinds := []string{"store", "delete", "archive", "restore", "link", "consolidate", "pending", "decide", "set", "clear"}
	for name, writers := range map[string]int{"one writer": 1, "again": 1, "and again": 1, "four writers at once": 4, "eight writers at once": 8} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			pool := pgtest.New(t)
			var (
				wg   sync.WaitGroup
				mu   sync.Mutex
				done = map[string]int{}
			)
			for range writers {
				random := someRandom(t)
				wg.Go(func() {
					missing := true // some kind of write: they are few, and many are refused
					for n := 0; n < writes/writers || (missing && n < 10*writes); n++ {
						kind := randomWrite(t, pool, random)
						mu.Lock()
						done[kind]++
						missing = slices.ContainsFunc(kinds, func(k string) bool { return done[k] == 0 })
						mu.Unlock()
					}
				})
			}
			wg.Wait()
			for _, kind := range kinds {
				if done[kind] == 0 {
					t.Errorf("no %s was accepted: the test does not test it", kind)
				}
			}
			younger := count(t, pool, `select count(*) from undispatched u where exists (select from unnest(u.after_entries) a where a >= u.entry)`)
			if younger > 0 {
				t.Errorf("got %d entries that wait for younger ones: they could wait in a circle", younger)
			}
			log, want, random := readLog(t, pool), writerState(t, pool), someRandom(t)
			for range orders {
				p := newModel()
				order := p.applyInSomeOrder(log, random)
				if len(p.skipped) > 0 {
					t.Fatalf("skipped %v in the order\n%s", p.skipped, strings.Join(order, "\n"))
				}
				if diff := cmp.Diff(want, p.state()); diff != "" {
					t.Fatalf("state (-writer +peer):\n%s\nin the order\n%s", diff, strings.Join(order, "\n"))
				}
			}
		})
	}
}

// someRandom logs its seed, so that a failure can be repeated.
func someRandom(t *testing.T) *rand.Rand {
	t.Helper()
	seed := rand.Uint64() //nolint:gosec // nobody has to be surprised
	t.Logf("seed %d", seed)
	return rand.New(rand.NewPCG(seed, seed)) //nolint:gosec // likewise
}

// randomWrite does one change of few memories in few namespaces and returns what it was, or nothing if it was refused.
func randomWrite(t *testing.T, pool *pgxpool.Pool, random *rand.Rand) string {
	t.Helper()
	ctx := t.Context()
	id := func() string { return fmt.Sprintf("m%d", random.IntN(7)) }
	namespace := func() string { return []string{here, there, far, "app", "app/sub"}[random.IntN(5)] }
	some := func() outbox.Memory {
		return memory(id(), in(namespace()), func(m *outbox.Memory) {
			m.Title, m.Content = fmt.Sprintf("t%d", random.IntN(6)), fmt.Sprintf("c%d", random.IntN(1000))
		})
	}
	writes := []struct {
		name string
		do   func(tx pgx.Tx) error
	}{
		{"store", func(tx pgx.Tx) error { _, err := outbox.Store(ctx, tx, some()); return err }},
		{"store", func(tx pgx.Tx) error { _, err := outbox.Store(ctx, tx, some()); return err }},
		{"store", func(tx pgx.Tx) error { _, err := outbox.Store(ctx, tx, some()); return err }},
		{"delete", func(tx pgx.Tx) error { _, err := outbox.Delete(ctx, tx, id()); return err }},
		{"archive", func(tx pgx.Tx) error { _, err := outbox.Archive(ctx, tx, id(), ""); return err }},
		{"restore", func(tx pgx.Tx) error { _, err := outbox.Restore(ctx, tx, id()); return err }},
		{"link", func(tx pgx.Tx) error {
			_, err := outbox.Link(ctx, tx, outbox.MemoryLink{SourceID: id(), TargetID: id(), Relation: "related_to"})
			return err
		}},
		{"link", func(tx pgx.Tx) error {
			_, err := outbox.Link(ctx, tx, outbox.MemoryLink{SourceID: id(), TargetID: id(), Relation: "supersedes"})
			return err
		}},
		{"consolidate", func(tx pgx.Tx) error {
			_, err := outbox.Consolidate(ctx, tx, some(), []string{id(), id()}[:1+random.IntN(2)])
			return err
		}},
		{"consolidate", func(tx pgx.Tx) error {
			_, err := outbox.Consolidate(ctx, tx, some(), []string{id(), id()}[:1+random.IntN(2)])
			return err
		}},
		{"set", func(tx pgx.Tx) error {
			_, err := outbox.NamespaceSet(ctx, tx, outbox.NamespaceStandard{Namespace: namespace(), StandardID: id()})
			return err
		}},
		{"clear", func(tx pgx.Tx) error { _, err := outbox.NamespaceClear(ctx, tx, namespace()); return err }},
		{"pending", func(tx pgx.Tx) error { return parkSome(ctx, tx, random, some()) }},
		{"decide", func(tx pgx.Tx) error {
			d := outbox.Decision{ID: fmt.Sprintf("p%d", random.IntN(20)), Approved: random.IntN(3) > 0, Decider: "ai:boss"}
			_, err := outbox.Decide(ctx, tx, d)
			return err
		}},
	}
	w := writes[random.IntN(len(writes))]
	err := pgx.BeginFunc(ctx, pool, w.do)
	if err == nil {
		return w.name
	}
	if pgErr, ok := errors.AsType[*pgconn.PgError](err); ok && pgErr.Code == "40P01" {
		return "" // a deadlock
	}
	_, invalid := errors.AsType[*outbox.InvalidError](err)
	known := func(e error) bool { return errors.Is(err, e) }
	refusals := []error{outbox.ErrNotFound, outbox.ErrTitleTaken, outbox.ErrLive, outbox.ErrNotArchived, outbox.ErrDecided}
	if !invalid && !slices.ContainsFunc(refusals, known) {
		t.Errorf("%s: %v", w.name, err)
	}
	return ""
}

func parkSome(ctx context.Context, tx pgx.Tx, random *rand.Rand, m outbox.Memory) error {
	p := outbox.PendingAction{ID: fmt.Sprintf("p%d", random.IntN(20)), Namespace: m.Namespace, RequestedBy: "ai:a", ActionType: "delete", MemoryID: m.ID}
	p.Payload = json.RawMessage("null")
	if random.IntN(2) > 0 {
		p.ActionType, p.MemoryID = "store", ""
		p.Payload = fmt.Appendf(nil, `{"id": %q, "namespace": %q, "title": %q, "content": %q, "tier": "long", "source": "api"}`,
			m.ID, []string{here, there, far}[random.IntN(3)], m.Title, m.Content)
	}
	_, err := outbox.Pending(ctx, tx, p)
	return err
}

// waiting is an entry of the log with what it comes after.
type waiting struct {
	ID      int64
	Lane    int16
	Kind    string
	Key     string
	Payload json.RawMessage
	After   []int64
}

func readLog(t *testing.T, pool *pgxpool.Pool) (lanes map[int16][]waiting) {
	t.Helper()
	rows, err := pool.Query(t.Context(), `
		select o.id, o.lane, o.kind, o.key, coalesce(o.payload, 'null'), u.after_entries
		from outbox o
		join undispatched u on u.lane = o.lane and u.entry = o.id
		order by o.id`)
	if err != nil {
		t.Fatal(err)
	}
	all, err := pgx.CollectRows(rows, pgx.RowToStructByPos[waiting])
	if err != nil {
		t.Fatal(err)
	}
	lanes = map[int16][]waiting{}
	for _, w := range all {
		lanes[w.Lane] = append(lanes[w.Lane], w)
	}
	return lanes
}

// writerState is the writer's tables as the model's state says it.
func writerState(t *testing.T, pool *pgxpool.Pool) []string {
	t.Helper()
	rows, err := pool.Query(t.Context(), `
		select 'live ' || id || ' ' || namespace || ' ' || title || ' ' || content from memories
		union all select 'archived ' || id from archived_memories
		union all select 'link ' || source_id || ' ' || target_id || ' ' || relation from memory_links
		union all select 'standard ' || namespace || ' ' || standard_id from namespace_meta
		union all select 'pending ' || id || ' ' || status from pending_actions`)
	if err != nil {
		t.Fatal(err)
	}
	lines, err := pgx.CollectRows(rows, pgx.RowTo[string])
	if err != nil {
		t.Fatal(err)
	}
	slices.Sort(lines)
	return lines
}

// modelMemory is what the model keeps of a memory.
type modelMemory struct {
	ID, Namespace, Title, Content string
	UpdatedAt                     string `json:"updated_at"`
}

// model is a peer written the dumb way (wire.md 6): one entry at a time, no tombstones, cascades, last writer wins. A consolidation's deletions and a restore's
// memory are pushes of their own, as the push builder makes them.
type model struct {
	live, archived map[string]modelMemory
	links          map[[3]string]bool
	standards      map[string]string
	pendings       map[string]modelPending
	skipped        []string
}

type modelPending struct {
	ID         string
	ActionType string `json:"action_type"`
	MemoryID   string `json:"memory_id"`
	Status     string
	Payload    json.RawMessage
}

func newModel() *model {
	return &model{
		live: map[string]modelMemory{}, archived: map[string]modelMemory{}, links: map[[3]string]bool{},
		standards: map[string]string{}, pendings: map[string]modelPending{},
	}
}

// applyInSomeOrder applies the log in an order that keeps lanes and dependencies, and returns it.
func (p *model) applyInSomeOrder(log map[int16][]waiting, random *rand.Rand) (order []string) {
	left := maps.Clone(log)
	applied := map[int64]bool{}
	lanes := slices.Sorted(maps.Keys(left))
	favourite := lanes[random.IntN(len(lanes))] // gets ahead of the others, as far as it may
	for len(left) > 0 {
		free := slices.DeleteFunc(slices.Sorted(maps.Keys(left)), func(lane int16) bool {
			return slices.ContainsFunc(left[lane][0].After, func(id int64) bool { return !applied[id] })
		})
		if len(free) == 0 {
			p.skipped = append(p.skipped, "all of the rest: it waits in a circle")
			return order
		}
		lane := free[random.IntN(len(free))]
		if slices.Contains(free, favourite) && random.IntN(10) > 0 {
			lane = favourite
		}
		e := left[lane][0]
		if left[lane] = left[lane][1:]; len(left[lane]) == 0 {
			delete(left, lane)
		}
		order = append(order, fmt.Sprintf("%d lane %d: %s %s %s after %v", e.ID, e.Lane, e.Kind, e.Key, e.Payload, e.After))
		if reason := p.apply(e); reason != "" {
			p.skipped = append(p.skipped, fmt.Sprintf("%d (%s %s): %s", e.ID, e.Kind, e.Key, reason))
		}
		applied[e.ID] = true
	}
	return order
}

// apply returns why the entry is skipped, or nothing.
func (p *model) apply(e waiting) (skipped string) {
	var body struct {
		modelMemory
		SourceID   string `json:"source_id"`
		TargetID   string `json:"target_id"`
		Relation   string
		StandardID string `json:"standard_id"`
		Approved   bool
		Memory     modelMemory
		Sources    []modelMemory
	}
	if err := json.Unmarshal(e.Payload, &body); err != nil {
		return err.Error()
	}
	switch outbox.Kind(e.Kind) {
	case outbox.KindStore:
		return p.store(body.modelMemory)
	case outbox.KindDelete:
		p.remove(e.Key)
	case outbox.KindArchive:
		if m, ok := p.live[e.Key]; ok {
			p.archived[e.Key] = m
			p.remove(e.Key)
		}
	case outbox.KindRestore:
		if _, ok := p.live[e.Key]; ok {
			return "it is live"
		}
		if _, ok := p.archived[e.Key]; !ok {
			return "it is not archived"
		}
		delete(p.archived, e.Key)
		return p.store(body.modelMemory)
	case outbox.KindLink:
		if _, ok := p.live[body.SourceID]; !ok {
			return "no source"
		}
		if _, ok := p.live[body.TargetID]; !ok {
			return "no target"
		}
		p.links[[3]string{body.SourceID, body.TargetID, body.Relation}] = true
	case outbox.KindConsolidate:
		for _, s := range body.Sources {
			p.remove(s.ID)
		}
		return p.store(body.Memory)
	case outbox.KindPending:
		var action modelPending
		if err := json.Unmarshal(e.Payload, &action); err != nil {
			return err.Error()
		}
		p.pendings[e.Key] = action
	case outbox.KindDecision:
		return p.decide(e.Key, body.Approved)
	case outbox.KindNamespaceSet:
		if _, ok := p.live[body.StandardID]; !ok {
			return "no standard"
		}
		p.standards[e.Key] = body.StandardID
	case outbox.KindNamespaceClear:
		delete(p.standards, e.Key)
	}
	return ""
}

func (p *model) store(m modelMemory) (skipped string) {
	for id, other := range p.live {
		if id != m.ID && other.Namespace == m.Namespace && other.Title == m.Title {
			return "it would merge into " + id
		}
	}
	old, ok := p.live[m.ID]
	if ok && (old.Namespace != m.Namespace || old.Title != m.Title) {
		return "it would be a rename"
	}
	if !ok || m.UpdatedAt > old.UpdatedAt {
		p.live[m.ID] = m
	}
	return ""
}

func (p *model) remove(id string) {
	delete(p.live, id)
	maps.DeleteFunc(p.links, func(l [3]string, _ bool) bool { return l[0] == id || l[1] == id })
	maps.DeleteFunc(p.standards, func(_, standard string) bool { return standard == id })
}

// decide does what is approved, if nobody has decided it yet. A store that the peer's rules refuse is no skipped entry: the leader's own store follows.
func (p *model) decide(id string, approved bool) (skipped string) {
	action, ok := p.pendings[id]
	switch {
	case !ok:
		return "no such action"
	case action.Status != "pending":
		return ""
	case !approved:
		action.Status = "rejected"
	default:
		action.Status = "approved"
		if action.ActionType == "delete" {
			p.remove(action.MemoryID)
			break
		}
		var m modelMemory
		if err := json.Unmarshal(action.Payload, &m); err != nil {
			return err.Error()
		}
		_ = p.store(m)
	}
	p.pendings[id] = action
	return ""
}

func (p *model) state() (lines []string) {
	for id, m := range p.live {
		lines = append(lines, fmt.Sprintf("live %s %s %s %s", id, m.Namespace, m.Title, m.Content))
	}
	for id := range p.archived {
		lines = append(lines, "archived "+id)
	}
	for l := range p.links {
		lines = append(lines, fmt.Sprintf("link %s %s %s", l[0], l[1], l[2]))
	}
	for ns, id := range p.standards {
		lines = append(lines, fmt.Sprintf("standard %s %s", ns, id))
	}
	for id, a := range p.pendings {
		lines = append(lines, fmt.Sprintf("pending %s %s", id, a.Status))
	}
	slices.Sort(lines)
	return lines
}
