package status

import (
	"context"
	"slices"

	"github.com/jackc/pgx/v5"
	"github.com/riverqueue/river/rivertype"

	"quorumbox/internal/peer"
)

// Backlog is what waits, and where: the part of a [Report] that metrics show.
type Backlog struct {
	Peers        []Peer // by id
	Undispatched Undispatched
	Undecided    Undecided
	Refusals     []Refusals // by peer and class; none of a peer that is not configured
	Tables       []Table    // that grow and are pruned, by name
	Jobs         []Jobs     // by kind and state; none of what there is no job of

	// OldestXmin is the age of the oldest transaction that keeps deleted rows from being cleaned; 0: none. Replication slots and standbys, whose
	// age the server does not say, are left out.
	OldestXmin Seconds
}

// Table is how large a table is. The rows are the server's estimate.
type Table struct {
	Name  string
	Live  int64
	Dead  int64 // deleted or replaced, not cleaned yet
	Bytes int64 // on the disk, with indexes and what is stored apart
}

// Tables are the names of the tables of [Backlog.Tables].
func Tables() []string {
	return []string{"batches", "doubts", "kept", "lagging", "outbox", "refusals", "repairs", "river_job", "tombstones", "undispatched"}
}

// Jobs is how many River jobs of one kind are in one state.
type Jobs struct {
	Kind  string // as it is written down: maybe of another release
	State rivertype.JobState
	Jobs  int64 // at least, where 10,000 of all kinds are in the state
}

// JobStates are the states of [Backlog.Jobs]. Completed jobs are left out: they are as many as the last minutes had work, and nobody waits for them.
func JobStates() []rivertype.JobState {
	return slices.DeleteFunc(rivertype.JobStates(), func(s rivertype.JobState) bool { return s == rivertype.JobStateCompleted })
}

// jobsLimit bounds how many jobs of one state are looked at.
const jobsLimit = 10_000

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
	all.queueJobs(&b)
	if err := send(ctx, db, &b); err != nil {
		return Backlog{}, err
	}
	all.Peers, all.Undispatched, all.Undecided, all.Refusals = r.Peers, r.Undispatched, r.Undecided, list
	return all, nil
}

// queueTables reads what tells of growth and bloat: from statistics and files' sizes, so that it costs the same however long the tables are.
func (all *Backlog) queueTables(b *pgx.Batch) {
	b.Queue(`
		select s.relname as name, s.n_live_tup as live, s.n_dead_tup as dead, coalesce(pg_total_relation_size(s.relid), 0) as bytes
		from pg_stat_user_tables s
		where s.relid = any (array(select to_regclass(t) from unnest($1::text[]) t))
		order by s.relname`, Tables()).Query(func(rows pgx.Rows) error {
		var err error
		all.Tables, err = pgx.CollectRows(rows, pgx.RowToStructByName[Table])
		return err
	})
	queueOldestXmin(b, &all.OldestXmin)
}

func queueOldestXmin(b *pgx.Batch, age *Seconds) {
	b.Queue(`select coalesce(extract(epoch from clock_timestamp() - min(since)), 0) from xmin_holders`).QueryRow(func(row pgx.Row) error {
		return row.Scan(age)
	})
}

// queueJobs walks the index by which River fetches jobs. The order says so to the planner, which knows nothing of a state that was rare a moment ago.
func (all *Backlog) queueJobs(b *pgx.Batch) {
	b.Queue(`
		select j.kind, s.state::text, count(*) as jobs
		from unnest($1::text[]) s (state)
		cross join lateral (
			select j.kind
			from river_job j
			where j.state = s.state::river_job_state
			order by j.state, j.queue, j.priority, j.scheduled_at, j.id
			limit $2
		) j
		group by j.kind, s.state
		order by j.kind, s.state`, JobStates(), jobsLimit).Query(func(rows pgx.Rows) error {
		var err error
		all.Jobs, err = pgx.CollectRows(rows, pgx.RowToStructByName[Jobs])
		return err
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
