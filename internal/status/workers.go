package status

import (
	"github.com/jackc/pgx/v5"
)

// Worker is one `worker run` of the fleet, and what it has at the moment.
type Worker struct {
	ID      string // of its River client
	Host    string // "" for one of an earlier release, which is known by its jobs only
	Version string
	Running Seconds // since its start
	Silent  Seconds // since it last said that it is alive; those that stopped are not there any more
	Leases
}

// Leases is what somebody works on, by the River jobs that run, and what is leased to that.
type Leases struct {
	FanOuts      int64 // jobs
	Batches      int64 // undecided ones, leased to fan-outs
	Retries      int64 // jobs peer_retry
	Lanes        int64 // of peers, held while they are pushed to, caught up or repaired
	Repairs      int64 // jobs
	Redeliveries int64 // jobs
	Snapshots    int64 // of peers
}

// queueWorkers reads who works on what. A lease names a token, and so does the job that works under it: a fan-out by its own, a retry and a snapshot by the
// number that their row carries, a repair and a redelivery by their lane. The job names its worker. All of it are rows of now: at most 32 undecided batches, 32 lanes a
// peer, and the running jobs.
//
// A fan-out that took over another one's batches works under a token that its job does not name, and a retry whose own lane is in step may still hold
// others: those are leased to nobody that can be named (”).
func (f *Fleet) queueWorkers(b *pgx.Batch) {
	b.Queue(`
		with running as materialized (
			select j.attempted_by[cardinality(j.attempted_by)] as worker, j.kind, j.args
			from river_job j
			where j.state = 'running' and cardinality(j.attempted_by) > 0
		), entry_lanes as ( -- the job of a redelivery names the entry, not its lane
			select j.worker, j.args ->> 'peer' as peer, r.lane
			from running j
			join refusals r on r.peer = j.args ->> 'peer' and r.entry = (j.args ->> 'entry')::bigint
			where j.kind = 'redeliver'
		), holders as materialized (
			select distinct on (token) token, worker
			from (
				select (j.args ->> 'fan_out')::bigint as token, j.worker from running j where j.kind = 'fan_out'
				union all
				select l.holder, j.worker
				from running j
				join lagging l on l.peer = j.args ->> 'peer' and l.lane = (j.args ->> 'lane')::smallint and l.retry = (j.args ->> 'retry')::bigint
				where j.kind = 'peer_retry'
				union all
				select l.holder, j.worker
				from running j
				join lagging l on l.peer = j.args ->> 'peer' and l.lane = (j.args ->> 'lane')::smallint and l.retry is null
				where j.kind = 'repair'
				union all
				select l.holder, e.worker from entry_lanes e join lagging l on l.peer = e.peer and l.lane = e.lane and l.retry is null
				union all
				select s.holder, j.worker
				from running j
				join snapshots s on s.peer = j.args ->> 'peer' and s.retry = (j.args ->> 'retry')::bigint
				where j.kind = 'snapshot'
			) t
			where token is not null
			order by token, worker
		), work (worker, what) as (
			select worker, kind from running
			union all
			select coalesce(h.worker, ''), 'batch' from batches x left join holders h on h.token = x.fan_out where x.verdict = 'pending'
			union all
			select coalesce(h.worker, ''), 'lane' from lagging l left join holders h on h.token = l.holder where l.holder is not null
			union all
			select '', 'snapshot' from snapshots s where s.holder is not null and not exists (select from holders h where h.token = s.holder)
		), counts as (
			select worker,
			       count(*) filter (where what = 'fan_out') as fan_outs, count(*) filter (where what = 'batch') as batches,
			       count(*) filter (where what = 'peer_retry') as retries, count(*) filter (where what = 'lane') as lanes,
			       count(*) filter (where what = 'repair') as repairs, count(*) filter (where what = 'redeliver') as redeliveries,
			       count(*) filter (where what = 'snapshot') as snapshots
			from work
			group by worker
		)
		select coalesce(w.id, c.worker), coalesce(w.host, ''), coalesce(w.version, ''),
		       coalesce(extract(epoch from clock_timestamp() - w.started_at), 0), coalesce(extract(epoch from clock_timestamp() - w.seen_at), 0),
		       coalesce(c.fan_outs, 0), coalesce(c.batches, 0), coalesce(c.retries, 0), coalesce(c.lanes, 0), coalesce(c.repairs, 0),
		       coalesce(c.redeliveries, 0), coalesce(c.snapshots, 0)
		from workers w
		full join counts c on c.worker = w.id
		order by 1`).Query(func(rows pgx.Rows) error {
		for rows.Next() {
			var w Worker
			err := rows.Scan(&w.ID, &w.Host, &w.Version, &w.Running, &w.Silent,
				&w.FanOuts, &w.Batches, &w.Retries, &w.Lanes, &w.Repairs, &w.Redeliveries, &w.Snapshots)
			if err != nil {
				return err
			}
			if w.ID == "" {
				f.Unknown = w.Leases
				continue
			}
			f.Workers = append(f.Workers, w)
		}
		return rows.Err()
	})
}
