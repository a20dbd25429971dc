-- The roles of a quorumbox database and what each may do. Run it as the owner of the tables (who runs `worker migrate up`), with the right to create roles,
-- after each migration; it can be repeated, and takes away what a role has too much:
--
--     psql --single-transaction --set=ON_ERROR_STOP=1 --file=roles.sql "$DATABASE_URL"
--
-- The roles cannot log in. Make a user for each program, and let it be one of them:
--
--     create role app login password '…' in role quorumbox_writer;
--     create role worker login password '…' in role quorumbox_worker;
--
--   quorumbox_writer  commits memories and entries, and asks for their verdicts: applications
--   quorumbox_worker  replicates, prunes, and does what an operator asks for: `worker run`, `ui`, `peers`, `refusals`, `verify`
--   quorumbox_viewer  reads how replication stands, without payloads: `worker status`, dashboards
--
-- None of them owns anything, so none can change the schema. Writers' functions run with the rights of who calls them.

do $$
begin
    -- Names of roles are the server's: another database of it may have made them.
    if not exists (select from pg_roles where rolname = 'quorumbox_writer') then
        create role quorumbox_writer nologin;
    end if;
    if not exists (select from pg_roles where rolname = 'quorumbox_worker') then
        create role quorumbox_worker nologin;
    end if;
    if not exists (select from pg_roles where rolname = 'quorumbox_viewer') then
        create role quorumbox_viewer nologin;
    end if;
    -- To see which transaction of another role keeps deleted rows from being cleaned. Only who may grant it can; without it that gauge sees the worker's own.
    begin
        grant pg_read_all_stats to quorumbox_worker, quorumbox_viewer;
    exception when insufficient_privilege then
        raise notice 'pg_read_all_stats is not granted: the alarm for long transactions sees those of the same role only';
    end;
end $$;

revoke create on schema public from public;
grant usage on schema public to quorumbox_writer, quorumbox_worker, quorumbox_viewer;
revoke all on all tables in schema public from public, quorumbox_writer, quorumbox_worker, quorumbox_viewer;
revoke all on all sequences in schema public from public, quorumbox_writer, quorumbox_worker, quorumbox_viewer;

-- The store. Workers read it for snapshots and comparisons; they forget what was deleted long ago.
grant select, insert, update, delete on
    memories, archived_memories, memory_embeddings, memory_links, memory_uses, namespace_meta, pending_actions, tombstones
    to quorumbox_writer;
grant select on
    memories, archived_memories, memory_embeddings, memory_links, memory_uses, namespace_meta, pending_actions, tombstones
    to quorumbox_worker;
grant delete, update (lane) on tombstones, memory_uses to quorumbox_worker; -- update, to lock rows that it deletes

-- The outbox. A writer appends and never takes back; the relay and the pruner take away and never append.
grant select, insert on outbox, undispatched to quorumbox_writer;
grant update (after_lanes, after_entries) on undispatched to quorumbox_writer; -- a decision puts what it produced behind itself
grant select, delete on outbox, undispatched to quorumbox_worker;
grant usage on sequence outbox_id_seq to quorumbox_writer;

-- Replication. outbox.Await reads the verdicts.
grant select on batches to quorumbox_writer;
grant select, insert, update, delete on batches, peers, lagging, doubts, repairs, refusals, snapshots, kept, workers to quorumbox_worker;
grant usage, select on sequence tokens to quorumbox_worker;
grant select on xmin_holders to quorumbox_worker, quorumbox_viewer;

-- River.
grant select, insert, update, delete on river_job, river_leader, river_queue, river_notification to quorumbox_worker;
grant usage, select on sequence river_job_id_seq, river_notification_id_seq to quorumbox_worker;

-- Whether the schema is this program's.
grant select on quorumbox_migrations, river_migration to quorumbox_worker, quorumbox_viewer;

-- How replication stands. Payloads, keys and namespaces stay out: of the outbox only what tells ages.
grant select on undispatched, batches, peers, lagging, doubts, repairs, refusals, snapshots, workers, river_job, river_leader, river_queue
    to quorumbox_viewer;
grant select (id, lane, kind, created_at) on outbox to quorumbox_viewer;
