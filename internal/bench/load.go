//go:build unix

package bench

import (
	"context"
	"fmt"
	"slices"
	"time"

	"github.com/jackc/pgx/v5"
	"golang.org/x/sync/errgroup"

	"quorumbox/outbox"
)

// write does in a writer's transaction what the scenario is about.
type write func(ctx context.Context, tx pgx.Tx, m outbox.Memory) error

// written is what the writers did.
type written struct {
	count   int
	first   time.Time       // when the first write began
	last    time.Time       // when the last commit was answered
	commits []time.Duration // of each whole transaction
}

func (w written) duration() time.Duration { return w.last.Sub(w.first) }

// load writes with all writers, as fast as each can, for the configured time. A write is begin, the scenario's statements, commit.
// A write that was begun is brought to its end, so that what is counted is what is there.
func (s *stack) load(ctx context.Context, do write) (written, error) {
	w := written{first: time.Now()}
	end := w.first.Add(s.cfg.Duration)
	each := make([]written, s.cfg.Writers)
	group, ctx := errgroup.WithContext(ctx)
	for i := range each {
		group.Go(func() error {
			conn, err := s.pool.Acquire(ctx)
			if err != nil {
				return fmt.Errorf("writer %d: %w", i, err)
			}
			defer conn.Release()
			for start := time.Now(); start.Before(end); start = each[i].last {
				m := s.memories.new()
				if err := pgx.BeginFunc(ctx, conn, func(tx pgx.Tx) error { return do(ctx, tx, m) }); err != nil {
					return fmt.Errorf("writer %d: %w", i, err)
				}
				each[i].last = time.Now()
				each[i].commits = append(each[i].commits, each[i].last.Sub(start))
			}
			return nil
		})
	}
	if err := group.Wait(); err != nil {
		return written{}, err
	}
	for _, e := range each {
		w.count += len(e.commits)
		w.commits = slices.Concat(w.commits, e.commits)
		if e.last.After(w.last) {
			w.last = e.last
		}
	}
	return w, nil
}

// one writes a single memory: to warm everything up, and to see that the worker works.
func (s *stack) one(ctx context.Context, do write) error {
	m := s.memories.new()
	return pgx.BeginFunc(ctx, s.pool, func(tx pgx.Tx) error { return do(ctx, tx, m) })
}

func writeOurs(ctx context.Context, tx pgx.Tx, m outbox.Memory) error {
	_, err := outbox.Store(ctx, tx, m)
	return err
}

// oursDone says whether every entry has a verdict and every peer all of them.
const oursDone = `
	select not exists (select from undispatched)
	   and not exists (select from batches where verdict = 'pending')
	   and not exists (select from lagging)`

// writeBare inserts the row that outbox.Store would insert, and nothing else.
func writeBare(ctx context.Context, tx pgx.Tx, m outbox.Memory) error {
	r, err := newRow(m, time.Now())
	if err != nil {
		return err
	}
	_, err = tx.Exec(ctx, `
		insert into memories (id, namespace, title, tier, content, tags, priority, confidence, source, access_count, created_at, updated_at,
			last_accessed_at, expires_at, entity_id, persona_version, source_uri, source_span, confidence_signals, confidence_decayed_at,
			metadata, reflection_depth, memory_kind, citations, confidence_source, version)
		values ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12, $13, $14, $15, $16, $17, $18, $19, $20, $21, $22, $23, $24, $25, 1)`,
		r.ID, r.Namespace, r.Title, r.Tier, r.Content, r.Tags, r.Priority, r.Confidence, r.Source, r.AccessCount, r.CreatedAt, r.UpdatedAt,
		r.LastAccessedAt, r.ExpiresAt, r.EntityID, r.PersonaVersion, r.SourceURI, r.SourceSpan, r.ConfidenceSignals, r.ConfidenceDecayedAt,
		r.Metadata, r.ReflectionDepth, r.MemoryKind, r.Citations, r.ConfidenceSource)
	return err
}
