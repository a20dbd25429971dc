package integration

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"sync"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"

	"quorumbox/outbox"
)

// The sizes of what random operations work on: small, so that they meet, and in more lanes than one.
const (
	operatedIDs        = 16
	operatedActions    = 10
	operatedNamespaces = 5
)

// operations are random ones of all kinds.
type operations struct {
	fleet *fleet
	round int // of several loads, so that what they write differs

	mu      sync.Mutex
	refused map[string]int // writers' refusals by their name
}

// operator is one writer's step.
type operator struct {
	tx        pgx.Tx
	rng       *rand.Rand
	writer, n int
	round     int
}

// step makes a transaction of one or a few random operations. What is refused is rolled back, counted, and not tried again.
func (o *operations) step(ctx context.Context, rng *rand.Rand, writer, n int) error {
	err := pgx.BeginFunc(ctx, o.fleet.pool, func(tx pgx.Tx) error {
		by := operator{tx: tx, rng: rng, writer: writer, n: n, round: o.round}
		for range 1 + max(0, rng.IntN(4)-1) {
			if err := by.anything(ctx); err != nil {
				return err
			}
		}
		return nil
	})
	for name, refusal := range map[string]error{
		"title taken": outbox.ErrTitleTaken, "not found": outbox.ErrNotFound, "live": outbox.ErrLive,
		"not archived": outbox.ErrNotArchived, "decided": outbox.ErrDecided,
	} {
		if errors.Is(err, refusal) {
			o.count(name)
			return nil
		}
	}
	if _, ok := errors.AsType[*outbox.InvalidError](err); ok {
		o.count("invalid")
		return nil
	}
	return err
}

func (o *operations) count(refusal string) {
	o.mu.Lock()
	defer o.mu.Unlock()
	if o.refused == nil {
		o.refused = map[string]int{}
	}
	o.refused[refusal]++
}

// anything does one random operation.
func (o operator) anything(ctx context.Context) (err error) {
	switch k := o.rng.IntN(100); {
	case k < 30:
		_, err = outbox.Store(ctx, o.tx, o.memory(o.id()))
	case k < 34:
		_, err = outbox.StoreMany(ctx, o.tx, []outbox.Memory{o.memory(o.id()), o.memory(o.id()), o.memory(o.id())})
	case k < 39:
		_, err = outbox.Delete(ctx, o.tx, o.id())
	case k < 46:
		_, err = outbox.Archive(ctx, o.tx, o.id(), "")
	case k < 56:
		_, err = outbox.Restore(ctx, o.tx, o.id())
	case k < 66:
		err = o.link(ctx)
	case k < 74:
		err = o.consolidate(ctx)
	case k < 82:
		err = o.pending(ctx)
	case k < 90:
		_, err = outbox.Decide(ctx, o.tx, outbox.Decision{ID: o.action(), Approved: o.rng.IntN(3) > 0, Decider: "ai:decider"})
	case k < 97:
		s := outbox.NamespaceStandard{Namespace: o.namespace(), StandardID: o.id()}
		if o.rng.IntN(2) == 0 {
			s.ParentNamespace = "home"
		}
		_, err = outbox.NamespaceSet(ctx, o.tx, s)
	default:
		_, err = outbox.NamespaceClear(ctx, o.tx, o.namespace(), o.namespace())
	}
	return err
}

func (o operator) id() string { return fmt.Sprintf("m-%d", o.rng.IntN(operatedIDs)) }
func (o operator) action() string {
	return fmt.Sprintf("act-%d-%d", o.round, o.rng.IntN(operatedActions))
}
func (o operator) namespace() string { return fmt.Sprintf("home/%d", o.rng.IntN(operatedNamespaces)) }

// memory is a new version of a memory: mostly in its own namespace and with its own title, sometimes with another one.
func (o operator) memory(id string) outbox.Memory {
	m := memory(id, fmt.Sprintf("home/%d", len(id)%operatedNamespaces))
	if o.rng.IntN(4) == 0 {
		m.Namespace = o.namespace()
	}
	if o.rng.IntN(4) == 0 {
		m.Title = "title of " + o.id()
	}
	m.Content += fmt.Sprintf(", %d/%d/%d", o.round, o.writer, o.n)
	m.Metadata = fmt.Appendf(nil, `{"scope":"collective","change":"%d/%d/%d"}`, o.round, o.writer, o.n)
	return m
}

func (o operator) link(ctx context.Context) error {
	relations := []string{"related_to", "supersedes", "contradicts", "derived_from", "derives_from"}
	l := outbox.MemoryLink{SourceID: o.id(), TargetID: o.id(), Relation: relations[o.rng.IntN(len(relations))]}
	if o.writer == 0 && o.rng.IntN(2) == 0 {
		l.Relation = "reflects_on" // of one writer only: two that close a circle together are not refused (outbox.Link)
	}
	if o.rng.IntN(4) == 0 {
		l.ValidFrom = "2026-06-15T00:00:00+02:00"
	}
	_, err := outbox.Link(ctx, o.tx, l)
	return err
}

func (o operator) consolidate(ctx context.Context) error {
	into := o.memory(o.id())
	var sources []string
	for _, i := range o.rng.Perm(operatedIDs)[:1+o.rng.IntN(2)] {
		sources = append(sources, fmt.Sprintf("m-%d", i))
	}
	_, err := outbox.Consolidate(ctx, o.tx, into, sources)
	return err
}

func (o operator) pending(ctx context.Context) error {
	p := outbox.PendingAction{
		ID: o.action(), Namespace: "home/0", RequestedBy: "ai:writer", RequestedAt: time.Date(2026, 6, 15, 0, 0, 0, 0, time.UTC),
		Payload: fmt.Appendf(nil, `{"change":"%d/%d/%d"}`, o.round, o.writer, o.n), ActionType: "notify",
	}
	switch o.rng.IntN(3) {
	case 0:
		m := o.memory(o.id())
		p.ActionType = "store"
		p.Payload = fmt.Appendf(nil, `{"id":%q,"namespace":%q,"title":%q,"content":%q,"tier":"long","source":"api","metadata":%s}`,
			m.ID, m.Namespace, m.Title, m.Content, m.Metadata)
	case 1:
		p.ActionType, p.MemoryID = "delete", o.id()
	}
	_, err := outbox.Pending(ctx, o.tx, p)
	return err
}

// wantKinds checks that entries of every kind were written (C10).
func (o *operations) wantKinds(t *testing.T) {
	t.Helper()
	kinds, err := o.fleet.strings(t.Context(), `select kind || ': ' || count(*) from outbox group by kind order by kind`)
	if err != nil {
		t.Fatal(err)
	}
	t.Logf("entries %v, refused transactions %v", kinds, o.refused)
	const all = 10
	if len(kinds) != all {
		t.Errorf("C10: entries of %d kinds, want %d", len(kinds), all)
	}
}

// reachAllKinds waits until the load has written entries of every kind: chance may leave a rare one out for a while.
func (o *operations) reachAllKinds(t *testing.T) {
	t.Helper()
	until(t, "entries of all kinds are written", func() []string {
		return holds(o.fleet.count(t, `select count(distinct kind) from outbox`) == 10, "some kind is missing")
	})
}

// reachAllRefusals waits until writers were refused in every way.
func (o *operations) reachAllRefusals(t *testing.T) {
	t.Helper()
	until(t, "writers are refused in every way", func() []string {
		o.mu.Lock()
		defer o.mu.Unlock()
		return holds(len(o.refused) == 6, "some way is missing")
	})
}

// wantRefusals checks that writers were refused in every way (C10).
func (o *operations) wantRefusals(t *testing.T) {
	t.Helper()
	for _, name := range []string{"title taken", "not found", "live", "not archived", "decided", "invalid"} {
		if o.refused[name] == 0 {
			t.Errorf("C10: no writer was refused with %q", name)
		}
	}
}
