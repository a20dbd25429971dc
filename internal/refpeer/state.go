package refpeer

import (
	"context"
	"database/sql"
	"encoding/json"
	"fmt"
	"net/http"
)

// State is what a peer holds beside its live memories, whole and sorted by
// key. Every list is there, empty or not.
type State struct {
	Archived      []json.RawMessage `json:"archived"` // memories, with archived_at and archive_reason
	Links         []Link            `json:"links"`
	Pendings      []Pending         `json:"pendings"`
	NamespaceMeta []NamespaceMeta   `json:"namespace_meta"`
	Embeddings    []Embedding       `json:"embeddings"`
}

// Link is a stored link.
type Link struct {
	SourceID    string  `json:"source_id"`
	TargetID    string  `json:"target_id"`
	Relation    string  `json:"relation"`
	CreatedAt   string  `json:"created_at"`
	ValidFrom   *string `json:"valid_from,omitempty"`
	ValidUntil  *string `json:"valid_until,omitempty"`
	ObservedBy  *string `json:"observed_by,omitempty"`
	Signature   Octets  `json:"signature,omitempty"`
	AttestLevel string  `json:"attest_level"` // unsigned or peer_attested
}

// Octets is written as a list of integers, as links are on the wire.
type Octets []byte

// MarshalJSON writes the list.
func (o Octets) MarshalJSON() ([]byte, error) {
	numbers := make([]int, len(o))
	for i, b := range o {
		numbers[i] = int(b)
	}
	return json.Marshal(numbers)
}

// Pending is a parked action, or one that was decided.
type Pending struct {
	ID          string          `json:"id"`
	ActionType  string          `json:"action_type"`
	MemoryID    *string         `json:"memory_id"`
	Namespace   string          `json:"namespace"`
	Payload     json.RawMessage `json:"payload"`
	RequestedBy string          `json:"requested_by"`
	RequestedAt string          `json:"requested_at"`
	Status      string          `json:"status"`
	DecidedBy   *string         `json:"decided_by,omitempty"`
	DecidedAt   *string         `json:"decided_at,omitempty"`
	Approvals   json.RawMessage `json:"approvals"`
}

// NamespaceMeta says which memory is the standard of a namespace.
type NamespaceMeta struct {
	Namespace       string  `json:"namespace"`
	StandardID      string  `json:"standard_id"`
	ParentNamespace *string `json:"parent_namespace"`
	UpdatedAt       string  `json:"updated_at"`
}

// Embedding is a stored vector, without its numbers.
type Embedding struct {
	MemoryID string `json:"memory_id"`
	Dim      int    `json:"dim"`
	Model    string `json:"model"`
}

// querier reads from the file, in a transaction or without one.
type querier interface {
	QueryContext(ctx context.Context, query string, args ...any) (*sql.Rows, error)
}

// State reads everything beside the live memories, as of one moment.
func (p *Peer) State(ctx context.Context) (State, error) {
	tx, err := p.store.readers.BeginTx(ctx, nil)
	if err != nil {
		return State{}, fmt.Errorf("read the state: %w", err)
	}
	defer func() { _ = tx.Rollback() }() // it only read
	var s State
	if s.Archived, err = readArchived(ctx, tx, `order by id`); err != nil {
		return State{}, err
	}
	if s.Links, err = readLinks(ctx, tx, `order by source_id, target_id, relation`); err != nil {
		return State{}, err
	}
	if s.Pendings, err = readPendings(ctx, tx, `order by id`); err != nil {
		return State{}, err
	}
	if s.NamespaceMeta, err = readNamespaceMeta(ctx, tx, `order by namespace`); err != nil {
		return State{}, err
	}
	s.Embeddings, err = readAll(ctx, tx, `select memory_id, dim, model from embeddings order by memory_id`,
		func(rows *sql.Rows, e *Embedding) error { return rows.Scan(&e.MemoryID, &e.Dim, &e.Model) })
	return s, err
}

func (p *Peer) handleRefState(w http.ResponseWriter, r *http.Request) {
	state, err := p.State(r.Context())
	if err != nil {
		p.internalError(r.Context(), err).write(w)
		return
	}
	p.writeValue(w, r, state)
}

// readAll reads every row of a query. The list is never nil.
func readAll[T any](
	ctx context.Context, q querier, query string, scan func(*sql.Rows, *T) error, args ...any,
) (_ []T, err error) {
	defer func() {
		if err != nil {
			err = fmt.Errorf("read the state: %w", err)
		}
	}()
	rows, err := q.QueryContext(ctx, query, args...)
	if err != nil {
		return nil, err
	}
	defer func() { _ = rows.Close() }()
	out := []T{}
	for rows.Next() {
		var v T
		if err := scan(rows, &v); err != nil {
			return nil, err
		}
		out = append(out, v)
	}
	return out, rows.Err()
}

// readArchived reads archived memories; tail is the end of the query.
func readArchived(ctx context.Context, q querier, tail string, args ...any) ([]json.RawMessage, error) {
	return readAll(ctx, q, `select payload, archived_at, reason from archived_memories `+tail,
		func(rows *sql.Rows, out *json.RawMessage) error {
			var raw, at, reason string
			if err := rows.Scan(&raw, &at, &reason); err != nil {
				return err
			}
			m, err := parseMemory(raw)
			if err != nil {
				return fmt.Errorf("archived memory: %w", err)
			}
			b := m.appendJSON(nil)
			b = appendField(b[:len(b)-1], "archived_at", at)
			*out = append(appendField(b, "archive_reason", reason), '}')
			return nil
		}, args...)
}

// readLinks reads links; tail is the end of the query.
func readLinks(ctx context.Context, q querier, tail string, args ...any) ([]Link, error) {
	return readAll(ctx, q, `select source_id, target_id, relation, created_at, valid_from, valid_until, observed_by, signature,
		attest_level from memory_links `+tail,
		func(rows *sql.Rows, l *Link) error {
			return rows.Scan(&l.SourceID, &l.TargetID, &l.Relation, &l.CreatedAt, &l.ValidFrom, &l.ValidUntil, &l.ObservedBy,
				(*[]byte)(&l.Signature), &l.AttestLevel)
		}, args...)
}

// readPendings reads parked actions; tail is the end of the query.
func readPendings(ctx context.Context, q querier, tail string, args ...any) ([]Pending, error) {
	return readAll(ctx, q, `select id, action_type, memory_id, namespace, payload, requested_by, requested_at, status, decided_by,
		decided_at, approvals from pending_actions `+tail,
		func(rows *sql.Rows, a *Pending) error {
			return rows.Scan(&a.ID, &a.ActionType, &a.MemoryID, &a.Namespace, (*[]byte)(&a.Payload), &a.RequestedBy, &a.RequestedAt,
				&a.Status, &a.DecidedBy, &a.DecidedAt, (*[]byte)(&a.Approvals))
		}, args...)
}

// readNamespaceMeta reads standards; tail is the end of the query.
func readNamespaceMeta(ctx context.Context, q querier, tail string, args ...any) ([]NamespaceMeta, error) {
	return readAll(ctx, q, `select namespace, standard_id, parent_namespace, updated_at from namespace_meta `+tail,
		func(rows *sql.Rows, n *NamespaceMeta) error {
			return rows.Scan(&n.Namespace, &n.StandardID, &n.ParentNamespace, &n.UpdatedAt)
		}, args...)
}
