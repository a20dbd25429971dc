package outbox

import (
	"context"
	"fmt"
	"time"

	"github.com/jackc/pgx/v5"
)

// NamespaceStandard says which memory is the standard of a namespace.
type NamespaceStandard struct {
	Namespace       string
	StandardID      string    // a live memory, of any namespace
	ParentNamespace string    // another namespace, or empty: receivers then guess one
	UpdatedAt       time.Time // default: now. Receivers do not compare it
}

// NamespaceSet makes a live memory the standard of a namespace, in place of another, and appends that, in tx. Peers get it after the memory. Errors:
// [*InvalidError]; [ErrNotFound] if the memory is not live.
func NamespaceSet(ctx context.Context, tx pgx.Tx, s NamespaceStandard) (EntryID, error) {
	for field, text := range map[string]string{"standard_id": s.StandardID, "namespace": s.Namespace, "parent_namespace": s.ParentNamespace} {
		if err := validUTF8(field, text); err != nil {
			return 0, fmt.Errorf("outbox: set standard of %q: %w", s.Namespace, err)
		}
	}
	wire, err := marshal(struct {
		Namespace       string `json:"namespace"`
		StandardID      string `json:"standard_id"`
		ParentNamespace string `json:"parent_namespace,omitzero"`
		UpdatedAt       string `json:"updated_at,omitzero"`
	}{s.Namespace, s.StandardID, s.ParentNamespace, wireTime(s.UpdatedAt)})
	if err != nil {
		return 0, fmt.Errorf("outbox: set standard of %q: encode: %w", s.Namespace, err)
	}
	var entry EntryID
	if err := queryRow(ctx, tx, `select namespace_set($1::jsonb)`, []any{string(wire)}, &entry); err != nil {
		return 0, fmt.Errorf("outbox: set standard of %q: %w", s.Namespace, writeError(err))
	}
	return entry, nil
}

// NamespaceClear takes the standards of namespaces away and appends that, in tx: one entry each, in their order. Clearing a namespace that has no standard
// is an entry all the same. Errors: [*InvalidError].
func NamespaceClear(ctx context.Context, tx pgx.Tx, namespaces ...string) ([]EntryID, error) {
	for _, ns := range namespaces {
		if err := validNamespace(ns); err != nil {
			return nil, fmt.Errorf("outbox: clear standard of %q: %w", ns, err)
		}
	}
	var entries []EntryID
	err := queryRow(ctx, tx, `select coalesce(array_agg(namespace_clear(n)), '{}') from unnest($1::text[]) n`, []any{namespaces}, &entries)
	if err != nil {
		return nil, fmt.Errorf("outbox: clear standards: %w", writeError(err))
	}
	return entries, nil
}
