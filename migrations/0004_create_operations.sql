-- The writers of archive and restore, links and namespace standards. Each changes its domain tables and appends its entry in the caller's transaction,
-- and returns the entry's id.
--
-- What an entry needs at the peers may be in another lane: a link needs its target, a standard its memory. Such an entry comes after the newest
-- entry of that lane, asked when the memory's row is locked (for key share), and leaves its id in memory_uses, so that the entry that takes
-- the memory away comes after it.

-- +goose Up

-- A row of memories in wire form.
-- +goose StatementBegin
create function memory_json(m memories) returns jsonb
    language sql stable parallel safe
as $$
    select jsonb_build_object('id', m.id, 'namespace', m.namespace, 'title', m.title, 'tier', m.tier, 'content', m.content, 'tags', m.tags,
            'priority', m.priority, 'confidence', m.confidence, 'source', m.source, 'access_count', m.access_count, 'metadata', m.metadata,
            'created_at', memory_time(m.created_at), 'updated_at', memory_time(m.updated_at), 'reflection_depth', m.reflection_depth,
            'memory_kind', m.memory_kind, 'citations', m.citations, 'confidence_source', m.confidence_source, 'version', m.version)
        || coalesce((
            select jsonb_object_agg(o.key, o.value)
            from jsonb_each(jsonb_build_object('last_accessed_at', memory_time(m.last_accessed_at), 'expires_at', memory_time(m.expires_at),
                'entity_id', m.entity_id, 'persona_version', m.persona_version, 'source_uri', m.source_uri, 'source_span', m.source_span,
                'confidence_signals', m.confidence_signals, 'confidence_decayed_at', memory_time(m.confidence_decayed_at))) o
            where o.value <> 'null'), '{}')
$$;
-- +goose StatementEnd

-- The rule that an agent's id breaks, or null.
-- +goose StatementBegin
create function agent_id_problem(p_id text) returns text
    language sql immutable parallel safe
as $$
    select case
        when p_id is null or p_id !~ '^[A-Za-z0-9_:@./-]{1,128}$' then 'must be 1 to 128 of the characters A-Z a-z 0-9 _ - : @ . /'
        when position('..' in p_id) > 0 then 'must not contain ".."'
        when starts_with(p_id, '/') then 'must not start with "/"'
    end
$$;
-- +goose StatementEnd

-- Archive and restore ---------------------------------------------------------------------------------------------------------------------

-- memory_archive moves a memory to archived_memories (in place of an older one of that id), with its links and the namespace standard that it is gone,
-- as at the peers. A memory that is archived and not live gives the entry that took it away again; one that never was gives null.
-- +goose StatementBegin
create function memory_archive(p_id text, p_reason text default '') returns bigint
    language plpgsql
as $$
declare
    v_row   memories%rowtype;
    v_lane  smallint;
    v_entry bigint;
begin
    select * into v_row from memories m where m.id = p_id for update;
    if not found then
        select t.entry into v_entry from tombstones t join archived_memories a on a.id = t.id where t.id = p_id;
        return v_entry;
    end if;
    v_lane := outbox_lane(v_row.namespace);
    v_entry := memory_take_away(p_id, v_lane, v_row.namespace, 'archive', memory_json(v_row)::json);
    delete from archived_memories a where a.id = p_id;
    insert into archived_memories select v_row.*, clock_timestamp(), coalesce(p_reason, '');
    delete from memories m where m.id = p_id;
    perform memory_bury(p_id, v_lane, v_entry);
    return v_entry;
end $$;
-- +goose StatementEnd

-- memory_restore makes an archived memory live again, newer than it was and newer than now: the peers stamp it with their own clocks, and what follows
-- must win over that. Links and the standard do not come back.
-- +goose StatementBegin
create function memory_restore(p_id text) returns bigint
    language plpgsql
as $$
declare
    v_archived archived_memories%rowtype;
    v_row      memories%rowtype;
    v_lane     smallint;
    v_after    record;
begin
    perform from memories m where m.id = p_id for update; -- first, as memory_archive does
    if found then perform outbox_reject('memory_live', format('memory %s is live', p_id)); end if;
    select * into v_archived from archived_memories a where a.id = p_id for update;
    if not found then perform outbox_reject('memory_not_archived', format('memory %s is not archived', p_id)); end if;

    v_row := jsonb_populate_record(null::memories, to_jsonb(v_archived));
    v_row.updated_at := greatest(clock_timestamp(), v_row.updated_at + interval '1 microsecond');
    v_row.version := v_row.version + 1;
    insert into memories select v_row.*;
    delete from archived_memories a where a.id = p_id;

    v_lane := outbox_lane(v_row.namespace);
    with buried as (delete from tombstones t where t.id = p_id returning t.lane, t.entry)
    select d.lanes, d.entries into v_after
    from (select array_agg(b.lane) as lanes, array_agg(b.entry) as entries from buried b) b
    cross join lateral outbox_dependencies(v_lane, b.lanes, b.entries) d;
    return outbox_log(v_lane, v_row.namespace, 'restore', p_id, memory_json(v_row)::json, v_after.lanes, v_after.entries);
end $$;
-- +goose StatementEnd

-- Links -----------------------------------------------------------------------------------------------------------------------------------

-- link_problem returns field and rule of the first thing that a receiver would refuse in a link, or no row.
-- +goose StatementBegin
create function link_problem(l jsonb, out field text, out rule text) returns setof record
    language plpgsql stable
as $$
declare
    k text;
begin
    if l is null or jsonb_typeof(l) <> 'object' then
        field := 'link'; rule := 'must be a JSON object'; return next; return;
    end if;
    for k in select key from jsonb_object_keys(l) as j(key) where key <> all (array[
        'source_id', 'target_id', 'relation', 'created_at', 'signature', 'observed_by', 'valid_from', 'valid_until']) loop
        field := k; rule := 'is not a field of a link that a writer sets'; return next; return;
    end loop;
    foreach k in array array['source_id', 'target_id', 'relation'] loop
        if jsonb_typeof(l -> k) is distinct from 'string' then
            field := k; rule := 'is required and must be text'; return next; return;
        end if;
    end loop;
    foreach k in array array['source_id', 'target_id'] loop
        rule := memory_id_problem(l ->> k);
        if rule is not null then field := k; return next; return; end if;
    end loop;
    if l ->> 'source_id' = l ->> 'target_id' then field := 'target_id'; rule := 'must not be the source'; return next; return; end if;
    if l ->> 'relation' not in ('related_to', 'supersedes', 'contradicts', 'derived_from', 'reflects_on', 'derives_from') then
        field := 'relation';
        rule := 'must be one of related_to, supersedes, contradicts, derived_from, reflects_on, derives_from';
        return next; return;
    end if;
    foreach k in array array['created_at', 'valid_from', 'valid_until'] loop
        if l ->> k is not null and (jsonb_typeof(l -> k) <> 'string' or not is_rfc3339(l ->> k)) then
            field := k; rule := 'must be an RFC 3339 time'; return next; return;
        end if;
    end loop;
    if l ->> 'observed_by' is not null then
        rule := agent_id_problem(l ->> 'observed_by');
        if rule is not null then field := 'observed_by'; return next; return; end if;
    end if;
    if l ->> 'signature' is not null then
        if jsonb_typeof(l -> 'signature') <> 'array' or jsonb_array_length(l -> 'signature') <> 64 or exists (
            select from jsonb_array_elements(l -> 'signature') b where jsonb_typeof(b) <> 'number' or b #>> '{}' !~ '^(25[0-5]|2[0-4][0-9]|1?[0-9]?[0-9])$') then
            field := 'signature'; rule := 'must be an array of 64 integers from 0 to 255'; return next; return;
        end if;
        if l ->> 'observed_by' is null then
            field := 'observed_by'; rule := 'is required beside a signature'; return next; return;
        end if;
    end if;
end $$;
-- +goose StatementEnd

-- A link in wire form. attest_level is left out: each receiver finds its own.
-- +goose StatementBegin
create function link_json(l memory_links) returns json
    language sql stable parallel safe
as $$
    select json_strip_nulls(json_build_object('source_id', l.source_id, 'target_id', l.target_id, 'relation', l.relation,
        'created_at', memory_time(l.created_at), 'observed_by', l.observed_by, 'valid_from', l.valid_from, 'valid_until', l.valid_until,
        'signature', case when l.signature is not null then
            (select json_agg(get_byte(l.signature, i) order by i) from generate_series(0, 63) i) end))
$$;
-- +goose StatementEnd

-- outbox_log_use appends an entry that needs a memory of namespace p_of to be there: after everything of that lane, and noted in memory_uses. The caller
-- has locked the memory's row, for key share at least.
-- +goose StatementBegin
create function outbox_log_use(p_id text, p_of text, p_namespace text, p_kind text, p_key text, p_payload json) returns bigint
    language plpgsql
as $$
declare
    v_lane  smallint := outbox_lane(p_namespace);
    v_of    smallint := outbox_lane(p_of);
    v_newest bigint;
    v_entry bigint;
begin
    if v_of = v_lane then return outbox_log(v_lane, p_namespace, p_kind, p_key, p_payload); end if;
    -- The row's lock comes before the entry's id, so that the larger of two ids is the one that is dispatched later.
    insert into memory_uses as u (memory_id, lane, entry) values (p_id, v_lane, 0)
    on conflict (memory_id, lane) do update set entry = u.entry;
    v_newest := outbox_newest(v_of);
    v_entry := outbox_log(v_lane, p_namespace, p_kind, p_key, p_payload,
        case when v_newest is not null then array[v_of] end, case when v_newest is not null then array[v_newest] end);
    update memory_uses u set entry = v_entry where u.memory_id = p_id and u.lane = v_lane;
    return v_entry;
end $$;
-- +goose StatementEnd

-- memory_link links two live memories. A link that is there already stays as it is and is appended again.
-- +goose StatementBegin
create function memory_link(p_link jsonb) returns bigint
    language plpgsql
as $$
declare
    v_found  record;
    v_source text := p_link ->> 'source_id';
    v_target text := p_link ->> 'target_id';
    v_from   text;
    v_to     text;
    v_link   memory_links%rowtype;
begin
    select field, rule into v_found from link_problem(p_link) limit 1;
    if found then perform outbox_refuse('link', v_found.field, v_found.rule); end if;
    for v_found in select m.id, m.namespace from memories m where m.id in (v_source, v_target) order by m.id for key share loop
        if v_found.id = v_source then v_from := v_found.namespace; else v_to := v_found.namespace; end if;
    end loop;
    if v_from is null then perform outbox_missing('source_id', format('no memory %s to link from', v_source)); end if;
    if v_to is null then perform outbox_missing('target_id', format('no memory %s to link to', v_target)); end if;
    -- Receivers refuse a circle. Two transactions that close one together are not seen here.
    if p_link ->> 'relation' = 'reflects_on' and exists (
        with recursive reached (id) as (
            select v_target
            union
            select l.target_id from reached r join memory_links l on l.source_id = r.id and l.relation = 'reflects_on'
        )
        select from reached r where r.id = v_source) then
        perform outbox_refuse('link', 'relation', 'reflects_on must not lead back to the source');
    end if;

    insert into memory_links (source_id, target_id, relation, created_at, signature, observed_by, valid_from, valid_until)
    values (v_source, v_target, p_link ->> 'relation', coalesce((p_link ->> 'created_at')::timestamptz, clock_timestamp()),
        case when p_link ->> 'signature' is not null then
            (select decode(string_agg(lpad(to_hex(b::integer), 2, '0'), '' order by i), 'hex')
             from jsonb_array_elements_text(p_link -> 'signature') with ordinality s (b, i)) end,
        p_link ->> 'observed_by', p_link ->> 'valid_from', p_link ->> 'valid_until')
    on conflict (source_id, target_id, relation) do nothing;
    select * into v_link from memory_links l
    where l.source_id = v_source and l.target_id = v_target and l.relation = p_link ->> 'relation';
    return outbox_log_use(v_target, v_to, v_from, 'link', v_source || v_target, link_json(v_link));
end $$;
-- +goose StatementEnd

-- Namespace standards ---------------------------------------------------------------------------------------------------------------------

-- The entry of a namespace's standard in wire form.
-- +goose StatementBegin
create function namespace_json(n namespace_meta) returns json
    language sql stable parallel safe
as $$
    select json_strip_nulls(json_build_object('namespace', n.namespace, 'standard_id', n.standard_id, 'parent_namespace', n.parent_namespace,
        'updated_at', memory_time(n.updated_at)))
$$;
-- +goose StatementEnd

-- namespace_entry_problem returns field and rule of the first thing that a receiver would refuse in a namespace's standard, or no row.
-- +goose StatementBegin
create function namespace_entry_problem(n jsonb, out field text, out rule text) returns setof record
    language plpgsql stable
as $$
declare
    k text;
begin
    if n is null or jsonb_typeof(n) <> 'object' then
        field := 'namespace_meta'; rule := 'must be a JSON object'; return next; return;
    end if;
    for k in select key from jsonb_object_keys(n) as j(key) where key <> all (array['namespace', 'standard_id', 'parent_namespace', 'updated_at']) loop
        field := k; rule := 'is not a field of a namespace''s standard'; return next; return;
    end loop;
    rule := namespace_problem(n ->> 'namespace');
    if rule is not null then field := 'namespace'; return next; return; end if;
    rule := memory_id_problem(n ->> 'standard_id');
    if rule is not null then field := 'standard_id'; return next; return; end if;
    if n ->> 'parent_namespace' is not null then
        rule := namespace_problem(n ->> 'parent_namespace');
        if n ->> 'parent_namespace' = n ->> 'namespace' then rule := 'must be another namespace'; end if;
        if rule is not null then field := 'parent_namespace'; return next; return; end if;
    end if;
    if n ->> 'updated_at' is not null and not is_rfc3339(n ->> 'updated_at') then
        field := 'updated_at'; rule := 'must be an RFC 3339 time'; return next; return;
    end if;
end $$;
-- +goose StatementEnd

-- namespace_lock lets one transaction at a time set or clear the standard of a namespace: a clear of what is not set has no row to lock, and yet its
-- entry must be in commit order.
-- +goose StatementBegin
create function namespace_lock(p_namespace text) returns void
    language sql
as $$ select pg_advisory_xact_lock(1903521651, ('x' || left(md5(p_namespace), 8))::bit(32)::integer) $$;
-- +goose StatementEnd

-- namespace_set makes a live memory the standard of a namespace.
-- +goose StatementBegin
create function namespace_set(p_entry jsonb) returns bigint
    language plpgsql
as $$
declare
    v_found record;
    v_row   namespace_meta%rowtype;
    v_of    text;
begin
    select field, rule into v_found from namespace_entry_problem(p_entry) limit 1;
    if found then perform outbox_refuse('namespace standard', v_found.field, v_found.rule); end if;
    select m.namespace into v_of from memories m where m.id = p_entry ->> 'standard_id' for key share;
    if not found then
        perform outbox_missing('standard_id', format('no memory %s to be the standard', p_entry ->> 'standard_id'));
    end if;
    perform namespace_lock(p_entry ->> 'namespace');
    insert into namespace_meta as n (namespace, standard_id, parent_namespace, updated_at)
    values (p_entry ->> 'namespace', p_entry ->> 'standard_id', p_entry ->> 'parent_namespace',
        coalesce((p_entry ->> 'updated_at')::timestamptz, clock_timestamp()))
    on conflict (namespace) do update set standard_id = excluded.standard_id, parent_namespace = excluded.parent_namespace,
        updated_at = excluded.updated_at
    returning * into v_row;
    return outbox_log_use(v_row.standard_id, v_of, v_row.namespace, 'namespace_set', v_row.namespace, namespace_json(v_row));
end $$;
-- +goose StatementEnd

-- namespace_clear takes the standard of a namespace away. Clearing what is not set is an entry all the same.
-- +goose StatementBegin
create function namespace_clear(p_namespace text) returns bigint
    language plpgsql
as $$
declare
    v_problem text := namespace_problem(p_namespace);
begin
    if v_problem is not null then perform outbox_refuse('namespace standard', 'namespace', v_problem); end if;
    perform namespace_lock(p_namespace);
    delete from namespace_meta n where n.namespace = p_namespace;
    return outbox_log(outbox_lane(p_namespace), p_namespace, 'namespace_clear', p_namespace, null);
end $$;
-- +goose StatementEnd

-- memory_resend_uses appends again what the peers lost by a rename or move: their delete of the row took its links and the namespace standard that it is
-- along, by cascade, and the store that follows does not bring them back (the protocol has no rename). The caller has locked the memory's row for update, so none is
-- added meanwhile; the other ends are locked here, so that none is deleted.
-- +goose StatementBegin
create function memory_resend_uses(p_id text) returns void
    language plpgsql
as $$
declare
    v_link memory_links%rowtype;
    v_row  namespace_meta%rowtype;
    v_from text;
    v_to   text;
begin
    perform from memories m
    where m.id <> p_id
      and m.id in (select l.target_id from memory_links l where l.source_id = p_id union select l.source_id from memory_links l where l.target_id = p_id)
    order by m.id for key share;
    for v_link in
        select * from memory_links l where l.source_id = p_id
        union all
        select * from memory_links l where l.target_id = p_id
    loop
        select m.namespace into v_from from memories m where m.id = v_link.source_id;
        select m.namespace into v_to from memories m where m.id = v_link.target_id;
        perform outbox_log_use(v_link.target_id, v_to, v_from, 'link', v_link.source_id || v_link.target_id, link_json(v_link));
    end loop;
    select m.namespace into v_to from memories m where m.id = p_id;
    for v_row in select * from namespace_meta n where n.standard_id = p_id order by n.namespace for update loop
        perform outbox_log_use(p_id, v_to, v_row.namespace, 'namespace_set', v_row.namespace, namespace_json(v_row));
    end loop;
end $$;
-- +goose StatementEnd

-- +goose Down
drop function memory_resend_uses, namespace_clear, namespace_set, namespace_lock, namespace_entry_problem, namespace_json, memory_link, outbox_log_use,
    link_json, link_problem, memory_restore, memory_archive, agent_id_problem, memory_json;
