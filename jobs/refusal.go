package jobs

import (
	"context"
	"fmt"
	"log/slog"

	"github.com/jackc/pgx/v5"

	"quorumbox/internal/peer"
)

// refusal is an entry that a peer refuses for good.
type refusal struct {
	Entry int64
	Lane  int16
	Class peer.Class
}

// refusedOf returns the entries of batches that the peer refuses for good: they are not pushed with the others.
func (s *store) refusedOf(ctx context.Context, p string, batches []batch) (map[int64]bool, error) {
	var ids []int64
	for _, b := range batches {
		ids = append(ids, b.IDs...)
	}
	if len(ids) == 0 {
		return nil, nil
	}
	rows, err := s.pool.Query(ctx, `select entry from refusals where peer = $1 and entry = any ($2)`, p, ids)
	if err != nil {
		return nil, fmt.Errorf("read refusals of %s: %w", p, err)
	}
	list, err := pgx.CollectRows(rows, pgx.RowTo[int64])
	if err != nil {
		return nil, fmt.Errorf("read refusals of %s: %w", p, err)
	}
	refused := make(map[int64]bool, len(list))
	for _, id := range list {
		refused[id] = true
	}
	return refused, nil
}

// recordRefusals writes down, in the transaction that moves the peer's cursor past them, what a peer refuses for good.
func (c Config) recordRefusals(ctx context.Context, tx pgx.Tx, p string, list []refusal) error {
	if len(list) == 0 {
		return nil
	}
	entries, lanes, classes := make([]int64, len(list)), make([]int16, len(list)), make([]string, len(list))
	for i, r := range list {
		entries[i], lanes[i], classes[i] = r.Entry, r.Lane, string(r.Class)
	}
	_, err := tx.Exec(ctx, `
		insert into refusals (peer, entry, lane, class, next_at)
		select $1, w.entry, w.lane, w.class, clock_timestamp() + $5::interval
		from unnest($2::bigint[], $3::smallint[], $4::text[]) w (entry, lane, class)
		on conflict (peer, entry) do update set class = excluded.class, attempts = refusals.attempts + 1, last_at = now(), next_at = excluded.next_at`,
		p, entries, lanes, classes, c.Redeliver.Delay(1, 0))
	if err != nil {
		return fmt.Errorf("record refusals of %s: %w", p, err)
	}
	return nil
}

// tellRefusals logs and counts what was recorded: a line for each class, because a peer can refuse thousands for one reason.
func (c Config) tellRefusals(ctx context.Context, p string, list []refusal) {
	byClass := map[peer.Class][]refusal{}
	for _, r := range list {
		byClass[r.Class] = append(byClass[r.Class], r)
		c.Metrics.Refusal(p, string(r.Class))
	}
	for class, of := range byClass {
		c.Logger.LogAttrs(ctx, slog.LevelError, "peer refuses entries for good", slog.String("peer", p), slog.String("class", string(class)),
			slog.String("hint", class.Hint()), slog.Int("entries", len(of)), slog.Int64("first_entry", of[0].Entry))
	}
}
