-- The writers of consolidations, and of pending actions and their decisions: each changes its domain tables and appends in the caller's transaction.

-- +goose Up

-- Consolidate -----------------------------------------------------------------------------------------------------------------------------

-- memory_consolidate replaces 1 to 100 live memories by a new one, whose title may be that of one of them. A source of another lane also gets a delete in
-- its own lane, after the consolidation: what is stored there next, under its id or its title, must not reach a peer before that.
-- +goose StatementBegin
create function memory_consolidate(p_memory jsonb, p_source_ids text[], p_embedding jsonb default null) returns bigint
    language plpgsql
as $$
declare
    v_found     record;
    v_problem   text;
    m           jsonb;
    v_id        text := p_memory ->> 'id';
    v_now       timestamptz := clock_timestamp();
    v_created   timestamptz;
    v_lane      smallint;
    v_vector    real[];
    v_embedding json;
    v_sources   jsonb := '[]';
    v_source    record;
    v_lanes     smallint[] := '{}';
    v_entries   bigint[] := '{}';
    v_entry     bigint;
    v_own       bigint;
begin
    select field, rule into v_found from memory_problem(p_memory) limit 1;
    if found then perform outbox_refuse('memory', v_found.field, v_found.rule); end if;
    v_problem := source_ids_problem(p_source_ids, v_id);
    if v_problem is not null then perform outbox_refuse('consolidate', 'sources', v_problem); end if;
    if p_embedding is not null then
        v_problem := embedding_problem(p_embedding, v_id);
        if v_problem is not null then perform outbox_refuse('memory', 'embedding', v_problem); end if;
        v_vector := embedding_vector(p_embedding);
        v_embedding := embedding_wire(v_id, p_embedding ->> 'model', v_vector);
    end if;
    v_lane := outbox_lane(p_memory ->> 'namespace');

    for v_source in select s.id, s.namespace, s.title from memories s where s.id = any (p_source_ids) order by s.id for update loop
        v_sources := v_sources || jsonb_build_object('id', v_source.id, 'namespace', v_source.namespace, 'title', v_source.title);
    end loop;
    select s.id into v_source from unnest(p_source_ids) s (id) where not exists (select from jsonb_array_elements(v_sources) f where f ->> 'id' = s.id) limit 1;
    if found then perform outbox_missing('sources', format('no memory %s to consolidate', v_source.id)); end if;
    if exists (select from memories n where n.id = v_id) then perform outbox_reject('memory_live', format('memory %s is live', v_id)); end if;

    -- After everything of the sources' lanes and everything that uses them: the deletions must find them, and must not overtake those.
    select array_agg(a.lane), array_agg(a.entry) into v_lanes, v_entries
    from (
        select s.lane, outbox_newest(s.lane) as entry
        from (select distinct outbox_lane(f ->> 'namespace') as lane from jsonb_array_elements(v_sources) f) s
        union all
        select u.lane, u.entry from memory_uses u where u.memory_id = any (p_source_ids)
    ) a;
    delete from memories s where s.id = any (p_source_ids);

    v_created := coalesce((p_memory ->> 'created_at')::timestamptz, (p_memory ->> 'updated_at')::timestamptz, v_now);
    m := memory_wire(p_memory, v_now) || jsonb_build_object('version', 1, 'created_at', memory_time(v_created),
        'updated_at', memory_time(coalesce((p_memory ->> 'updated_at')::timestamptz, greatest(v_now, v_created))));
    insert into memories select n.* from jsonb_populate_record(null::memories, m) n;
    if v_vector is not null then
        insert into memory_embeddings (memory_id, model, dim, vector) values (v_id, p_embedding ->> 'model', cardinality(v_vector), v_vector);
    end if;
    with buried as (delete from tombstones t where t.id = v_id returning t.lane, t.entry)
    select v_lanes || array_agg(b.lane), v_entries || array_agg(b.entry) into v_lanes, v_entries from buried b;
    select d.lanes, d.entries into v_lanes, v_entries from outbox_dependencies(v_lane, v_lanes, v_entries) d;

    v_entry := outbox_log(v_lane, p_memory ->> 'namespace', 'consolidate', v_id,
        json_build_object('memory', m, 'sources', v_sources), v_lanes, v_entries, v_embedding);
    for v_source in
        select f ->> 'id' as id, f ->> 'namespace' as namespace, f ->> 'title' as title, outbox_lane(f ->> 'namespace') as lane
        from jsonb_array_elements(v_sources) f
    loop
        v_own := v_entry;
        if v_source.lane <> v_lane then
            v_own := outbox_log(v_source.lane, v_source.namespace, 'delete', v_source.id, json_build_object('title', v_source.title),
                array[v_lane], array[v_entry]);
        end if;
        perform memory_bury(v_source.id, v_source.lane, v_own);
    end loop;
    return v_entry;
end $$;
-- +goose StatementEnd

-- The rule that the sources of a consolidation break, or null.
-- +goose StatementBegin
create function source_ids_problem(p_ids text[], p_new text) returns text
    language sql immutable parallel safe
as $$
    select case
        when coalesce(cardinality(p_ids), 0) not between 1 and 100 then 'must be 1 to 100'
        when exists (select from unnest(p_ids) s (id) where memory_id_problem(s.id) is not null) then 'must be the ids of memories'
        when (select count(distinct s.id) from unnest(p_ids) s (id)) <> cardinality(p_ids) then 'must be distinct'
        when p_new = any (p_ids) then 'must not hold the new memory''s id'
    end
$$;
-- +goose StatementEnd

-- Pending actions -------------------------------------------------------------------------------------------------------------------------

-- pending_problem returns field and rule of the first thing that a receiver would refuse in a pending action, or no row.
-- +goose StatementBegin
create function pending_problem(p jsonb, out field text, out rule text) returns setof record
    language plpgsql stable
as $$
declare
    k text;
begin
    if p is null or jsonb_typeof(p) <> 'object' then
        field := 'pending'; rule := 'must be a JSON object'; return next; return;
    end if;
    for k in select key from jsonb_object_keys(p) as j(key) where key <> all (array[
        'id', 'action_type', 'memory_id', 'namespace', 'payload', 'requested_by', 'requested_at', 'status', 'approvals']) loop
        field := k; rule := 'is not a field of a pending action that a writer sets'; return next; return;
    end loop;
    foreach k in array array['id', 'action_type', 'namespace', 'requested_by'] loop
        if jsonb_typeof(p -> k) is distinct from 'string' then
            field := k; rule := 'is required and must be text'; return next; return;
        end if;
    end loop;
    rule := memory_id_problem(p ->> 'id');
    if rule is not null then field := 'id'; return next; return; end if;
    rule := namespace_problem(p ->> 'namespace');
    if rule is not null then field := 'namespace'; return next; return; end if;
    if btrim(p ->> 'action_type') = '' or octet_length(p ->> 'action_type') > 128 or outbox_has_control(p ->> 'action_type') then
        field := 'action_type'; rule := 'must be 1 to 128 bytes without control characters'; return next; return;
    end if;
    if p ->> 'memory_id' is not null then
        rule := memory_id_problem(p ->> 'memory_id');
        if rule is not null then field := 'memory_id'; return next; return; end if;
    end if;
    if not p ? 'payload' then field := 'payload'; rule := 'is required'; return next; return; end if;
    rule := agent_id_problem(p ->> 'requested_by');
    if rule is not null then field := 'requested_by'; return next; return; end if;
    if p ->> 'requested_at' is not null and not is_rfc3339(p ->> 'requested_at') then
        field := 'requested_at'; rule := 'must be an RFC 3339 time'; return next; return;
    end if;
    if coalesce(p ->> 'status', 'pending') <> 'pending' then
        field := 'status'; rule := 'must be pending: it is decided by a decision'; return next; return;
    end if;
    if p ->> 'approvals' is not null and (jsonb_typeof(p -> 'approvals') <> 'array' or exists (
        select from jsonb_array_elements(p -> 'approvals') a
        where jsonb_typeof(a) <> 'object' or a - array['agent_id', 'approved_at'] <> '{}' or agent_id_problem(a ->> 'agent_id') is not null
           or not coalesce(is_rfc3339(a ->> 'approved_at'), false))) then
        field := 'approvals'; rule := 'must be an array of {"agent_id", "approved_at"}'; return next; return;
    end if;
end $$;
-- +goose StatementEnd

-- A pending action in wire form.
-- +goose StatementBegin
create function pending_json(p pending_actions) returns jsonb
    language sql stable parallel safe
as $$
    select jsonb_build_object('id', p.id, 'action_type', p.action_type, 'namespace', p.namespace, 'payload', p.payload,
            'requested_by', p.requested_by, 'requested_at', memory_time(p.requested_at), 'status', p.status, 'approvals', p.approvals)
        || jsonb_strip_nulls(jsonb_build_object('memory_id', p.memory_id, 'decided_by', p.decided_by, 'decided_at', memory_time(p.decided_at)))
$$;
-- +goose StatementEnd

-- pending_put parks an action, or changes one that nobody has decided yet. Its namespace stays: it is where its decision goes.
-- +goose StatementBegin
create function pending_put(p_action jsonb) returns bigint
    language plpgsql
as $$
declare
    v_found record;
    v_row   pending_actions%rowtype;
begin
    select field, rule into v_found from pending_problem(p_action) limit 1;
    if found then perform outbox_refuse('pending action', v_found.field, v_found.rule); end if;
    insert into pending_actions as a (id, action_type, memory_id, namespace, payload, requested_by, requested_at, status, approvals)
    values (p_action ->> 'id', p_action ->> 'action_type', p_action ->> 'memory_id', p_action ->> 'namespace', p_action -> 'payload',
        p_action ->> 'requested_by', coalesce((p_action ->> 'requested_at')::timestamptz, clock_timestamp()), 'pending',
        coalesce(nullif(p_action -> 'approvals', 'null'), '[]'))
    on conflict (id) do update set action_type = excluded.action_type, memory_id = excluded.memory_id, payload = excluded.payload,
        requested_by = excluded.requested_by, approvals = excluded.approvals,
        requested_at = case when p_action ->> 'requested_at' is null then a.requested_at else excluded.requested_at end
    where a.status = 'pending' and a.namespace = excluded.namespace
    returning * into v_row;
    if not found then
        perform from pending_actions a where a.id = p_action ->> 'id' and a.status <> 'pending';
        if found then perform outbox_reject('pending_decided', format('pending action %s is decided', p_action ->> 'id')); end if;
        perform outbox_refuse('pending action', 'namespace', 'must stay what it was when the action was parked');
    end if;
    return outbox_log(outbox_lane(v_row.namespace), v_row.namespace, 'pending', v_row.id, pending_json(v_row)::json);
end $$;
-- +goose StatementEnd

-- decision_problem returns field and rule of the first thing that a receiver would refuse in a decision, or no row.
-- +goose StatementBegin
create function decision_problem(d jsonb, out field text, out rule text) returns setof record
    language plpgsql immutable
as $$
begin
    if d is null or jsonb_typeof(d) <> 'object' or d - array['id', 'approved', 'decider', 'deletes'] <> '{}' then
        field := 'decision'; rule := 'must be an object with id, approved, decider and, where peers delete a memory by it, deletes'; return next; return;
    end if;
    if d ? 'deletes' then
        rule := memory_id_problem(d ->> 'deletes');
        if rule is not null then field := 'deletes'; return next; return; end if;
    end if;
    rule := memory_id_problem(d ->> 'id');
    if rule is not null then field := 'id'; return next; return; end if;
    if jsonb_typeof(d -> 'approved') is distinct from 'boolean' then field := 'approved'; rule := 'must be true or false'; return next; return; end if;
    rule := agent_id_problem(d ->> 'decider');
    if rule is not null then field := 'decider'; return next; return; end if;
end $$;
-- +goose StatementEnd

-- memory_lock locks a memory's row for update and returns it, or nulls where there is none; then its id is locked, so that no other transaction stores or
-- restores it before this one ends.
-- +goose StatementBegin
create function memory_lock(p_id text) returns memories
    language plpgsql
as $$
declare
    v_row memories%rowtype;
begin
    loop
        select * into v_row from memories m where m.id = p_id for update;
        if found then return v_row; end if;
        -- A row that never was: others who insert the id wait for it, and this insert waits for theirs. The namespace is none that a memory can have.
        insert into memories (id, namespace, title, content, created_at, updated_at) values (p_id, ' ', p_id, ' ', now(), now())
        on conflict (id) do nothing;
        if found then
            delete from memories m where m.id = p_id;
            return null;
        end if;
    end loop;
end $$;
-- +goose StatementEnd

-- pending_decide approves or rejects a pending action. Approving a store whose payload is a memory, or a delete of a memory, also does it here, because
-- the peers do: "produced" is that entry, which peers get after the decision. Other actions are only marked; the caller does what they mean. The
-- same decision again appends again (and produces the memory as it is now), but does nothing a second time.
-- +goose StatementBegin
create function pending_decide(p_id text, p_approved boolean, p_decider text, out entry bigint, out produced bigint)
    language plpgsql
as $$
declare
    v_found     record;
    v_pending   pending_actions%rowtype;
    v_decision  jsonb := jsonb_build_object('id', p_id, 'approved', p_approved, 'decider', p_decider);
    v_repeated  boolean;
    v_action    text; -- store or delete, where it is done here
    v_memory_id text;
    v_memory    memories%rowtype;
    v_live      boolean := false;
    v_lane      smallint;
    v_after     record;
begin
    select field, rule into v_found from decision_problem(v_decision) limit 1;
    if found then perform outbox_refuse('decision', v_found.field, v_found.rule); end if;
    select * into v_pending from pending_actions a where a.id = p_id for update;
    if not found then perform outbox_missing('id', format('no pending action %s', p_id)); end if;
    v_repeated := v_pending.status <> 'pending';
    if v_repeated and (v_pending.status, v_pending.decided_by) is distinct from (case when p_approved then 'approved' else 'rejected' end, p_decider) then
        perform outbox_reject('pending_decided', format('pending action %s is decided otherwise', p_id));
    end if;
    if not v_repeated then
        update pending_actions a set status = case when p_approved then 'approved' else 'rejected' end, decided_by = p_decider,
            decided_at = clock_timestamp()
        where a.id = p_id;
    end if;

    if p_approved and v_pending.action_type = 'store' and not exists (select from memory_problem(v_pending.payload)) then
        v_action := 'store';
        v_memory_id := v_pending.payload ->> 'id';
    elsif p_approved and v_pending.action_type = 'delete' and v_pending.memory_id is not null then
        v_action := 'delete';
        v_memory_id := v_pending.memory_id;
    end if;
    if v_action is not null then
        v_memory := memory_lock(v_memory_id);
        v_live := v_memory.id is not null;
    end if;

    -- The peers do it when they get the decision, so it comes after what has happened to the memory, and a delete after what uses the memory.
    v_lane := outbox_lane(v_pending.namespace);
    select d.lanes, d.entries into v_after
    from (
        select array_agg(a.lane) as lanes, array_agg(a.entry) as entries
        from (
            select l.lane, outbox_newest(l.lane) as entry
            from (
                select outbox_lane(v_memory.namespace) as lane where v_live
                union
                select outbox_lane(v_pending.payload ->> 'namespace') where v_action = 'store'
            ) l
            union all
            select t.lane, t.entry from tombstones t where t.id = v_memory_id
            union all
            select u.lane, u.entry from memory_uses u where u.memory_id = v_memory_id and v_action = 'delete'
        ) a
    ) a
    cross join lateral outbox_dependencies(v_lane, a.lanes, a.entries) d;
    -- What the peers delete with it is for the push builder alone, which must not send again what the memory had before.
    if v_action = 'delete' and not v_repeated then v_decision := v_decision || jsonb_build_object('deletes', v_memory_id); end if;
    entry := outbox_log(v_lane, v_pending.namespace, 'decision', p_id, v_decision::json, v_after.lanes, v_after.entries);

    if v_action = 'store' and not v_repeated then
        produced := memory_store(v_pending.payload);
    elsif v_action = 'store' and v_live then
        produced := outbox_log(outbox_lane(v_memory.namespace), v_memory.namespace, 'store', v_memory_id, memory_json(v_memory)::json);
    elsif v_action = 'delete' and (not v_repeated or not v_live) then
        produced := (memory_delete(v_memory_id)).entry;
        -- Nothing to delete here, but a peer deletes what it has: a store or restore of that id must not reach it before the decision.
        if not v_live and not v_repeated then perform memory_bury(v_memory_id, v_lane, entry); end if;
    end if;
    if produced > entry then perform outbox_put_after(produced, v_lane, entry); end if;
end $$;
-- +goose StatementEnd

-- outbox_put_after makes an entry of this transaction come after an earlier one of this transaction, too. What the entry waits for already in that one's lane
-- is either older and was visible when that one was appended, or of this transaction as well, so the larger id is the later one. (The newest of the lane
-- may be younger than the entry by now, and entries that wait for younger ones could wait in a circle.)
-- +goose StatementBegin
create function outbox_put_after(p_entry bigint, p_after_lane smallint, p_after_entry bigint) returns void
    language plpgsql
as $$
declare
    v_waiting undispatched%rowtype;
begin
    select u.* into v_waiting from outbox o join undispatched u on u.lane = o.lane and u.entry = o.id where o.id = p_entry;
    if v_waiting.lane = p_after_lane then return; end if; -- order within a lane is kept anyway
    update undispatched u set (after_lanes, after_entries) = (
        select array_agg(a.lane order by a.lane), array_agg(a.entry order by a.lane)
        from (
            select w.lane, max(w.entry) as entry
            from unnest(v_waiting.after_lanes || p_after_lane, v_waiting.after_entries || p_after_entry) w (lane, entry)
            group by w.lane
        ) a)
    where u.lane = v_waiting.lane and u.entry = p_entry;
end $$;
-- +goose StatementEnd

-- +goose Down
drop function outbox_put_after, pending_decide, memory_lock, decision_problem, pending_put, pending_json, pending_problem, source_ids_problem,
    memory_consolidate;
