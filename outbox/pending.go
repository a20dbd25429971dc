package outbox

import (
	"context"
	"encoding/json"
	"fmt"
	"time"
	"unicode/utf8"

	"github.com/jackc/pgx/v5"
)

// PendingAction is an action that waits for a decision, in the shape of the federation protocol.
type PendingAction struct {
	ID          string          // 1..128 of A-Z a-z 0-9 _ : . @ -, no ".."
	ActionType  string          // 1..128 bytes. Two are known here: store (Payload is a memory) and delete (of MemoryID)
	MemoryID    string          // or empty
	Namespace   string          // cannot change once the action is parked
	Payload     json.RawMessage // any JSON
	RequestedBy string          // an agent's id
	RequestedAt time.Time       // default: now, or what it was
	Approvals   []Approval
}

// Approval is one agent's consent to a pending action that needs several.
type Approval struct {
	AgentID    string
	ApprovedAt time.Time
}

// Decision approves or rejects a pending action.
type Decision struct {
	ID       string // the pending action's
	Approved bool   // false: rejected
	Decider  string // an agent's id
}

// Decided is the result of a decision.
type Decided struct {
	Entry EntryID
	// Produced is the entry of what approving did to a memory here, which peers get after the decision, or 0 if it did nothing. For a delete of what was
	// deleted before it is the entry that took the memory away.
	Produced EntryID
}

// Pending parks an action, or changes one that is not decided yet, and appends it, in tx. Repeating it appends it again. Errors: [*InvalidError]; [ErrDecided].
func Pending(ctx context.Context, tx pgx.Tx, p PendingAction) (EntryID, error) {
	wire, err := p.wire()
	if err != nil {
		return 0, fmt.Errorf("outbox: pending action %q: %w", p.ID, err)
	}
	var entry EntryID
	if err := queryRow(ctx, tx, `select pending_put($1::jsonb)`, []any{wire}, &entry); err != nil {
		return 0, fmt.Errorf("outbox: pending action %q: %w", p.ID, writeError(err))
	}
	return entry, nil
}

// Decide decides a pending action and appends that, in tx. Peers that get an approval do the action, so approving a store whose payload is a memory, or
// a delete with a memory's id, does it here too, as [Store] and [Delete] would; of other actions only the decision is noted, and what they mean is the
// caller's to do. The same decision again appends again and does nothing twice. Errors: [*InvalidError]; [ErrNotFound]; [ErrDecided] if it was
// decided otherwise or by another; those of [Store].
func Decide(ctx context.Context, tx pgx.Tx, d Decision) (Decided, error) {
	for field, text := range map[string]string{"id": d.ID, "decider": d.Decider} {
		if err := validUTF8(field, text); err != nil {
			return Decided{}, fmt.Errorf("outbox: decide %q: %w", d.ID, err)
		}
	}
	var entry EntryID
	var produced *EntryID
	err := queryRow(ctx, tx, `select entry, produced from pending_decide($1, $2, $3)`, []any{d.ID, d.Approved, d.Decider}, &entry, &produced)
	if err != nil {
		return Decided{}, fmt.Errorf("outbox: decide %q: %w", d.ID, writeError(err))
	}
	decided := Decided{Entry: entry}
	if produced != nil {
		decided.Produced = *produced
	}
	return decided, nil
}

// wire is the action as pending_put takes it; the rules are checked there.
func (p PendingAction) wire() (string, error) {
	for field, text := range map[string]string{
		"id": p.ID, "action_type": p.ActionType, "memory_id": p.MemoryID, "namespace": p.Namespace, "requested_by": p.RequestedBy,
	} {
		if err := validUTF8(field, text); err != nil {
			return "", err
		}
	}
	if !json.Valid(p.Payload) || !utf8.Valid(p.Payload) {
		return "", &InvalidError{"payload", "must be JSON"}
	}
	type approval struct {
		AgentID    string `json:"agent_id"`
		ApprovedAt string `json:"approved_at"`
	}
	approvals := make([]approval, len(p.Approvals))
	for i, a := range p.Approvals {
		approvals[i] = approval{a.AgentID, wireTime(a.ApprovedAt)}
	}
	b, err := marshal(struct {
		ID          string          `json:"id"`
		ActionType  string          `json:"action_type"`
		MemoryID    string          `json:"memory_id,omitzero"`
		Namespace   string          `json:"namespace"`
		Payload     json.RawMessage `json:"payload"`
		RequestedBy string          `json:"requested_by"`
		RequestedAt string          `json:"requested_at,omitzero"`
		Approvals   []approval      `json:"approvals"`
	}{p.ID, p.ActionType, p.MemoryID, p.Namespace, p.Payload, p.RequestedBy, wireTime(p.RequestedAt), approvals})
	if err != nil {
		return "", fmt.Errorf("encode pending action: %w", err)
	}
	return string(b), nil
}
