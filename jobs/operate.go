package jobs

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"

	"quorumbox/internal/fault"
	"quorumbox/internal/peer"
)

// RefusedEntry is an entry that one peer refuses, as an operator looks at it.
type RefusedEntry struct {
	Peer      string     `json:"peer"`
	Entry     int64      `json:"entry"`
	Namespace string     `json:"namespace"` // empty if the entry was pruned
	Kind      string     `json:"kind"`
	Key       string     `json:"key"`
	Class     peer.Class `json:"class"`    // why
	Attempts  int        `json:"attempts"` // how often
	FirstAt   time.Time  `json:"first_at"`
	LastAt    time.Time  `json:"last_at"`
	NextAt    time.Time  `json:"next_at"` // when it is tried again, at the soonest
}

// RefusalFilter chooses refused entries. Empty fields choose all.
type RefusalFilter struct {
	Peer    string
	Class   peer.Class
	Within  time.Duration // refused last within this time
	Entries []int64
}

// Database is a pool or a connection.
type Database interface {
	Query(ctx context.Context, sql string, args ...any) (pgx.Rows, error)
	Exec(ctx context.Context, sql string, args ...any) (pgconn.CommandTag, error)
}

const chosenRefusals = `
	($1 = '' or r.peer = $1) and ($2 = '' or r.class = $2) and ($3 = interval '0' or r.last_at > now() - $3::interval)
	and (cardinality($4::bigint[]) = 0 or r.entry = any ($4))`

func (f RefusalFilter) args() []any {
	entries := f.Entries
	if entries == nil {
		entries = []int64{}
	}
	return []any{f.Peer, string(f.Class), f.Within, entries}
}

// ListRefusals returns the chosen refused entries, the latest refusal first, at most limit of them.
func ListRefusals(ctx context.Context, db Database, f RefusalFilter, limit int) ([]RefusedEntry, error) {
	rows, err := db.Query(ctx, `
		select r.peer, r.entry, coalesce(o.namespace, '') as namespace, coalesce(o.kind, '') as kind, coalesce(o.key, '') as key, r.class, r.attempts,
		       r.first_at, r.last_at, r.next_at
		from refusals r
		left join outbox o on o.id = r.entry
		where `+chosenRefusals+`
		order by r.last_at desc, r.peer, r.entry
		limit $5`, append(f.args(), limit)...)
	if err != nil {
		return nil, fmt.Errorf("list refusals: %w", err)
	}
	list, err := pgx.CollectRows(rows, pgx.RowToStructByName[RefusedEntry])
	if err != nil {
		return nil, fmt.Errorf("list refusals: %w", err)
	}
	return list, nil
}

// RetryRefusals lets the chosen refused entries be tried again now: the sweeper gives them jobs within a second or so, some at a time. It returns
// how many they are.
func RetryRefusals(ctx context.Context, db Database, f RefusalFilter) (int64, error) {
	fault.Hit(fault.OperateChosen)
	tag, err := db.Exec(ctx, `update refusals r set next_at = now() where `+chosenRefusals, f.args()...)
	if err != nil {
		return 0, fmt.Errorf("retry refusals: %w", err)
	}
	fault.Hit(fault.OperateRecorded)
	return tag.RowsAffected(), nil
}

// ErrUndecided says that some of the chosen entries have no verdict yet.
var ErrUndecided = errors.New("entries without a verdict were left: drop them again in a moment")

// DropRefusals gives the chosen refused entries up: their peers never get them. It returns how many they were. Those without a verdict are left, and the error wraps
// [ErrUndecided]: the fan-out that decides it would take a peer that is past the entry for one that has it, if nothing said that it was refused.
func DropRefusals(ctx context.Context, db Database, f RefusalFilter) (int64, error) {
	fault.Hit(fault.OperateChosen)
	rows, err := db.Query(ctx, `
		with chosen as (
			select r.peer, r.entry,
			       exists (select from batches b where b.lane = r.lane and b.verdict = 'pending' and r.entry = any (b.entries)) as undecided
			from refusals r
			where `+chosenRefusals+`
		), dropped as (
			delete from refusals r using chosen c where r.peer = c.peer and r.entry = c.entry and not c.undecided
			returning 1
		)
		select (select count(*) from dropped), (select count(*) from chosen where undecided)`, f.args()...)
	if err != nil {
		return 0, fmt.Errorf("drop refusals: %w", err)
	}
	counts, err := pgx.CollectExactlyOneRow(rows, pgx.RowToStructByPos[struct{ Dropped, Left int64 }])
	if err != nil {
		return 0, fmt.Errorf("drop refusals: %w", err)
	}
	fault.Hit(fault.OperateRecorded)
	if counts.Left > 0 {
		return counts.Dropped, fmt.Errorf("%d %w", counts.Left, ErrUndecided)
	}
	return counts.Dropped, nil
}
