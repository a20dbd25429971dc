package refpeer

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"time"
)

// reasonSyncPush is why a memory that a push archived is in the archive.
const reasonSyncPush = "sync_push"

// stamp is the receiver's own time in the form of its rows.
func stamp() string {
	return time.Now().UTC().Format("2006-01-02T15:04:05.999999999+00:00")
}

// archivesList applies the list archives: the live row moves, over an older
// archived one of its id, and what hangs on it goes.
func archivesList() listStep[string] {
	return listStep[string]{
		list:     listArchives,
		items:    func(m *message) []string { return m.archives },
		describe: func(id *string) logItem { return logItem{op: OpArchive, id: *id} },
		apply: func(ctx context.Context, s *store, _ *push, id *string, item *logItem) error {
			if !validID(*id) {
				item.skip("invalid")
				return nil
			}
			done, err := s.stmts.archiveMemory.ExecContext(ctx, stamp(), reasonSyncPush, *id)
			if err != nil {
				return fmt.Errorf("archive memory: %w", err)
			}
			if err := item.settle(done, ResultArchived, ResultNoop); err != nil || item.result == ResultNoop {
				return err
			}
			if _, err := s.stmts.deleteMemory.ExecContext(ctx, *id); err != nil {
				return fmt.Errorf("archive memory: %w", err)
			}
			return nil
		},
	}
}

// restoresList applies the list restores: the archived row is live again, with
// the receiver's time as updated_at. Nothing that hung on it comes back.
func restoresList() listStep[string] {
	return listStep[string]{
		list:     listRestores,
		items:    func(m *message) []string { return m.restores },
		describe: func(id *string) logItem { return logItem{op: OpRestore, id: *id} },
		apply: func(ctx context.Context, s *store, _ *push, id *string, item *logItem) error {
			return s.restore(ctx, *id, item)
		},
	}
}

func (s *store) restore(ctx context.Context, id string, item *logItem) error {
	if !validID(id) {
		item.skip("invalid")
		return nil
	}
	var raw string
	err := s.stmts.readArchived.QueryRowContext(ctx, id).Scan(&raw)
	if errors.Is(err, sql.ErrNoRows) {
		item.result = ResultNoop
		return nil
	}
	if err != nil {
		return fmt.Errorf("read archived memory: %w", err)
	}
	m, err := parseMemory(raw)
	if err != nil {
		return fmt.Errorf("archived memory: %w", err)
	}
	m.updatedAt = stamp()
	// A live row with the id, or with the title, keeps its place.
	done, err := s.stmts.insertMemory.ExecContext(ctx, m.id, m.namespace, m.title, m.updatedAt, m.appendJSON(nil))
	if err != nil {
		return fmt.Errorf("restore memory: %w", err)
	}
	if err := item.settle(done, ResultRestored, ResultSkipped); err != nil {
		return err
	}
	if item.result == ResultSkipped {
		item.reason = "a live memory has the id or the title"
		return nil
	}
	item.namespace, item.updatedAt = m.namespace, m.updatedAt
	if _, err := s.stmts.unarchive.ExecContext(ctx, id); err != nil {
		return fmt.Errorf("restore memory: %w", err)
	}
	return nil
}
