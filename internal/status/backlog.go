package status

import (
	"context"

	"github.com/jackc/pgx/v5"

	"quorumbox/internal/peer"
)

// Backlog is what waits, and where: the part of a [Report] that metrics show.
type Backlog struct {
	Peers        []Peer // by id
	Undispatched Undispatched
	Undecided    Undecided
	Refusals     []Refusals // by peer and class; none of a peer that is not configured
	Tables       []Table    // that grow and are pruned, by name

	// OldestXmin is the age of the oldest transaction that keeps deleted rows from being cleaned; 0: none. Replication slots and standbys, whose
	// age the server does not say, are left out.
	OldestXmin Seconds
}

// Table is how many rows a table has, by the server's estimate.
type Table struct {
	Name string
	Live int64
	Dead int64 // deleted or replaced, not cleaned yet
}

// Tables are the names of the tables of [Backlog.Tables].
func Tables() []string { return []string{"batches", "outbox", "river_job"} }

// Refusals is how many entries a peer refuses for good with one class of answer.
type Refusals struct {
	Peer    string
	Class   peer.Class // as it is written down: maybe of another release
	Entries int64      // at least, where the peer has 100,000 of all classes
}

// ReadBacklog is [Read] without the verdicts, and with the refusals by class.
func ReadBacklog(ctx context.Context, db DB) (Backlog, error) {
	var (
		r    Report
		list []Refusals
		all  Backlog
		b    pgx.Batch
	)
	r.queuePeers(&b)
	r.queueUndispatched(&b)
	r.queueUndecided(&b)
	queueRefusals(&b, &list)
	all.queueTables(&b)
	if err := send(ctx, db, &b); err != nil {
		return Backlog{}, err
	}
	all.Peers, all.Undispatched, all.Undecided, all.Refusals = r.Peers, r.Undispatched, r.Undecided, list
	return all, nil
}

// queueTables reads what tells of bloat: from the statistics, so that it costs the same however long the tables are.
func (all *Backlog) queueTables(b *pgx.Batch) {
	b.Queue(`
		select s.relname as name, s.n_live_tup as live, s.n_dead_tup as dead
		from pg_stat_user_tables s
		where s.relid = any (array(select to_regclass(t) from unnest($1::text[]) t))
		order by s.relname`, Tables()).Query(func(rows pgx.Rows) error {
		var err error
		all.Tables, err = pgx.CollectRows(rows, pgx.RowToStructByName[Table])
		return err
	})
	b.Queue(`select coalesce(extract(epoch from clock_timestamp() - min(since)), 0) from xmin_holders`).QueryRow(func(row pgx.Row) error {
		return row.Scan(&all.OldestXmin)
	})
}

func queueRefusals(b *pgx.Batch, list *[]Refusals) {
	b.Queue(`
		select p.id as peer, f.class, count(*) as entries
		from peers p
		cross join lateral (select r.class from refusals r where r.peer = p.id limit $1) f
		where p.state not in ('absent', 'lost')
		group by p.id, f.class
		order by p.id, f.class`, countLimit).Query(func(rows pgx.Rows) error {
		var err error
		*list, err = pgx.CollectRows(rows, pgx.RowToStructByName[Refusals])
		return err
	})
}
