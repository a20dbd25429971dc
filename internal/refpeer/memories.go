package refpeer

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
)

// memoriesStep applies the list memories: every valid memory is inserted or
// merged (wire rules of insert_if_newer), the others are skipped.
func memoriesStep(limit limits) step {
	return func(ctx context.Context, s *store, p *push, out *outcome) error {
		for i := range p.msg.memories {
			m := &p.msg.memories[i]
			item := logItem{op: OpStore, id: m.id, namespace: m.namespace, updatedAt: m.updatedAt}
			if p.refused(s, out, listMemories, item) {
				continue
			}
			if !m.valid() {
				item.skip("invalid")
				out.add(listMemories, item.result)
				s.note(out, item)
				continue
			}
			refusal, err := s.chargeMemory(ctx, p, m, limit)
			if err != nil {
				return err
			}
			if refusal != nil {
				refusal.applied = out.done[listMemories]
				refusal.refused = len(p.msg.memories) - i
				out.quota = refusal
				return nil
			}
			result, err := s.storeMemory(ctx, m, p.msg.sender)
			if err != nil {
				return err
			}
			switch {
			case result == ResultSkipped:
				item.reason = "the id has another title"
			case p.budget != nil:
				p.budget.left.Add(-1)
			}
			item.result = result
			out.add(listMemories, result)
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
	if merged.content != stored.content {
		if err := s.forgetEmbedding(ctx, stored.id); err != nil {
			return "", err
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

// deletionsList applies the list deletions: the row goes, with what hangs on
// it, and no tombstone stays, so that a later store brings it back.
func deletionsList() listStep[string] {
	return listStep[string]{
		list:     listDeletions,
		items:    func(m *message) []string { return m.deletions },
		describe: func(id *string) logItem { return logItem{op: OpDelete, id: *id} },
		apply: func(ctx context.Context, s *store, _ *push, id *string, item *logItem) error {
			if !validID(*id) {
				item.skip("invalid")
				return nil
			}
			done, err := s.stmts.deleteMemory.ExecContext(ctx, *id)
			if err != nil {
				return fmt.Errorf("delete memory: %w", err)
			}
			return item.settle(done, ResultDeleted, ResultNoop)
		},
	}
}
