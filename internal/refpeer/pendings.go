package refpeer

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
)

// The states of a parked action that this receiver knows of. Others are kept
// as they come.
const (
	statusPending  = "pending"
	statusApproved = "approved"
	statusRejected = "rejected"
)

// pending is one element of the list pendings: an action that waits for a
// decision.
type pending struct {
	id, actionType, namespace        string
	memoryID                         text
	payload                          string // raw
	requestedBy, requestedAt, status string
	decidedBy, decidedAt             text
	approvals                        string // raw
}

func (s *scanner) pending() pending {
	p := pending{approvals: "[]"}
	s.element("pending", []string{
		"id", "action_type", "namespace", "payload", "requested_by", "requested_at", "status",
	}, func(key string) bool {
		switch key {
		case "id":
			p.id = s.str()
		case "action_type":
			p.actionType = s.str()
		case "memory_id":
			p.memoryID = s.text0()
		case "namespace":
			p.namespace = s.str()
		case "payload":
			p.payload, _ = s.raw()
		case "requested_by":
			p.requestedBy = s.str()
		case "requested_at":
			p.requestedAt = s.str()
		case "status":
			p.status = s.str()
		case "decided_by":
			p.decidedBy = s.text0()
		case "decided_at":
			p.decidedAt = s.text0()
		case "approvals":
			p.approvals = s.approvals()
		default:
			return false
		}
		return true
	})
	return p
}

func (s *scanner) approvals() string {
	s.space()
	start := s.pos
	s.array(func() {
		s.element("approval", []string{"agent_id", "approved_at"}, func(key string) bool {
			switch key {
			case "agent_id", "approved_at":
				s.str()
				return true
			}
			return false
		})
	})
	return s.text[start:s.pos]
}

// decision is one element of the list pending_decisions.
type decision struct {
	id       string
	approved bool
	decider  string
}

func (s *scanner) decision() decision {
	var d decision
	s.element("pending decision", []string{"id", "approved", "decider"}, func(key string) bool {
		switch key {
		case "id":
			d.id = s.str()
		case "approved":
			d.approved = s.boolean(key)
		case "decider":
			d.decider = s.str()
		default:
			return false
		}
		return true
	})
	return d
}

// pendingsList applies the list pendings: every column is overwritten, so that
// an old row undoes a decision.
func pendingsList() listStep[pending] {
	return listStep[pending]{
		list:     listPendings,
		items:    func(m *message) []pending { return m.pendings },
		describe: func(a *pending) logItem { return logItem{op: OpPending, id: a.id, namespace: a.namespace} },
		apply: func(ctx context.Context, s *store, _ *push, a *pending, item *logItem) error {
			if !validID(a.id) || !validNamespace(a.namespace) {
				item.skip("invalid")
				return nil
			}
			_, err := s.stmts.upsertPending.ExecContext(ctx, a.id, a.actionType, a.memoryID.orNull(), a.namespace, a.payload,
				a.requestedBy, a.requestedAt, a.status, a.decidedBy.orNull(), a.decidedAt.orNull(), a.approvals)
			if err != nil {
				return fmt.Errorf("store pending action: %w", err)
			}
			item.result = ResultParked
			return nil
		},
	}
}

// decisionsList applies the list pending_decisions. Only what is pending is
// decided; an approved action is done here, too.
func decisionsList() listStep[decision] {
	return listStep[decision]{
		list:     listDecisions,
		items:    func(m *message) []decision { return m.decisions },
		describe: func(d *decision) logItem { return logItem{op: OpDecision, id: d.id} },
		apply: func(ctx context.Context, s *store, p *push, d *decision, item *logItem) error {
			return s.decide(ctx, p, d, item)
		},
	}
}

func (s *store) decide(ctx context.Context, p *push, d *decision, item *logItem) error {
	var status, actionType, payload string
	var memoryID sql.NullString
	err := s.stmts.readPending.QueryRowContext(ctx, d.id).Scan(&status, &actionType, &memoryID, &payload)
	if errors.Is(err, sql.ErrNoRows) {
		item.result, item.reason = ResultNoop, "no such action"
		return nil
	}
	if err != nil {
		return fmt.Errorf("read pending action: %w", err)
	}
	if status != statusPending {
		item.result, item.reason = ResultNoop, "decided already"
		return nil
	}
	verdict := statusRejected
	if d.approved {
		verdict = statusApproved
	}
	if _, err := s.stmts.decide.ExecContext(ctx, verdict, d.decider, stamp(), d.id); err != nil {
		return fmt.Errorf("decide pending action: %w", err)
	}
	item.result, item.reason = ResultDecided, verdict
	if !d.approved {
		return nil
	}
	return s.execute(ctx, p, actionType, memoryID, payload, item)
}

// execute does an approved action: a store of the memory in its payload, or
// the deletion of its memory. Anything else, and what is no valid memory,
// changes the status alone. The effect is named in the item's target.
func (s *store) execute(ctx context.Context, p *push, actionType string, memoryID sql.NullString, payload string, item *logItem) error {
	switch actionType {
	case "store":
		m, err := parseMemory(payload)
		if err != nil || !m.valid() {
			item.reason = "approved, but the payload is no memory"
			return nil //nolint:nilerr // an action that cannot be done is decided all the same
		}
		result, err := s.storeMemory(ctx, &m, p.msg.sender)
		if err != nil {
			return err
		}
		item.target, item.namespace, item.updatedAt = m.id, m.namespace, m.updatedAt
		item.reason = "approved, store " + string(result)
	case "delete":
		if !memoryID.Valid {
			item.reason = "approved, but there is no memory to delete"
			return nil
		}
		done, err := s.stmts.deleteMemory.ExecContext(ctx, memoryID.String)
		if err != nil {
			return fmt.Errorf("delete memory: %w", err)
		}
		effect := logItem{}
		if err := effect.settle(done, ResultDeleted, ResultNoop); err != nil {
			return err
		}
		item.target, item.reason = memoryID.String, "approved, delete "+string(effect.result)
	}
	return nil
}
