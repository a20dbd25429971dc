// Package outbox is the writer's side of quorumbox: a change and the entry that replicates it are written in one transaction of the
// caller, [Await] tells when a quorum has it, and the [Relay] turns committed entries into batches.
//
// What changes memories is [Store], [StoreMany], [Delete], [Archive], [Restore] and [Consolidate]; what is about them [Link], [NamespaceSet] and
// [NamespaceClear]; what is about to happen to them [Pending] and [Decide]. [Append] is for applications with tables of their own.
//
// The functions that write take the caller's transaction and neither commit nor roll it back. After an error of one of them the transaction
// is aborted, as after any failed statement, if a statement ran: only where a function says so can it go on.
// They lock the rows that they are about, so two transactions that take the same ones in another order may deadlock; Postgres ends one of them
// with SQLSTATE 40P01, and it can be repeated. Nothing here is safe for concurrent use of one transaction, because a pgx.Tx is not.
//
// If ctx carries an OpenTelemetry span, the entries that a function appends, and those that are appended after it in the same transaction without one, belong to that span's
// trace: their replication continues it. It costs no round trip.
package outbox

import (
	"context"
	"encoding/json"
	"fmt"

	"github.com/jackc/pgx/v5"

	"quorumbox/internal/span"
)

// EntryID names one entry of the outbox: one committed change to replicate.
type EntryID int64

// Action is what a store did to the writer's own row.
type Action string

// The actions.
const (
	Inserted  Action = "inserted"
	Updated   Action = "updated"
	Moved     Action = "moved"     // title or namespace changed: peers get a delete, then a store
	Unchanged Action = "unchanged" // the row was there as it is; it is sent to the peers once more
)

// Kind is what an entry does at the peers.
type Kind string

// The kinds.
const (
	KindStore          Kind = "store"
	KindDelete         Kind = "delete"
	KindArchive        Kind = "archive"
	KindRestore        Kind = "restore"
	KindLink           Kind = "link"
	KindConsolidate    Kind = "consolidate"
	KindPending        Kind = "pending"
	KindDecision       Kind = "decision"
	KindNamespaceSet   Kind = "namespace_set"
	KindNamespaceClear Kind = "namespace_clear"
)

// Stored is the result of one store.
type Stored struct {
	Entry  EntryID
	Action Action
}

// RowError says which row of a [StoreMany] was refused, counted from 0.
type RowError struct {
	Row int
	ID  string
	Err error
}

func (e *RowError) Error() string { return fmt.Sprintf("row %d (id %q): %v", e.Row, e.ID, e.Err) }
func (e *RowError) Unwrap() error { return e.Err }

// Store inserts the memory, or updates the row of its id, and appends what its peers need, in tx. One round trip.
//
// Repeating a store whose commit was ambiguous is safe: it leaves the row as it is and replicates it once more.
// Errors: [*InvalidError] for a row that a receiver would refuse; [ErrTitleTaken].
func Store(ctx context.Context, tx pgx.Tx, m Memory) (Stored, error) {
	args, err := storeArgs(m)
	if err != nil {
		return Stored{}, fmt.Errorf("outbox: store %q: %w", m.ID, err)
	}
	var s Stored
	if err := queryRow(ctx, tx, storeSQL, args, &s.Entry, &s.Action); err != nil {
		return Stored{}, fmt.Errorf("outbox: store %q: %w", m.ID, writeError(err))
	}
	return s, nil
}

// storeManyChunk is how many rows one round trip of StoreMany carries: large enough that the round trip does not count, small
// enough that neither side buffers more than a few megabytes.
const storeManyChunk = 500

// StoreMany is [Store] for many memories in one transaction, a round trip for each 500. All rows are checked before the first is
// written. The results are in the order of the memories. On error nothing of it may be committed; the error is a [*RowError]
// where one row is at fault.
func StoreMany(ctx context.Context, tx pgx.Tx, memories []Memory) ([]Stored, error) {
	rows := make([][]any, len(memories))
	for i, m := range memories {
		args, err := storeArgs(m)
		if err != nil {
			return nil, fmt.Errorf("outbox: store many: %w", &RowError{Row: i, ID: m.ID, Err: err})
		}
		rows[i] = args
	}

	traceparent := span.Format(ctx)
	results := make([]Stored, 0, len(memories))
	for start := 0; start < len(rows); start += storeManyChunk {
		var batch pgx.Batch
		if traceparent != "" && start == 0 {
			batch.Queue(setTraceparent, traceparent)
		}
		for _, args := range rows[start:min(start+storeManyChunk, len(rows))] {
			batch.Queue(storeSQL, args...).QueryRow(func(row pgx.Row) error {
				var s Stored
				if err := row.Scan(&s.Entry, &s.Action); err != nil {
					return err
				}
				results = append(results, s)
				return nil
			})
		}
		if err := tx.SendBatch(ctx, &batch).Close(); err != nil {
			i := len(results)
			return nil, fmt.Errorf("outbox: store many: %w", &RowError{Row: i, ID: memories[i].ID, Err: writeError(err)})
		}
	}
	return results, nil
}

// Delete deletes the memory, with its links and the namespace standard that it is, and appends the delete, in tx. Deleting a
// memory again gives the entry of the first delete, so that an ambiguous commit can be repeated and awaited. [ErrNotFound]
// if there never was one, [*InvalidError] for an id that none can have; the transaction goes on after both.
func Delete(ctx context.Context, tx pgx.Tx, id string) (EntryID, error) {
	if err := validID("id", id); err != nil {
		return 0, fmt.Errorf("outbox: delete: %w", err)
	}
	var entry *EntryID
	if err := queryRow(ctx, tx, `select entry from memory_delete($1)`, []any{id}, &entry); err != nil {
		return 0, fmt.Errorf("outbox: delete %q: %w", id, writeError(err))
	}
	if entry == nil {
		return 0, fmt.Errorf("outbox: delete %q: %w", id, ErrNotFound)
	}
	return *entry, nil
}

const storeSQL = `
	select entry, action from memory_write(
		$1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12, $13, $14, $15, $16, $17, $18, $19, $20, $21, $22, $23, $24, $25, $26,
		$27, $28)`

// storeArgs checks m and returns the arguments of storeSQL.
func storeArgs(m Memory) ([]any, error) {
	m = m.withDefaults()
	if err := m.validate(); err != nil {
		return nil, err
	}
	body, err := m.body()
	if err != nil {
		return nil, err
	}
	citations, err := marshal(m.Citations)
	if err != nil {
		return nil, fmt.Errorf("encode citations: %w", err)
	}
	var model *string
	var vector []float32
	if m.Embedding != nil {
		model, vector = &m.Embedding.Model, m.Embedding.Vector
	}
	return []any{
		m.ID, m.Namespace, m.Title, m.Tier, m.Content, m.Tags, m.Priority, *m.Confidence, m.Source, m.AccessCount,
		orNull(m.CreatedAt), orNull(m.UpdatedAt), orNull(m.LastAccessedAt), orNull(m.ExpiresAt),
		orNull(m.EntityID), m.PersonaVersion, orNull(m.SourceURI), jsonOrNull(m.SourceSpan), jsonOrNull(m.ConfidenceSignals),
		orNull(m.ConfidenceDecayedAt), string(m.Metadata), m.ReflectionDepth, m.MemoryKind, string(citations), m.ConfidenceSource,
		string(body), model, vector,
	}, nil
}

// orNull is SQL's null for a zero value.
func orNull[T comparable](v T) *T {
	var zero T
	if v == zero {
		return nil
	}
	return &v
}

func jsonOrNull(j json.RawMessage) *string {
	if j == nil {
		return nil
	}
	return new(string(j))
}
