-- What keeps the log bounded: the state of a peer that is given up, what outlives its batch, and how often the tables are vacuumed.

-- +goose Up

-- lost: the log is kept for this peer no more. If it is configured again it needs a snapshot, not the log.
alter table peers
    drop constraint peers_state_known,
    add constraint peers_state_known check (state in ('active', 'paused', 'absent', 'lost'));

-- Entries whose batch was pruned and which are still needed: one that a peer refuses, what has superseded it meanwhile, and what a repair reads. Written in the
-- transaction that prunes the batch, so that none is forgotten.
create table kept (
    entry bigint primary key
);

-- For pruning by age. New rows go to its right end.
create index tombstones_deleted_at on tombstones (deleted_at);

-- Each row is inserted once and deleted once, so a fixed share of the table is dead between two runs. The default share of a fifth would let a table of
-- millions grow by as much, and look at the whole of it for long.
alter table outbox set (autovacuum_vacuum_scale_factor = 0.05, autovacuum_vacuum_threshold = 5000);
alter table batches set (autovacuum_vacuum_scale_factor = 0.05, autovacuum_vacuum_threshold = 1000);
alter table tombstones set (autovacuum_vacuum_scale_factor = 0.1, autovacuum_vacuum_threshold = 5000);
-- River's table. A job leaves three dead rows (taken, completed, deleted), and its workers look for jobs in an index that has an entry for each of them.
alter table if exists river_job set
    (autovacuum_vacuum_scale_factor = 0.02, autovacuum_vacuum_threshold = 1000, autovacuum_vacuum_cost_delay = 0);

-- What keeps deleted rows of this database from being cleaned, other than this session: those that a transaction not older than oldest may still see. since is null where the server does
-- not say it. transactions is how many have begun after the oldest. A role that is not a member of pg_read_all_stats sees its own sessions only.
create view xmin_holders as
    select 'transaction' as kind, a.pid, a.application_name as name, coalesce(a.state, '') as state, a.xact_start as since,
           coalesce(a.backend_xmin, a.backend_xid)::text as oldest, age(coalesce(a.backend_xmin, a.backend_xid)) as transactions
    from pg_stat_activity a
    where a.datname = current_database() and a.xact_start is not null and (a.backend_xmin is not null or a.backend_xid is not null)
      and a.pid <> pg_backend_pid()
      and not exists (select from pg_stat_progress_vacuum v where v.pid = a.pid) -- which holds nothing
    union all
    select 'prepared transaction', 0, p.gid, 'prepared', p.prepared, p.transaction::text, age(p.transaction)
    from pg_prepared_xacts p
    where p.database = current_database()
    union all
    select 'replication slot', coalesce(s.active_pid, 0), s.slot_name::text, case when s.active then 'active' else 'inactive' end, null, s.xmin::text, age(s.xmin)
    from pg_replication_slots s
    where s.xmin is not null
    union all
    select 'standby', r.pid, r.application_name, r.state, null, r.backend_xmin::text, age(r.backend_xmin)
    from pg_stat_replication r
    where r.backend_xmin is not null;

-- +goose Down
drop view xmin_holders;
alter table if exists river_job reset (autovacuum_vacuum_scale_factor, autovacuum_vacuum_threshold, autovacuum_vacuum_cost_delay);
alter table tombstones reset (autovacuum_vacuum_scale_factor, autovacuum_vacuum_threshold);
alter table batches reset (autovacuum_vacuum_scale_factor, autovacuum_vacuum_threshold);
alter table outbox reset (autovacuum_vacuum_scale_factor, autovacuum_vacuum_threshold);
drop index tombstones_deleted_at;
drop table kept;
update peers set state = 'absent' where state = 'lost';
alter table peers
    drop constraint peers_state_known,
    add constraint peers_state_known check (state in ('active', 'paused', 'absent'));
