package outbox

import (
	"context"
	"fmt"
	"time"

	"github.com/jackc/pgx/v5"
)

// MemoryLink is a link from one memory to another, in the shape of the federation protocol.
type MemoryLink struct {
	SourceID   string
	TargetID   string    // another memory
	Relation   string    // related_to, supersedes, contradicts, derived_from, reflects_on or derives_from
	CreatedAt  time.Time // default: now
	Signature  []byte    // 64 bytes of Ed25519, or nil
	ObservedBy string    // the agent that signed; required beside a signature
	ValidFrom  string    // RFC 3339 or empty; sent as it is written, because the signature covers the text
	ValidUntil string    // likewise
}

// Link links two live memories and appends that, in tx. A link of the same ends and relation stays as it is and is appended again, so that an ambiguous
// commit can be repeated. Peers get the link after its two memories. Errors: [*InvalidError]; [ErrNotFound] with the end that is not live.
func Link(ctx context.Context, tx pgx.Tx, l MemoryLink) (EntryID, error) {
	wire, err := l.wire()
	if err != nil {
		return 0, fmt.Errorf("outbox: link %q to %q: %w", l.SourceID, l.TargetID, err)
	}
	var entry EntryID
	if err := queryRow(ctx, tx, `select memory_link($1::jsonb)`, []any{wire}, &entry); err != nil {
		return 0, fmt.Errorf("outbox: link %q to %q: %w", l.SourceID, l.TargetID, writeError(err))
	}
	return entry, nil
}

// wire is the link as memory_link takes it; the rules are checked there.
func (l MemoryLink) wire() (string, error) {
	for field, text := range map[string]string{
		"source_id": l.SourceID, "target_id": l.TargetID, "relation": l.Relation, "observed_by": l.ObservedBy,
		"valid_from": l.ValidFrom, "valid_until": l.ValidUntil,
	} {
		if err := validUTF8(field, text); err != nil {
			return "", err
		}
	}
	signature := make([]int, len(l.Signature)) // a []byte would be written as base64
	for i, b := range l.Signature {
		signature[i] = int(b)
	}
	b, err := marshal(struct {
		SourceID   string `json:"source_id"`
		TargetID   string `json:"target_id"`
		Relation   string `json:"relation"`
		CreatedAt  string `json:"created_at,omitzero"`
		Signature  []int  `json:"signature,omitempty"`
		ObservedBy string `json:"observed_by,omitzero"`
		ValidFrom  string `json:"valid_from,omitzero"`
		ValidUntil string `json:"valid_until,omitzero"`
	}{l.SourceID, l.TargetID, l.Relation, wireTime(l.CreatedAt), signature, l.ObservedBy, l.ValidFrom, l.ValidUntil})
	if err != nil {
		return "", fmt.Errorf("encode link: %w", err)
	}
	return string(b), nil
}
