package outbox

import (
	"context"
	"fmt"

	"github.com/jackc/pgx/v5"
)

// MaxSources is how many memories one consolidation replaces at most.
const MaxSources = 100

// Consolidate replaces live memories, the sources, by the new memory m, and appends that, in tx. The sources are deleted with their links and the namespace
// standards that they are. m may have the title of a source, but not its id. Peers see the change as one, and the sources' own deletes after it where
// they are of other namespaces. Errors: [*InvalidError], for 0 or more than 100 sources among others; [ErrNotFound] with the source that is not
// live; [ErrLive] if m's id is; [ErrTitleTaken]. After an ambiguous commit a repetition gives [ErrNotFound] if it was committed.
func Consolidate(ctx context.Context, tx pgx.Tx, m Memory, sources []string) (EntryID, error) {
	m = m.withDefaults()
	if err := m.validate(); err != nil {
		return 0, fmt.Errorf("outbox: consolidate into %q: %w", m.ID, err)
	}
	for _, id := range sources {
		if err := validID("sources", id); err != nil {
			return 0, fmt.Errorf("outbox: consolidate into %q: %w", m.ID, err)
		}
	}
	wire, err := m.wire()
	if err != nil {
		return 0, fmt.Errorf("outbox: consolidate into %q: %w", m.ID, err)
	}
	embedding, err := m.Embedding.json()
	if err != nil {
		return 0, fmt.Errorf("outbox: consolidate into %q: %w", m.ID, err)
	}
	var entry EntryID
	if err := queryRow(ctx, tx, `select memory_consolidate($1::jsonb, $2, $3::jsonb)`, []any{wire, sources, embedding}, &entry); err != nil {
		return 0, fmt.Errorf("outbox: consolidate into %q: %w", m.ID, writeError(err))
	}
	return entry, nil
}

// wire is m with the times that were given, as the SQL functions take a memory.
func (m Memory) wire() (string, error) {
	b, err := m.body()
	if err != nil {
		return "", err
	}
	b = b[:len(b)-1]
	if !m.CreatedAt.IsZero() {
		b = fmt.Appendf(b, `,"created_at":%q`, wireTime(m.CreatedAt))
	}
	if !m.UpdatedAt.IsZero() {
		b = fmt.Appendf(b, `,"updated_at":%q`, wireTime(m.UpdatedAt))
	}
	return string(append(b, '}')), nil
}
