package jobs

import (
	"context"
	"fmt"
	"log/slog"
	"time"

	"github.com/jackc/pgx/v5"
)

const (
	// tellXminEvery is how often, at most, a line tells of a long transaction.
	tellXminEvery = time.Minute

	// idleXmin is how many transactions may begin after one whose age the server does not say, before it counts: in a database in which nothing
	// happens, that of a standby stays what it is.
	idleXmin = 1000
)

// xminHolder is something that keeps deleted rows from being cleaned: a row of the view xmin_holders. Name and state are what its session says of itself; what
// it does is not looked at, because a statement may hold payload.
type xminHolder struct {
	Kind   string // transaction, prepared transaction, replication slot, standby
	PID    int32  // 0: none
	Name   string
	Oldest string // the transaction id
}

// tellLongTransaction logs the oldest transaction that keeps deleted rows from being cleaned, if it is older than allowed.
func (p *Pruner) tellLongTransaction(ctx context.Context) error {
	rows, err := p.pool.Query(ctx, `
		select kind, pid, name, oldest, state, coalesce(clock_timestamp() - since, interval '-1 second'), transactions
		from xmin_holders
		where since is null or since < clock_timestamp() - $1::interval`, p.cfg.LongTransaction)
	if err != nil {
		return fmt.Errorf("look for long transactions: %w", err)
	}
	var (
		h, worst     xminHolder
		state        string
		age, oldest  time.Duration
		worstState   string
		transactions int64
		seen         = map[xminHolder]time.Time{}
	)
	_, err = pgx.ForEachRow(rows, []any{&h.Kind, &h.PID, &h.Name, &h.Oldest, &state, &age, &transactions}, func() error {
		if age < 0 {
			if age = p.sinceSeen(seen, h, transactions); age <= p.cfg.LongTransaction {
				return nil
			}
		}
		if age > oldest {
			worst, worstState, oldest = h, state, age
		}
		return nil
	})
	if err != nil {
		return fmt.Errorf("look for long transactions: %w", err)
	}
	p.seen = seen
	if oldest == 0 || !p.warned.IsZero() && time.Since(p.warned) < tellXminEvery {
		return nil
	}
	p.warned = time.Now()
	p.cfg.Logger.LogAttrs(ctx, slog.LevelWarn, "a long transaction keeps deleted rows from being cleaned",
		slog.String("kind", worst.Kind), slog.Int("pid", int(worst.PID)), slog.Duration("age", oldest.Round(time.Second)),
		slog.String("application_name", worst.Name), slog.String("state", worstState))
	return nil
}

// sinceSeen returns for how long a holder has held the same, by this pruner's looks.
func (p *Pruner) sinceSeen(now map[xminHolder]time.Time, h xminHolder, transactions int64) time.Duration {
	if transactions < idleXmin {
		return 0
	}
	since, ok := p.seen[h]
	if !ok {
		since = time.Now()
	}
	now[h] = since
	return time.Since(since)
}
