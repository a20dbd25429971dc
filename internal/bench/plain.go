//go:build unix

package bench

import (
	"context"
	"encoding/json"
	"fmt"
	"log/slog"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgxpool"
	"github.com/riverqueue/river"
	"github.com/riverqueue/river/riverdriver/riverpgxv5"
	"golang.org/x/sync/errgroup"

	"quorumbox/internal/peer"
	"quorumbox/outbox"
)

// The plain pattern, tuned as far as it goes: what one would write with River alone, one job per memory.
const (
	plainWorkers     = 100
	plainConnections = 64 // to each peer
	plainCooldown    = time.Millisecond
	plainPoll        = 10 * time.Millisecond
	plainTimeout     = 10 * time.Second // of one push
)

// plainArgs asks for one memory to be pushed to every peer. Ids only, as in any well-kept queue.
type plainArgs struct {
	Memory string `json:"memory"`
}

// Kind names the job for River.
func (plainArgs) Kind() string { return "bench_push" }

// writePlain inserts the memory and its job in the writer's transaction. The inserting client notifies at most every 100 ms (River's
// default): a notification in each transaction would make all commits wait for one lock.
func writePlain(client *river.Client[pgx.Tx]) write {
	return func(ctx context.Context, tx pgx.Tx, m outbox.Memory) error {
		if err := writeBare(ctx, tx, m); err != nil {
			return err
		}
		_, err := client.InsertTx(ctx, tx, plainArgs{Memory: m.ID}, nil)
		return err
	}
}

// plainDone says whether every job is completed.
const plainDone = `
	select not exists (select from river_job where state in ('available', 'pending', 'retryable', 'running', 'scheduled'))`

// Pusher pushes to the peer of the given id and returns nil once that has acknowledged.
type Pusher func(ctx context.Context, peerID string, req peer.Request) error

// RunPlainWorker works the jobs of the plain pattern until ctx ends: it loads the memory and pushes it to all peers at once; the job is
// completed when all have acknowledged, and repeated otherwise.
func RunPlainWorker(ctx context.Context, pool *pgxpool.Pool, sender string, peers []string, push Pusher, logger *slog.Logger) error {
	workers := river.NewWorkers()
	if err := river.AddWorkerSafely(workers, &plainWorker{pool: pool, sender: sender, peers: peers, push: push}); err != nil {
		return fmt.Errorf("bench: %w", err)
	}
	client, err := river.NewClient(riverpgxv5.New(pool), &river.Config{
		Queues:            map[string]river.QueueConfig{river.QueueDefault: {MaxWorkers: plainWorkers}},
		Workers:           workers,
		FetchCooldown:     plainCooldown,
		FetchPollInterval: plainPoll,
		Logger:            logger,
	})
	if err != nil {
		return fmt.Errorf("bench: %w", err)
	}
	if err := client.Start(ctx); err != nil {
		return fmt.Errorf("bench: start River: %w", err)
	}
	<-client.Stopped()
	return nil
}

type plainWorker struct {
	river.WorkerDefaults[plainArgs]

	pool   *pgxpool.Pool
	sender string
	peers  []string
	push   Pusher
}

// Work pushes one memory.
func (w *plainWorker) Work(ctx context.Context, job *river.Job[plainArgs]) error {
	rows, err := w.pool.Query(ctx, `
		select id, namespace, title, tier, content, tags, priority, confidence, source, access_count, created_at, updated_at,
		       last_accessed_at, expires_at, entity_id, persona_version, source_uri, source_span, confidence_signals, confidence_decayed_at,
		       metadata, reflection_depth, memory_kind, citations, confidence_source, version
		from memories
		where id = $1`, job.Args.Memory)
	if err != nil {
		return fmt.Errorf("load memory: %w", err)
	}
	memory, err := pgx.CollectExactlyOneRow(rows, pgx.RowToStructByName[row])
	if err != nil {
		return fmt.Errorf("load memory: %w", err)
	}
	payload, err := memory.wire()
	if err != nil {
		return err
	}
	req := peer.Request{
		Body:           peer.Message{Memories: []json.RawMessage{payload}}.Encode(w.sender),
		IdempotencyKey: memory.ID,
		ExpectIDs:      []string{memory.ID},
	}
	ctx, cancel := context.WithTimeout(ctx, plainTimeout)
	defer cancel()
	group, ctx := errgroup.WithContext(ctx)
	for _, p := range w.peers {
		group.Go(func() error { return w.push(ctx, p, req) })
	}
	return group.Wait()
}

// wireTime is a time as the protocol writes it.
type wireTime time.Time

// MarshalText writes UTC with six digits.
func (t wireTime) MarshalText() ([]byte, error) {
	return time.Time(t).UTC().AppendFormat(nil, "2006-01-02T15:04:05.000000+00:00"), nil
}

// wire is the memory as a peer is sent it.
func (r row) wire() (json.RawMessage, error) {
	type fields row
	b, err := json.Marshal(struct {
		fields

		CreatedAt           wireTime  `json:"created_at"`
		UpdatedAt           wireTime  `json:"updated_at"`
		LastAccessedAt      *wireTime `json:"last_accessed_at,omitzero"`
		ExpiresAt           *wireTime `json:"expires_at,omitzero"`
		ConfidenceDecayedAt *wireTime `json:"confidence_decayed_at,omitzero"`
	}{
		fields(r), wireTime(r.CreatedAt), wireTime(r.UpdatedAt), (*wireTime)(r.LastAccessedAt), (*wireTime)(r.ExpiresAt),
		(*wireTime)(r.ConfidenceDecayedAt),
	})
	if err != nil {
		return nil, fmt.Errorf("encode memory %s: %w", r.ID, err)
	}
	return b, nil
}
