package outbox

import (
	"context"
	"fmt"

	"github.com/jackc/pgx/v5"
)

// Archive moves a live memory to the archive, in place of an older one of its id there, and appends that, in tx. Its links and the namespace standard
// that it is go, as at the peers. The reason stays here; peers note their own. Archiving again what is archived and not live gives the entry that took
// it away, so that an ambiguous commit can be repeated and awaited. Errors: [*InvalidError] for an id that no memory can have, [ErrNotFound] if
// there is none to archive; the transaction goes on after both.
func Archive(ctx context.Context, tx pgx.Tx, id, reason string) (EntryID, error) {
	if err := validID("id", id); err != nil {
		return 0, fmt.Errorf("outbox: archive: %w", err)
	}
	if reason != "" {
		if err := validText("reason", reason); err != nil {
			return 0, fmt.Errorf("outbox: archive %q: %w", id, err)
		}
	}
	var entry *EntryID
	if err := queryRow(ctx, tx, `select memory_archive($1, $2)`, []any{id, reason}, &entry); err != nil {
		return 0, fmt.Errorf("outbox: archive %q: %w", id, writeError(err))
	}
	if entry == nil {
		return 0, fmt.Errorf("outbox: archive %q: %w", id, ErrNotFound)
	}
	return *entry, nil
}

// Restore makes an archived memory live again, with a new updated_at and version, and appends that, in tx. Links and the namespace standard that it was do
// not come back. Errors: [*InvalidError] for an id that no memory can have; [ErrLive], [ErrNotArchived], [ErrTitleTaken]. Repeating a restore gives [ErrLive].
func Restore(ctx context.Context, tx pgx.Tx, id string) (EntryID, error) {
	if err := validID("id", id); err != nil {
		return 0, fmt.Errorf("outbox: restore: %w", err)
	}
	var entry EntryID
	if err := queryRow(ctx, tx, `select memory_restore($1)`, []any{id}, &entry); err != nil {
		return 0, fmt.Errorf("outbox: restore %q: %w", id, writeError(err))
	}
	return entry, nil
}
