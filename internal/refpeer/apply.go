package refpeer

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"time"
)

// push is one authenticated request, ready to be applied.
type push struct {
	msg            *message
	idempotencyKey string
	peerID         string
	nonce          string
	consumed       consumed
	steps          []step

	// refuse is how many items, from the first one, are left alone and
	// counted as refusedAs: a fault.
	refuse    int
	refusedAs refusal
}

// refusal is how a deliberately refused item is reported.
type refusal int

const (
	refusedSkipped refusal = iota + 1
	refusedUnsupported
)

// outcome is what a push did.
type outcome struct {
	applied     int
	deleted     int
	noop        int
	skipped     int
	unsupported int
	refused     int // by a fault, counted in skipped or unsupported too
	results     map[Result]int
	quota       *quotaRefusal // not nil: the push ended at this memory
}

// step applies one list of a push.
type step func(ctx context.Context, s *store, p *push, out *outcome) error

// steps is the order in which the lists of a push are applied. A quota refusal
// of a memory ends the push. The lists archives, restores, links, pendings,
// pending_decisions, namespace_meta and namespace_meta_clears come, in this
// order, after deletions; this receiver reads them and leaves them alone.
func steps(quotaPerDay int) []step {
	return []step{memoriesStep(quotaPerDay), applyDeletions}
}

// applyLists applies a push inside the running transaction and logs it.
func (s *store) applyLists(ctx context.Context, p *push) (outcome, error) {
	out := outcome{results: make(map[Result]int, 2)}
	s.items = s.items[:0]
	for _, apply := range p.steps {
		if err := apply(ctx, s, p, &out); err != nil {
			return outcome{}, err
		}
		if out.quota != nil {
			break
		}
	}
	return out, s.writeLog(ctx, p)
}

// note adds one item to the log row of the running push and counts it.
func (s *store) note(out *outcome, item logItem) {
	s.items = appendLogItem(s.items, item)
	s.lastSeq++
	out.results[item.result]++
}

// writeLog writes the log row of the running push, if it has items.
func (s *store) writeLog(ctx context.Context, p *push) error {
	if len(s.items) == 0 {
		return nil
	}
	s.lastPush++
	_, err := s.stmts.insertLog.ExecContext(ctx,
		s.lastSeq, s.lastPush, time.Now().UnixNano(), p.idempotencyKey, p.peerID, p.nonce, s.items)
	if err != nil {
		return fmt.Errorf("write log: %w", err)
	}
	return nil
}

// refused reports an item that a fault leaves alone.
func (p *push) refused(s *store, out *outcome, item logItem) bool {
	if out.refused == p.refuse {
		return false
	}
	out.refused++
	if p.refusedAs == refusedUnsupported {
		out.unsupported++
	} else {
		out.skipped++
	}
	item.result = ResultSkipped
	s.note(out, item)
	return true
}

// memoriesStep applies the list memories: every valid memory is inserted or
// merged (wire rules of insert_if_newer), the others are skipped.
func memoriesStep(quotaPerDay int) step {
	return func(ctx context.Context, s *store, p *push, out *outcome) error {
		for i := range p.msg.memories {
			m := &p.msg.memories[i]
			item := logItem{op: OpStore, id: m.id, namespace: m.namespace, updatedAt: m.updatedAt}
			if p.refused(s, out, item) {
				continue
			}
			if !m.valid() {
				out.skipped++
				item.result = ResultSkipped
				s.note(out, item)
				continue
			}
			if quotaPerDay > 0 {
				refusal, err := s.chargeQuota(ctx, m.author(p.msg.sender), m.namespace, quotaPerDay)
				if err != nil {
					return err
				}
				if refusal != nil {
					refusal.applied = out.applied
					refusal.refused = len(p.msg.memories) - i
					out.quota = refusal
					return nil
				}
			}
			result, err := s.storeMemory(ctx, m, p.msg.sender)
			if err != nil {
				return err
			}
			if result == ResultSkipped {
				out.skipped++
			} else {
				out.applied++
			}
			item.result = result
			s.note(out, item)
		}
		return nil
	}
}

// storeMemory inserts m or merges it into the row with its title.
func (s *store) storeMemory(ctx context.Context, m *memory, sender string) (Result, error) {
	if m.memoryKind == kindReflection {
		if err := m.stampOrigin(sender); err != nil {
			return "", err
		}
	}
	done, err := s.stmts.insertMemory.ExecContext(ctx, m.id, m.namespace, m.title, m.updatedAt, m.raw)
	if err != nil {
		return "", fmt.Errorf("insert memory: %w", err)
	}
	inserted, err := done.RowsAffected()
	if err != nil {
		return "", fmt.Errorf("insert memory: %w", err)
	}
	if inserted == 1 {
		return ResultInserted, nil
	}
	var row int64
	var raw string
	err = s.stmts.byTitle.QueryRowContext(ctx, m.namespace, m.title).Scan(&row, &raw)
	if errors.Is(err, sql.ErrNoRows) {
		// The id exists under another title: a rename never arrives.
		return ResultSkipped, nil
	}
	if err != nil {
		return "", fmt.Errorf("read memory: %w", err)
	}
	return s.mergeInto(ctx, row, raw, m)
}

// mergeInto merges m into the stored row. A row that stays the same is not
// written.
func (s *store) mergeInto(ctx context.Context, row int64, raw string, m *memory) (Result, error) {
	if raw == m.raw && (m.tier != tierLong || !m.expiresAt.set) {
		return ResultLost, nil
	}
	stored, err := parseMemory(raw)
	if err != nil {
		return "", fmt.Errorf("stored memory: %w", err)
	}
	merged, err := merge(stored, *m)
	if err != nil {
		return "", fmt.Errorf("merge memory: %w", err)
	}
	payload := string(merged.appendJSON(nil))
	if payload != raw {
		if _, err := s.stmts.updateMemory.ExecContext(ctx, merged.updatedAt, payload, row); err != nil {
			return "", fmt.Errorf("update memory: %w", err)
		}
	}
	switch {
	case stored.id != m.id:
		return ResultMerged, nil
	case m.winsOver(&stored):
		return ResultUpdated, nil
	}
	return ResultLost, nil
}

// stampOrigin notes on a reflection who sent it, as the reference does.
func (m *memory) stampOrigin(sender string) error {
	metadata, err := withMetadata(m.metadata, "reflection_origin", sender)
	if err != nil {
		return fmt.Errorf("stamp reflection: %w", err)
	}
	m.metadata = metadata
	m.raw = string(m.appendJSON(nil))
	return nil
}

// author is who a memory is charged to.
func (m *memory) author(sender string) string {
	if m.metadataAgent.set {
		return m.metadataAgent.value
	}
	return sender
}

// applyDeletions applies the list deletions: the row goes, and no tombstone
// stays, so that a later store brings it back.
func applyDeletions(ctx context.Context, s *store, p *push, out *outcome) error {
	for _, id := range p.msg.deletions {
		item := logItem{op: OpDelete, id: id}
		if p.refused(s, out, item) {
			continue
		}
		if !validID(id) {
			out.skipped++
			item.result = ResultSkipped
			s.note(out, item)
			continue
		}
		done, err := s.stmts.deleteMemory.ExecContext(ctx, id)
		if err != nil {
			return fmt.Errorf("delete memory: %w", err)
		}
		deleted, err := done.RowsAffected()
		if err != nil {
			return fmt.Errorf("delete memory: %w", err)
		}
		item.result = ResultNoop
		if deleted == 1 {
			item.result = ResultDeleted
			out.deleted++
		} else {
			out.noop++
		}
		s.note(out, item)
	}
	return nil
}
