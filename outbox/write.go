// Package outbox is the writer's side of quorumbox: a memory and the entry that replicates it are written in one transaction of the
// caller ([Store], [StoreMany], [Delete], [Append]), [Await] tells when a quorum has it, and the [Relay] turns committed entries into batches.
//
// The functions that write take the caller's transaction and neither commit nor roll it back. After an error of one of them other than
// [*InvalidError] and [ErrNotFound] before any statement ran, the transaction is aborted, as after any failed statement.
// Nothing here is safe for concurrent use of one transaction, because a pgx.Tx is not.
package outbox

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"strings"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"
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
	KindStore  Kind = "store"
	KindDelete Kind = "delete"
)

var (
	// ErrNotFound says that there is no memory of that id, and never was one that this store deleted.
	ErrNotFound = errors.New("no such memory")

	// ErrTitleTaken says that another memory of the namespace has the title. Peers would merge the two.
	ErrTitleTaken = errors.New("another memory of this namespace has this title")
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
	if err := tx.QueryRow(ctx, storeSQL, args...).Scan(&s.Entry, &s.Action); err != nil {
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

	results := make([]Stored, 0, len(memories))
	for start := 0; start < len(rows); start += storeManyChunk {
		var batch pgx.Batch
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
// if there never was one; the transaction goes on after it.
func Delete(ctx context.Context, tx pgx.Tx, id string) (EntryID, error) {
	if err := validID("id", id); err != nil {
		return 0, fmt.Errorf("outbox: delete: %w", err)
	}
	var entry *EntryID
	if err := tx.QueryRow(ctx, `select entry from memory_delete($1)`, id).Scan(&entry); err != nil {
		return 0, fmt.Errorf("outbox: delete %q: %w", id, writeError(err))
	}
	if entry == nil {
		return 0, fmt.Errorf("outbox: delete %q: %w", id, ErrNotFound)
	}
	return *entry, nil
}

// Entry is one change for [Append].
type Entry struct {
	Namespace string          // decides the lane: entries of one namespace reach a peer in commit order
	Kind      Kind            // store or delete
	Key       string          // the memory's id
	Payload   json.RawMessage // store: the memory, with id, namespace, title, content, tier and source; delete: nil or {"title": "…"}
	After     EntryID         // an earlier entry that every peer must have before this one, or 0
}

// Append adds one entry for an application that keeps its memories in tables of its own, in tx; it is the SQL function outbox_append.
//
// The caller must have locked the row that the entry describes in tx (by insert, update, delete or select for update) before the
// call: that lock is what puts the entries of one memory in order. A changed title or namespace must be appended as a delete
// and a store, with After set to the delete where the namespaces differ. Errors: [*InvalidError] with field and rule.
func Append(ctx context.Context, tx pgx.Tx, e Entry) (EntryID, error) {
	var payload, after any
	if len(e.Payload) > 0 {
		payload = string(e.Payload)
	}
	if e.After != 0 {
		after = int64(e.After)
	}
	var id EntryID
	err := tx.QueryRow(ctx, `select outbox_append($1, $2, $3, $4::jsonb, $5)`,
		e.Namespace, string(e.Kind), e.Key, payload, after).Scan(&id)
	if err != nil {
		return 0, fmt.Errorf("outbox: append %s of %q: %w", e.Kind, e.Key, writeError(err))
	}
	return id, nil
}

const storeSQL = `
	select entry, action from memory_write(
		$1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12, $13, $14, $15, $16, $17, $18, $19, $20, $21, $22, $23, $24, $25, $26)`

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
	return []any{
		m.ID, m.Namespace, m.Title, m.Tier, m.Content, m.Tags, m.Priority, *m.Confidence, m.Source, m.AccessCount,
		orNull(m.CreatedAt), orNull(m.UpdatedAt), orNull(m.LastAccessedAt), orNull(m.ExpiresAt),
		orNull(m.EntityID), m.PersonaVersion, orNull(m.SourceURI), jsonOrNull(m.SourceSpan), jsonOrNull(m.ConfidenceSignals),
		orNull(m.ConfidenceDecayedAt), string(m.Metadata), m.ReflectionDepth, m.MemoryKind, string(citations), m.ConfidenceSource,
		string(body),
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

// writeError gives the database's refusals the types that this package promises.
func writeError(err error) error {
	pgErr, ok := errors.AsType[*pgconn.PgError](err)
	if !ok {
		return err
	}
	const uniqueViolation, checkViolation = "23505", "23514"
	switch {
	case pgErr.Code == uniqueViolation && pgErr.ConstraintName == "memories_title_namespace":
		return ErrTitleTaken
	case pgErr.Code == checkViolation && pgErr.ColumnName != "":
		// Raised by outbox_refuse as "subject: field: rule".
		_, rule, ok := strings.Cut(pgErr.Message, pgErr.ColumnName+": ")
		if !ok {
			rule = pgErr.Message
		}
		return &InvalidError{Field: pgErr.ColumnName, Rule: rule}
	case pgErr.Code == checkViolation:
		return &InvalidError{Field: pgErr.DataTypeName, Rule: "violates " + pgErr.ConstraintName} // the name of a domain
	}
	return err
}
