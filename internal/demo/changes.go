package demo

import (
	"context"
	"encoding/json"
	"fmt"
	"time"

	"github.com/jackc/pgx/v5"

	"quorumbox/outbox"
)

// verdictTimeout is how long the demo waits for one verdict: far longer than the ack timeout.
const verdictTimeout = 30 * time.Second

// change updates, deletes and renames one memory each while the peer is away: it has to learn of these too, not only of new rows.
func (p *play) change(ctx context.Context, lines int) error {
	if err := p.imports.awaitLines(ctx, lines); err != nil {
		return err
	}
	p.changes = outbox.Verdict{NotMet: map[outbox.Reason]int{}}
	memories, err := p.someMemories(ctx, len(changes()))
	if err != nil {
		return err
	}
	if len(memories) < len(changes()) {
		p.show.event("changes", "left out: they need %d memories without an expiry", len(changes()))
		return nil
	}
	for i, c := range changes() {
		m := memories[i]
		var entry outbox.EntryID
		err := pgx.BeginFunc(ctx, p.pool, func(tx pgx.Tx) (err error) {
			entry, err = c.do(ctx, tx, m)
			return err
		})
		if err != nil {
			return fmt.Errorf("%s memory %s: %w", c.name, m.ID, err)
		}
		if err := p.awaitChange(ctx, c, m, entry); err != nil {
			return err
		}
	}
	return nil
}

func (p *play) awaitChange(ctx context.Context, c change, m outbox.Memory, entry outbox.EntryID) error {
	ctx, cancel := context.WithTimeoutCause(ctx, verdictTimeout, fmt.Errorf("no verdict for %s: %w", verdictTimeout, context.DeadlineExceeded))
	defer cancel()
	begin := time.Now()
	v, err := outbox.Await(ctx, p.pool, entry)
	if err != nil {
		return err
	}
	p.changes.Met += v.Met
	result := "quorum met"
	for reason, n := range v.NotMet {
		p.changes.NotMet[reason] += n
		result = "quorum not met: " + string(reason)
	}
	p.show.event(c.name, "%s, %s: %s after %s", m.ID, c.what, result, milliseconds(time.Since(begin)))
	return nil
}

// change is one change made by hand.
type change struct {
	name string
	what string
	do   func(context.Context, pgx.Tx, outbox.Memory) (outbox.EntryID, error)
}

func changes() []change {
	store := func(ctx context.Context, tx pgx.Tx, m outbox.Memory) (outbox.EntryID, error) {
		m.UpdatedAt = time.Time{} // now
		stored, err := outbox.Store(ctx, tx, m)
		return stored.Entry, err
	}
	return []change{
		{"update", "its content changed", func(ctx context.Context, tx pgx.Tx, m outbox.Memory) (outbox.EntryID, error) {
			m.Content = "Updated by the demo. " + cut(m.Content, outbox.MaxContentBytes/4)
			return store(ctx, tx, m)
		}},
		{"delete", "gone from the store", func(ctx context.Context, tx pgx.Tx, m outbox.Memory) (outbox.EntryID, error) {
			return outbox.Delete(ctx, tx, m.ID)
		}},
		{"rename", "delete and store at the peers", func(ctx context.Context, tx pgx.Tx, m outbox.Memory) (outbox.EntryID, error) {
			m.Title = "Renamed by the demo: " + cut(m.Title, outbox.MaxTitleChars/2)
			return store(ctx, tx, m)
		}},
	}
}

// cut is at most the first n characters of s.
func cut(s string, n int) string {
	runes := []rune(s)
	return string(runes[:min(len(runes), n)])
}

// someMemories are memories of the store to change. One with an expiry would not do: a peer drops the expiry of a long-lived memory with its
// first update (receivers of version 0.7.x), and the comparison would rightly say so.
func (p *play) someMemories(ctx context.Context, n int) ([]outbox.Memory, error) {
	rows, err := p.pool.Query(ctx, memoriesSQL+` where expires_at is null order by created_at, id limit $1`, n)
	if err != nil {
		return nil, fmt.Errorf("choose memories: %w", err)
	}
	texts, err := pgx.CollectRows(rows, pgx.RowTo[string])
	if err != nil {
		return nil, fmt.Errorf("choose memories: %w", err)
	}
	memories := make([]outbox.Memory, len(texts))
	for i, text := range texts {
		if err := json.Unmarshal([]byte(text), &memories[i]); err != nil {
			return nil, fmt.Errorf("choose memories: %w", err)
		}
	}
	return memories, nil
}
