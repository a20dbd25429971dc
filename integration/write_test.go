package integration

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"

	"quorumbox/outbox"
)

// memory is one that peers show whoever asks.
func memory(id, namespace string) outbox.Memory {
	return outbox.Memory{
		ID: id, Namespace: namespace, Tier: "long", Title: "title of " + id, Content: payloadCanary + " of " + id,
		Tags: []string{"one", "two"}, Priority: 7, Metadata: []byte(`{"scope":"collective","n":1}`),
	}
}

// memories are n new ones in several namespaces.
func memories(prefix string, n int) []outbox.Memory {
	list := make([]outbox.Memory, n)
	for i := range list {
		list[i] = memory(fmt.Sprintf("%s-%d", prefix, i), fmt.Sprintf("team/%d", i%7))
	}
	return list
}

// store commits the memories in one transaction and returns their entries.
func (f *fleet) store(t *testing.T, list ...outbox.Memory) []outbox.EntryID {
	t.Helper()
	var entries []outbox.EntryID
	err := pgx.BeginFunc(t.Context(), f.pool, func(tx pgx.Tx) error {
		stored, err := outbox.StoreMany(t.Context(), tx, list)
		for _, s := range stored {
			entries = append(entries, s.Entry)
		}
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	return entries
}

// delete commits the delete of a memory and returns its entry.
func (f *fleet) delete(t *testing.T, id string) outbox.EntryID {
	t.Helper()
	var entry outbox.EntryID
	err := pgx.BeginFunc(t.Context(), f.pool, func(tx pgx.Tx) (err error) {
		entry, err = outbox.Delete(t.Context(), tx, id)
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	return entry
}

// await returns the verdict of entries.
func (f *fleet) await(t *testing.T, entries ...outbox.EntryID) outbox.Verdict {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), settleTime)
	defer cancel()
	v, err := outbox.Await(ctx, f.pool, entries...)
	if err != nil {
		t.Fatal(err)
	}
	return v
}

// wantMet checks that every entry reached its quorum.
func wantMet(t *testing.T, v outbox.Verdict, entries int) {
	t.Helper()
	if !v.IsMet() || v.Entries() != entries {
		t.Errorf("verdict %+v, want %d entries met", v, entries)
	}
}

// step is one write of a load: the n-th of a writer. It may use up to a few transactions.
type step func(ctx context.Context, rng *rand.Rand, writer, n int) error

// load is several writers that write at a steady pace until they are stopped.
type load struct {
	committed atomic.Int64
	failed    atomic.Int64 // steps that were tried again

	stopping chan struct{} // closed by stop
	writers  sync.WaitGroup
	once     sync.Once
}

// pace is the pause between two writes of one writer.
const pace = 5 * time.Millisecond

// startLoad starts writers. A step that fails is tried again until it succeeds, as a writer does whose commit was ambiguous; a step that has to
// be left out returns nil.
func startLoad(t *testing.T, writers int, do step) *load {
	t.Helper()
	l := &load{stopping: make(chan struct{})}
	seed := rand.Uint64() //nolint:gosec // no secret
	t.Logf("seed of the load: %d", seed)
	for w := range writers {
		l.writers.Go(func() { l.write(t, w, rand.New(rand.NewPCG(seed, uint64(w))), do) }) //nolint:gosec // no secret
	}
	t.Cleanup(l.end)
	return l
}

func (l *load) write(t *testing.T, writer int, rng *rand.Rand, do step) {
	t.Helper()
	ticker := time.NewTicker(pace)
	defer ticker.Stop()
	for n := 0; ; {
		select {
		case <-ticker.C:
		case <-t.Context().Done():
			return
		}
		ctx, cancel := context.WithTimeout(t.Context(), 10*time.Second)
		err := do(ctx, rng, writer, n)
		cancel()
		if err != nil {
			l.failed.Add(1)
			continue
		}
		n++
		l.committed.Add(1)
		select {
		case <-l.stopping:
			return
		default:
		}
	}
}

// reach waits until that many writes more have been committed.
func (l *load) reach(t *testing.T, more int) {
	t.Helper()
	goal := l.committed.Load() + int64(more)
	until(t, fmt.Sprintf("%d more writes are committed", more), func() []string {
		n := l.committed.Load()
		return holds(n >= goal, fmt.Sprintf("%d of %d, %d failed", n, goal, l.failed.Load()))
	})
}

// stop lets the writers end after their next write that succeeds, and waits for them.
func (l *load) stop(t *testing.T) {
	t.Helper()
	l.end()
	t.Logf("%d writes committed, %d failed and tried again", l.committed.Load(), l.failed.Load())
}

func (l *load) end() {
	l.once.Do(func() { close(l.stopping) })
	l.writers.Wait()
}

// inserts is a step that stores one new memory.
func (f *fleet) inserts(ctx context.Context, _ *rand.Rand, writer, n int) error {
	return pgx.BeginFunc(ctx, f.pool, func(tx pgx.Tx) error {
		_, err := outbox.Store(ctx, tx, memory(fmt.Sprintf("w%d-%d", writer, n), fmt.Sprintf("team/%d", n%11)))
		return err
	})
}

// insertsOfOneLane is a step that stores one new memory, always in the same lane.
func (f *fleet) insertsOfOneLane(ctx context.Context, _ *rand.Rand, writer, n int) error {
	return pgx.BeginFunc(ctx, f.pool, func(tx pgx.Tx) error {
		_, err := outbox.Store(ctx, tx, memory(fmt.Sprintf("w%d-%d", writer, n), "team"))
		return err
	})
}

// rewrites is a step that stores or deletes one of a few memories, each of which stays in its namespace.
func (f *fleet) rewrites(ctx context.Context, rng *rand.Rand, writer, n int) error {
	const ids, namespaces = 24, 11
	id := rng.IntN(ids)
	m := memory(fmt.Sprintf("m-%d", id), fmt.Sprintf("home/%d", id%namespaces))
	m.Metadata = fmt.Appendf(nil, `{"scope":"collective","change":"%d/%d"}`, writer, n)
	return pgx.BeginFunc(ctx, f.pool, func(tx pgx.Tx) error {
		if rng.IntN(3) > 0 {
			_, err := outbox.Store(ctx, tx, m)
			return err
		}
		_, err := outbox.Delete(ctx, tx, m.ID)
		if errors.Is(err, outbox.ErrNotFound) {
			return nil
		}
		return err
	})
}

// anything is a step that stores, changes, renames, moves, deletes or stores again one or two of a few memories.
func (f *fleet) anything(ctx context.Context, rng *rand.Rand, writer, n int) error {
	const ids, namespaces = 12, 6
	id := rng.IntN(ids)
	m := memory(fmt.Sprintf("m-%d", id), fmt.Sprintf("home/%d", id%namespaces))
	if rng.IntN(5) == 0 {
		m.Namespace = fmt.Sprintf("home/%d", rng.IntN(namespaces))
	}
	m.Content += fmt.Sprintf(", change %d of writer %d", n, writer)
	m.Metadata = fmt.Appendf(nil, `{"scope":"collective","change":"%d/%d"}`, writer, n)
	if rng.IntN(3) == 0 { // the title of another memory, perhaps
		m.Title = fmt.Sprintf("title of m-%d", rng.IntN(ids))
	}
	err := pgx.BeginFunc(ctx, f.pool, func(tx pgx.Tx) error {
		if rng.IntN(4) == 0 {
			if _, err := outbox.Delete(ctx, tx, m.ID); err != nil && !errors.Is(err, outbox.ErrNotFound) {
				return err
			}
			if rng.IntN(2) == 0 {
				return nil
			}
		}
		_, err := outbox.Store(ctx, tx, m)
		return err
	})
	if errors.Is(err, outbox.ErrTitleTaken) {
		return nil // refused, and rolled back
	}
	return err
}
