package integration

import (
	"context"
	"flag"
	"fmt"
	"math/rand/v2"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"

	"quorumbox/outbox"
)

//nolint:gochecknoglobals // a flag of the test binary
var pairsFlag = flag.Int("pairs", 1000, "how many memories TestNothingComesBack stores and deletes")

// zombieLife is how long a push may still be applied after its sender gave it up, as the workers are told. The faults of zombieFaults keep to it.
const zombieLife = 3 * time.Second

// zombieFaults are those of every peer: of ten pushes one is applied when nobody waits for it any more, is overtaken by others, or loses its answer.
const zombieFaults = `[
	{"mode":"zombie","delay":"1500ms","probability":0.03}, {"mode":"zombie","delay":"2200ms","probability":0.02},
	{"mode":"zombie","delay":"600ms","probability":0.01}, {"mode":"reorder","delay":"2s","probability":0.02},
	{"mode":"lose_answer","probability":0.02}]`

// Memories are stored and deleted, some stored again, while peers apply pushes that were given up, let pushes overtake each other and lose answers,
// and workers are killed. What was deleted is not alive at any peer in the end, and what was not is.
func TestNothingComesBack(t *testing.T) {
	t.Parallel()
	f := newFleet(t, setup{ackTimeout: 300 * time.Millisecond, zombies: true, zombie: zombieLife, settings: "jobs: {timeout: 2400ms}"})
	for _, p := range f.peers {
		p.setFaults(t, zombieFaults)
	}
	seed := rand.Uint64() //nolint:gosec // no secret
	t.Logf("seed of the kills: %d", seed)
	rng := rand.New(rand.NewPCG(seed, 0)) //nolint:gosec // no secret

	begin := time.Now()
	workers := []*process{f.worker(t, ""), f.worker(t, "")}
	p := startPairs(t, f, *pairsFlag)
	kills := 0
	for !p.over(time.Duration(500+rng.IntN(1000)) * time.Millisecond) {
		i := rng.IntN(len(workers))
		workers[i].kill(t)
		kills++
		workers[i] = f.worker(t, "")
	}
	t.Logf("%d pairs stored and deleted, %d of them stored again, %d others only stored, in %s; %d workers killed",
		p.deleted.Load(), p.again.Load(), p.kept.Load(), time.Since(begin).Round(time.Second), kills)
	if kills == 0 {
		t.Error("C10: no worker was killed")
	}
	f.healAndLetZombiesArrive(t)
	f.convergeAfterZombies(t)
}

// healAndLetZombiesArrive ends the peers' faults and waits until no push is on its way in a peer. It tells what happened until then (C10).
func (f *fleet) healAndLetZombiesArrive(t *testing.T) {
	t.Helper()
	zombies := int64(0)
	for _, p := range f.peers {
		p.setFaults(t, "")
		c, err := p.counters(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		t.Logf("%s: %d pushes, faults %v", p.id, c.total(), c.Faults)
		zombies += c.Faults["zombie"]
	}
	if zombies == 0 {
		t.Error("C10: no push was applied late")
	}
	until(t, "no push is waiting in a peer", func() []string {
		var left []string
		for _, p := range f.peers {
			c, err := p.counters(t.Context())
			left = append(left, problem(err)...)
			if c.Concurrent > 0 {
				left = append(left, fmt.Sprintf("%s has %d", p.id, c.Concurrent))
			}
		}
		return left
	})
	back, err := f.cameBack(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	t.Logf("deleted memories that a late push brought back for a while or for good: %d", back)
}

// convergeAfterZombies waits until nothing is in doubt any more and checks that every peer equals the writer.
func (f *fleet) convergeAfterZombies(t *testing.T) {
	t.Helper()
	until(t, "nothing is left to do and nothing in doubt", func() []string { return f.unsettledOrRefused(t.Context()) })
	back := f.resurrected(t.Context())
	t.Logf("C4: deleted memories that are alive at a peer in the end: %d", len(back))
	if len(back) > 0 {
		t.Errorf("C4: %d deleted memories are alive at a peer:\n%s", len(back), list(back))
	}
	if left := f.rowDifferences(t.Context(), changes); len(left) > 0 {
		t.Errorf("C1: %d rows of peers differ from the writer's:\n%s", len(left), list(texts(left)))
	}
	f.check(t)
}

// pairs are writers that store memories and delete them again, once their stores were handed to a worker: otherwise nothing but the delete is pushed.
type pairs struct {
	fleet *fleet
	chunk int // memories of one transaction

	wanted  atomic.Int64
	deleted atomic.Int64
	again   atomic.Int64 // of those that were deleted
	kept    atomic.Int64 // beside them
	ended   chan struct{}
}

// pairWriters write at once.
const pairWriters = 8

// startPairs starts writers that end when n memories were stored and deleted.
func startPairs(t *testing.T, f *fleet, n int) *pairs {
	t.Helper()
	p := &pairs{fleet: f, chunk: min(max(n/100, 5), 50), ended: make(chan struct{})}
	p.wanted.Store(int64(n))
	var writers sync.WaitGroup
	for w := range pairWriters {
		writers.Go(func() {
			for c := 0; p.wanted.Load() > 0 && t.Context().Err() == nil; c++ {
				if err := p.write(t.Context(), w, c); err != nil {
					t.Errorf("writer %d: %v", w, err)
					return
				}
			}
		})
	}
	go func() { // ends with the writers
		writers.Wait()
		close(p.ended)
	}()
	t.Cleanup(func() { <-p.ended })
	return p
}

// over waits for the end of the writers, for d at most.
func (p *pairs) over(d time.Duration) bool {
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-p.ended:
		return true
	case <-timer.C:
		return false
	}
}

// write does the c-th chunk of a writer: of ten memories nine are deleted, and one of those is stored again.
func (p *pairs) write(ctx context.Context, writer, c int) error {
	const namespaces = 61
	list := make([]outbox.Memory, p.chunk)
	for i := range list {
		list[i] = memory(fmt.Sprintf("pair-%d-%d-%d", writer, c, i), fmt.Sprintf("pair/%d", (7*writer+c)%namespaces))
	}
	if err := p.store(ctx, list); err != nil {
		return err
	}
	var deleted, again []outbox.Memory
	for i, m := range list {
		switch i % 10 {
		case 0:
			p.kept.Add(1)
			continue
		case 5:
			m.Content += ", again"
			again = append(again, m)
		}
		deleted = append(deleted, m)
	}
	err := p.dispatched(ctx, func(tx pgx.Tx) (last outbox.EntryID, err error) {
		for _, m := range deleted {
			if last, err = outbox.Delete(ctx, tx, m.ID); err != nil {
				return 0, err
			}
		}
		return last, nil
	})
	if err != nil {
		return err
	}
	p.deleted.Add(int64(len(deleted)))
	p.wanted.Add(-int64(len(deleted)))
	p.again.Add(int64(len(again)))
	return p.store(ctx, again)
}

func (p *pairs) store(ctx context.Context, list []outbox.Memory) error {
	if len(list) == 0 {
		return nil
	}
	return p.dispatched(ctx, func(tx pgx.Tx) (outbox.EntryID, error) {
		stored, err := outbox.StoreMany(ctx, tx, list)
		if err != nil {
			return 0, err
		}
		return stored[len(stored)-1].Entry, nil
	})
}

// dispatched commits what do does, and waits until the last of its entries is in a batch.
func (p *pairs) dispatched(ctx context.Context, do func(pgx.Tx) (outbox.EntryID, error)) error {
	var last outbox.EntryID
	err := pgx.BeginFunc(ctx, p.fleet.pool, func(tx pgx.Tx) (err error) {
		last, err = do(tx)
		return err
	})
	if err != nil {
		return err
	}
	ticker := time.NewTicker(pollEvery)
	defer ticker.Stop()
	for {
		var waits bool
		if err := p.fleet.pool.QueryRow(ctx, `select exists (select from undispatched where entry = $1)`, last).Scan(&waits); err != nil {
			return err
		}
		if !waits {
			return nil
		}
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-ticker.C:
		}
	}
}

// cameBack is how often a peer inserted a version of a memory that it had had and deleted before.
func (f *fleet) cameBack(ctx context.Context) (n int, err error) {
	for _, p := range f.peers {
		log, err := p.log(ctx)
		if err != nil {
			return 0, err
		}
		had, deleted := map[change]bool{}, map[string]bool{}
		for _, a := range log {
			c := change{a.Op, a.ID, a.UpdatedAt}
			switch {
			case a.Op == "delete":
				deleted[a.ID] = true
			case a.Op == "store" && a.Result == "inserted":
				if had[c] && deleted[a.ID] {
					n++
				}
				had[c] = true
				deleted[a.ID] = false
			}
		}
	}
	return n, nil
}
