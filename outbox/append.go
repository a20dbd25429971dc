package outbox

import (
	"context"
	"encoding/json"
	"fmt"

	"github.com/jackc/pgx/v5"
)

// Entry is one change for [Append]. What Key and Payload are depends on the kind:
//
//	store, archive, restore   the memory's id; the memory, with id, namespace, title, content, tier and source
//	delete                    the memory's id; nil or {"title": "…"}
//	link                      source_id and target_id, joined; the link, in the source's namespace
//	consolidate               the new memory's id; {"memory": {…}, "sources": [{"id", "namespace", "title"}, …]}
//	pending                   the action's id; the action
//	decision                  the action's id; {"id", "approved", "decider"}, in the action's namespace
//	namespace_set             the namespace; {"namespace", "standard_id", "parent_namespace", "updated_at"}
//	namespace_clear           the namespace; nil
type Entry struct {
	Namespace string          // decides the lane: entries of one namespace reach a peer in commit order
	Kind      Kind            // one of the ten
	Key       string          // see above
	Payload   json.RawMessage // see above
	After     []EntryID       // earlier entries that every peer must have before this one
	Embedding *Embedding      // of the memory that a store or consolidate carries, or nil
}

// Append adds one entry for an application that keeps its memories in tables of its own, in tx; it is the SQL function outbox_append.
//
// The caller must have locked the row that the entry describes in tx (by insert, update, delete or select for update) before the
// call: that lock is what puts the entries of one memory in order. Order between namespaces is the caller's, by After: a changed title or namespace
// is a delete, and a store after it; a link comes after its target's store; a delete comes after the links to it. Errors: [*InvalidError] with
// field and rule.
func Append(ctx context.Context, tx pgx.Tx, e Entry) (EntryID, error) {
	var payload *string
	if len(e.Payload) > 0 {
		payload = new(string(e.Payload))
	}
	if e.Embedding != nil {
		if err := e.Embedding.validate(); err != nil {
			return 0, fmt.Errorf("outbox: append %s of %q: %w", e.Kind, e.Key, err)
		}
	}
	embedding, err := e.Embedding.json()
	if err != nil {
		return 0, fmt.Errorf("outbox: append %s of %q: %w", e.Kind, e.Key, err)
	}
	var id EntryID
	err = queryRow(ctx, tx, `select outbox_append($1, $2, $3, $4::jsonb, $5::bigint[], $6::jsonb)`,
		[]any{e.Namespace, string(e.Kind), e.Key, payload, e.After, embedding}, &id)
	if err != nil {
		return 0, fmt.Errorf("outbox: append %s of %q: %w", e.Kind, e.Key, writeError(err))
	}
	return id, nil
}
