-- The roles of a quorumbox database and what each may do. Run it after each `worker migrate up`, as somebody who may create roles and is a member of the role
-- that owns the tables (or as a superuser); it can be repeated, and takes away what a role has too much:
--
--     psql --single-transaction --set=ON_ERROR_STOP=1 --file=roles.sql "$DATABASE_URL"
--
-- The roles cannot log in. Make a user for each program, let it be one of them, and run the file (again): it gives users their limits.
--
--     create role app login password '…' in role quorumbox_writer;
--     create role worker login password '…' in role quorumbox_worker;
--
--   quorumbox_migrator  owns the tables and changes the schema: `worker migrate up`, and nothing else
--   quorumbox_writer    commits memories and entries, and asks for their verdicts: applications
--   quorumbox_worker    replicates, prunes, and does what an operator asks for: `worker run`, `ui`, `peers`, `refusals`, `verify`
--   quorumbox_viewer    reads how replication stands, without payloads: `worker status`, dashboards
--
-- None but the migrator owns anything, so none can change the schema. Writers' functions run with the rights of who calls them.

do $$
begin
    -- Names of roles are the server's: another database of it may have made them.
    if not exists (select from pg_roles where rolname = 'quorumbox_migrator') then
        create role quorumbox_migrator nologin;
    end if;
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

-- Limits are a user's, not inherited from a role. What an operator has set is left alone. A worker has up to database.max_conns connections (20), and commands some
-- more; a program's own settings (`worker migrate up` waits for a lock for a fifth of a second at a time) go before these.
do $$
declare
    u record;
    refused text := '';
begin
    for u in
        select m.rolname as name, m.rolconnlimit as has_connections, l.connections, s.setting, s.value,
               exists (select from unnest(coalesce(m.rolconfig, '{}')) c where split_part(c, '=', 1) = s.setting) as has_setting
        from (values
            ('quorumbox_migrator',   8, '5min', '10s', '1min', 'quorumbox_migrator'), -- what it makes belongs to the role
            ('quorumbox_writer',   200, '30s',  '10s', '30s',  null),
            ('quorumbox_worker',   100, '2min', '10s', '30s',  null),
            ('quorumbox_viewer',    10, '15s',  '2s',  '15s',  null)
        ) l (role, connections, statement, lock, idle, becomes)
        cross join lateral (values
            ('statement_timeout', l.statement), ('lock_timeout', l.lock), ('idle_in_transaction_session_timeout', l.idle), ('role', l.becomes)
        ) s (setting, value)
        join pg_roles r on r.rolname = l.role
        join pg_auth_members a on a.roleid = r.oid
        join pg_roles m on m.oid = a.member and m.rolcanlogin and not m.rolsuper and m.rolname <> current_user
        where s.value is not null
    loop
        begin
            if not u.has_setting then
                execute format('alter role %I set %I = %L', u.name, u.setting, u.value);
            end if;
            if u.has_connections = -1 then
                execute format('alter role %I connection limit %s', u.name, u.connections);
            end if;
        exception when insufficient_privilege then
            refused := refused || ' ' || quote_ident(u.name);
        end;
    end loop;
    if refused <> '' then
        raise notice 'no limits are set for these users, which % may not change:%', current_user, refused;
    end if;
end $$;

revoke create on schema public from public;
grant usage, create on schema public to quorumbox_migrator;
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

-- How replication stands. Payloads, keys and namespaces stay out: of the outbox only what tells ages, and of jobs neither arguments nor errors.
grant select on undispatched, batches, peers, lagging, doubts, repairs, refusals, snapshots, workers, river_leader, river_queue to quorumbox_viewer;
grant select (id, lane, kind, created_at) on outbox to quorumbox_viewer;
grant select (id, kind, queue, state, priority, attempt, max_attempts, created_at, scheduled_at, attempted_at, finalized_at) on river_job to quorumbox_viewer;
