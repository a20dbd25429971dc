package outbox

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/jackc/pgx/v5"
)

// Querier is what [Await] reads with: a *pgxpool.Pool, or a *pgx.Conn that nobody else uses meanwhile.
type Querier interface {
	Query(ctx context.Context, sql string, args ...any) (pgx.Rows, error)
}

// Reason says why a quorum was not met.
type Reason string

// The reasons.
const (
	ReasonUnreachable Reason = "unreachable" // too few peers could be reached
	ReasonTimeout     Reason = "timeout"     // too few peers answered before the deadline
	ReasonIDDrift     Reason = "id_drift"    // a peer answered for other ids than were sent
	ReasonRefused     Reason = "refused"     // a peer refused what was sent
)

// Verdict is what became of a set of entries. Entries that no quorum has are still delivered: each peer gets them when it can.
type Verdict struct {
	Met    int            // entries that at least W members had before the deadline, the local commit being one
	NotMet map[Reason]int // the others, by reason
}

// IsMet reports whether every entry reached its quorum.
func (v Verdict) IsMet() bool { return len(v.NotMet) == 0 }

// Entries is how many entries were judged.
func (v Verdict) Entries() int {
	n := v.Met
	for _, k := range v.NotMet {
		n += k
	}
	return n
}

// ErrUnknownEntry says that an entry is not in the outbox: its transaction was not committed, or it was delivered and pruned long ago.
var ErrUnknownEntry = errors.New("no such entry")

const (
	awaitSoon = time.Millisecond       // how often a young wait looks
	awaitLate = 100 * time.Millisecond // and one that has waited for two seconds or more

	// awaitWindow bounds one look: later entries of a large transaction are decided later.
	awaitWindow = 256
)

// Await returns the verdict of entries that have been committed. It looks again and again, every 1 ms at first and every 100 ms in the end,
// until all of them are decided, and needs no worker in this process. When ctx ends first it returns the verdict of those that are
// decided and ctx's cause; nothing is lost by that. [ErrUnknownEntry] as soon as it finds one that is not there, which is checked for the entry of
// the lowest id first.
func Await(ctx context.Context, db Querier, entries ...EntryID) (Verdict, error) {
	v := Verdict{NotMet: map[Reason]int{}}
	left := slices.Clone(entries)
	slices.Sort(left)
	left = slices.Compact(left)
	timer := time.NewTimer(0)
	defer timer.Stop()
	for start := time.Now(); ; {
		select {
		case <-ctx.Done():
			return v, fmt.Errorf("outbox: await %d of %d entries: %w", len(left), len(entries), context.Cause(ctx))
		case <-timer.C:
		}
		window := left[:min(len(left), awaitWindow)]
		decided, err := v.look(ctx, db, window)
		if err != nil {
			return v, fmt.Errorf("outbox: await: %w", err)
		}
		left = slices.DeleteFunc(left, func(id EntryID) bool { return decided[id] })
		if len(left) == 0 {
			return v, nil
		}
		pause := min(max(awaitSoon, time.Since(start)/20), awaitLate)
		if len(decided) == len(window) {
			pause = 0
		}
		timer.Reset(pause)
	}
}

// look counts the decided ones of ids and returns them.
func (v *Verdict) look(ctx context.Context, db Querier, ids []EntryID) (map[EntryID]bool, error) {
	// The index batches_last_entry serves this: ranges of a lane's batches overlap by a few entries only.
	rows, err := db.Query(ctx, `
		select e.id, o.id is not null, coalesce(b.verdict, 'pending'), coalesce(b.reason, '')
		from unnest($1::bigint[]) e (id)
		left join outbox o on o.id = e.id
		left join lateral (
			select b.verdict, b.reason
			from batches b
			where b.lane = o.lane and b.last_entry >= e.id and b.first_entry <= e.id and e.id = any (b.entries)
			order by b.last_entry
			limit 1
		) b on true
		order by e.id`, ids)
	if err != nil {
		return nil, err
	}
	decided := make(map[EntryID]bool, len(ids))
	var (
		id      EntryID
		known   bool
		verdict string
		reason  Reason
	)
	_, err = pgx.ForEachRow(rows, []any{&id, &known, &verdict, &reason}, func() error {
		switch {
		case !known:
			return fmt.Errorf("entry %d: %w", id, ErrUnknownEntry)
		case verdict == "met":
			v.Met++
			decided[id] = true
		case verdict == "not_met":
			v.NotMet[reason]++
			decided[id] = true
		}
		return nil
	})
	return decided, err
}
