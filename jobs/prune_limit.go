package jobs

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"time"

	"github.com/jackc/pgx/v5"

	"quorumbox/outbox"
)

// backlog is what the log is kept for one peer for: up to the lanes' newest batches, from what the peer misses or may be pushed again.
type backlog struct {
	Peer    string
	State   string
	Entries int64
	Age     time.Duration // since the oldest of it was dispatched
}

// overdueBacklogs returns the peers, or the one that is asked for, whose backlog is past a limit.
func (p *Pruner) overdueBacklogs(ctx context.Context, db querier, only string) ([]backlog, error) {
	rows, err := db.Query(ctx, `
		select p.id, p.state, b.entries::bigint, coalesce(b.age, interval '0')
		from peers p
		cross join lateral (
			select sum(coalesce(head.position, 0) - coalesce(has.position, 0)) as entries, max(clock_timestamp() - next.dispatched_at) as age
			from (
				select h.lane, min(h.number) as number
				from (
					select l.lane, l.cursor as number from lagging l where l.peer = p.id
					union all
					select d.lane, d.from_number from doubts d where d.peer = p.id
				) h
				group by h.lane
			) h
			left join lateral (select b.position from batches b where b.lane = h.lane order by b.number desc limit 1) head on true
			left join lateral (
				select b.position from batches b where b.lane = h.lane and b.number <= h.number order by b.number desc limit 1
			) has on true
			left join lateral (
				select b.dispatched_at from batches b where b.lane = h.lane and b.number > h.number order by b.number limit 1
			) next on true
		) b
		where ($3 = '' or p.id = $3) and p.state <> 'lost' and (b.entries > $1 or b.age > $2::interval)
		order by p.id`, p.cfg.BacklogEntries, p.cfg.BacklogAge, only)
	if err != nil {
		return nil, fmt.Errorf("measure backlogs: %w", err)
	}
	list, err := pgx.CollectRows(rows, pgx.RowToStructByPos[backlog])
	if err != nil {
		return nil, fmt.Errorf("measure backlogs: %w", err)
	}
	return list, nil
}

// enforceLimits lets the log go that is kept for peers whose backlog has passed a limit. One that cannot be helped does not keep the others from it.
func (p *Pruner) enforceLimits(ctx context.Context) error {
	list, err := p.overdueBacklogs(ctx, p.pool, "")
	if err != nil {
		return err
	}
	past := map[string]bool{}
	var problems []error
	for _, b := range list {
		past[b.Peer] = true
		var (
			found backlog
			hint  string
		)
		err := p.alone(ctx, func(tx pgx.Tx) (err error) {
			found, hint, err = p.enforceLimit(ctx, tx, b.Peer)
			return err
		})
		if err != nil {
			problems = append(problems, fmt.Errorf("limit of peer %s: %w", b.Peer, err))
		} else if hint != "" {
			p.tellOverdue(ctx, found, hint)
		}
	}
	for peer := range p.overdue {
		if !past[peer] {
			delete(p.overdue, peer)
		}
	}
	return errors.Join(problems...)
}

// enforceLimit looks again with the peer's rows locked: the lanes and their rows first, in the order in which fan-outs and retries lock them, then the row that says
// whether the peer is configured. It returns what it found and, unless that is below the limits, what follows from it.
func (p *Pruner) enforceLimit(ctx context.Context, tx pgx.Tx, peer string) (found backlog, hint string, err error) {
	if err := outbox.LockLanes(ctx, tx, allLanes()); err != nil {
		return found, "", err
	}
	if _, err := tx.Exec(ctx, `select from lagging where peer = $1 order by lane for update`, peer); err != nil {
		return found, "", err
	}
	if _, err := tx.Exec(ctx, `select from peers where id = $1 for no key update`, peer); err != nil {
		return found, "", err
	}
	list, err := p.overdueBacklogs(ctx, tx, peer)
	if err != nil || len(list) == 0 {
		return found, "", err
	}
	switch {
	case list[0].State == "absent":
		return list[0], "it is not configured and counts as lost: it needs a snapshot when it is configured again", lose(ctx, tx, peer)
	case p.cfg.Overdue != nil:
		return list[0], "the log is not kept for it any more: it gets a snapshot", p.cfg.Overdue(ctx, tx, peer)
	}
	return list[0], "the log is kept for it and grows", nil
}

// tellOverdue logs once that a peer is past a limit, until it was below it again.
func (p *Pruner) tellOverdue(ctx context.Context, b backlog, hint string) {
	if p.overdue[b.Peer] {
		return
	}
	p.overdue[b.Peer] = true
	p.cfg.Logger.LogAttrs(ctx, slog.LevelWarn, "backlog of a peer has passed its limit",
		slog.String("peer", b.Peer), slog.String("hint", hint), slog.Int64("entries", b.Entries), slog.Duration("age", b.Age.Round(time.Second)),
		slog.Int64("limit_entries", p.cfg.BacklogEntries), slog.Duration("limit_age", p.cfg.BacklogAge))
}

// lose gives a peer up that is not configured: nothing is kept for it. A snapshot makes its refusals and repairs superfluous.
func lose(ctx context.Context, tx pgx.Tx, peer string) error {
	for _, table := range []string{"lagging", "doubts", "repairs", "refusals"} {
		if _, err := tx.Exec(ctx, `delete from `+table+` where peer = $1`, peer); err != nil {
			return fmt.Errorf("lose the peer's %s: %w", table, err)
		}
	}
	if _, err := tx.Exec(ctx, `update peers set state = 'lost' where id = $1`, peer); err != nil {
		return fmt.Errorf("lose the peer: %w", err)
	}
	return nil
}
