-- What writers call, in any language: memory_store and memory_delete, and what all writers share. The Go package "outbox" calls the same functions.

-- +goose Up

-- The lane of a namespace: the first five bits of the SHA-256 of its UTF-8 text (the database's encoding), the same on every server version.
-- +goose StatementBegin
create function outbox_lane(p_namespace text) returns smallint
    language sql stable parallel safe
as $$ select (get_byte(sha256(convert_to(p_namespace, 'UTF8')), 0) & 31)::smallint $$;
-- +goose StatementEnd

-- Time as the protocol writes it: UTC, six fraction digits, +00:00, so that text order is time order.
-- +goose StatementBegin
create function memory_time(p_at timestamptz) returns text
    language sql stable parallel safe
as $$ select to_char(p_at at time zone 'UTC', 'YYYY-MM-DD"T"HH24:MI:SS.US"+00:00"') $$;
-- +goose StatementEnd

-- A refusal that names field and rule, as SQLSTATE 23514 (check_violation) with the field as column name.
-- +goose StatementBegin
create function outbox_refuse(p_subject text, p_field text, p_rule text) returns void
    language plpgsql
as $$
begin
    raise exception '%: %: %', p_subject, p_field, p_rule using errcode = 'check_violation', column = p_field;
end $$;
-- +goose StatementEnd

-- The newest entry of a lane that this statement can see, in the order in which the relay dispatches: the largest that waits, else the last of the
-- newest batch; null where the lane has none. "After this one" is after everything of the lane that is visible: what an entry waits for that needs a
-- memory of the lane. Ask when the memory's row is locked, so that the memory's own entry is visible. One statement, because an entry that is
-- dispatched between two would be missed by both. The transaction's own entries may have smaller ids and be dispatched later; the relay takes "after x" as
-- after all of the lane up to x that is visible when the entry that waits is.
-- +goose StatementBegin
create function outbox_newest(p_lane smallint) returns bigint
    language plpgsql stable
as $$
begin
    return coalesce(
        (select u.entry from undispatched u where u.lane = p_lane order by u.entry desc limit 1),
        (select b.last_entry from batches b where b.lane = p_lane order by b.number desc limit 1));
end $$;
-- +goose StatementEnd

-- The dependencies of an entry of lane p_lane, as undispatched keeps them, from a list in any order: without its own lane, whose order is kept
-- anyway, and without nulls. Where the list names several entries of a lane, the largest need not be the last to be dispatched (ids commit out of
-- order), so it becomes the newest of the lane.
-- +goose StatementBegin
create function outbox_dependencies(p_lane smallint, inout lanes smallint[], inout entries bigint[])
    language plpgsql stable
as $$
begin
    if lanes is null then return; end if;
    select array_agg(d.lane order by d.lane), array_agg(d.entry order by d.lane) into lanes, entries
    from (
        select u.lane, case when min(u.entry) = max(u.entry) then min(u.entry) else outbox_newest(u.lane) end as entry
        from unnest(lanes, entries) u (lane, entry)
        where u.lane <> p_lane and u.entry is not null
        group by u.lane
    ) d;
end $$;
-- +goose StatementEnd

-- A refusal because of what the store has, as SQLSTATE 55000 (object_not_in_prerequisite_state) with the condition as constraint name.
-- +goose StatementBegin
create function outbox_reject(p_condition text, p_message text) returns void
    language plpgsql
as $$
begin
    raise exception '%', p_message using errcode = 'object_not_in_prerequisite_state', constraint = p_condition;
end $$;
-- +goose StatementEnd

-- A refusal because something is not there, as SQLSTATE P0002 (no_data_found) with the field that names it as column name.
-- +goose StatementBegin
create function outbox_missing(p_field text, p_message text) returns void
    language plpgsql
as $$
begin
    raise exception '%', p_message using errcode = 'no_data_found', column = p_field;
end $$;
-- +goose StatementEnd

-- outbox_log writes one entry without looking at it. p_after_lanes and p_after_entries are as outbox_dependencies returns them.
-- +goose StatementBegin
create function outbox_log(
    p_lane smallint, p_namespace text, p_kind text, p_key text, p_payload json, p_after_lanes smallint[] default null,
    p_after_entries bigint[] default null, p_embedding json default null)
    returns bigint language plpgsql
as $$
declare
    v_id bigint;
begin
    insert into outbox (lane, namespace, kind, key, payload, embedding)
    values (p_lane, p_namespace, p_kind, p_key, p_payload, p_embedding)
    returning id into v_id;

    insert into undispatched (lane, entry, bytes, after_lanes, after_entries)
    values (p_lane, v_id,
        coalesce(octet_length(p_payload::text), 0) + coalesce(octet_length(p_embedding::text), 0) + octet_length(p_key) + 16,
        p_after_lanes, p_after_entries);
    return v_id;
end $$;
-- +goose StatementEnd

-- Whether a text is a time as RFC 3339 writes it.
-- +goose StatementBegin
create function is_rfc3339(p_text text) returns boolean
    language plpgsql stable strict parallel unsafe
as $$
begin
    if p_text !~ '^[0-9]{4}-[0-9]{2}-[0-9]{2}[Tt][0-9]{2}:[0-9]{2}:[0-9]{2}(\.[0-9]+)?([Zz]|[+-][0-9]{2}:[0-9]{2})$' then return false; end if;
    perform p_text::timestamptz;
    return true;
exception when data_exception then
    return false;
end $$;
-- +goose StatementEnd

-- Control characters other than line feed and tab are refused by every receiver.
-- +goose StatementBegin
create function outbox_has_control(p_text text) returns boolean
    language sql immutable strict parallel safe
as $$ select p_text ~ '[\u0001-\u0008\u000b-\u001f\u007f-\u009f]' $$;
-- +goose StatementEnd

-- The rule that a namespace breaks, or null.
-- +goose StatementBegin
create function namespace_problem(p_namespace text) returns text
    language sql immutable parallel safe
as $$
    select case
        when p_namespace is null or p_namespace = '' then 'must not be empty'
        when char_length(p_namespace) > 512 then 'must have at most 512 characters'
        when p_namespace ~ '[\s\\]' or outbox_has_control(p_namespace) then 'must have no blank, backslash or control character'
        when cardinality(string_to_array(p_namespace, '/')) > 8 then 'must have at most 8 segments'
        when string_to_array(p_namespace, '/') && array['', '.', '..'] then 'must have no empty segment, "." or ".."'
    end
$$;
-- +goose StatementEnd

-- The rule that an id breaks, or null.
-- +goose StatementBegin
create function memory_id_problem(p_id text) returns text
    language sql immutable parallel safe
as $$
    select case
        when p_id is null or p_id !~ '^[A-Za-z0-9_:.@-]{1,128}$' then 'must be 1 to 128 of the characters A-Z a-z 0-9 _ : . @ -'
        when position('..' in p_id) > 0 then 'must not contain ".."'
    end
$$;
-- +goose StatementEnd

-- memory_problem returns field and rule of the first thing that a receiver would refuse in a memory, or no row.
-- +goose StatementBegin
create function memory_problem(m jsonb, out field text, out rule text) returns setof record
    language plpgsql stable
as $$
declare
    v text;
    k text;
    t text;
begin
    if m is null or jsonb_typeof(m) <> 'object' then
        field := 'memory'; rule := 'must be a JSON object'; return next; return;
    end if;
    foreach k in array array['id', 'tier', 'namespace', 'title', 'content', 'source'] loop
        if jsonb_typeof(m -> k) is distinct from 'string' then
            field := k; rule := 'is required and must be text'; return next; return;
        end if;
    end loop;
    for k in select key from jsonb_object_keys(m) as j(key) where key <> all (array[
        'id', 'tier', 'namespace', 'title', 'content', 'tags', 'priority', 'confidence', 'source', 'access_count', 'created_at',
        'updated_at', 'last_accessed_at', 'expires_at', 'entity_id', 'persona_version', 'source_uri', 'source_span',
        'confidence_signals', 'confidence_decayed_at', 'metadata', 'reflection_depth', 'memory_kind', 'citations',
        'confidence_source', 'version']) loop
        field := k; rule := 'is not a field of a memory'; return next; return;
    end loop;

    v := memory_id_problem(m ->> 'id');
    if v is not null then field := 'id'; rule := v; return next; return; end if;
    v := namespace_problem(m ->> 'namespace');
    if v is not null then field := 'namespace'; rule := v; return next; return; end if;

    v := m ->> 'title';
    if btrim(v, E' \t\n\r') = '' then field := 'title'; rule := 'must not be empty'; return next; return; end if;
    if char_length(v) > 512 then field := 'title'; rule := 'must have at most 512 characters'; return next; return; end if;
    if outbox_has_control(v) then field := 'title'; rule := 'must have no control character but line feed and tab'; return next; return; end if;
    v := m ->> 'content';
    if btrim(v, E' \t\n\r') = '' then field := 'content'; rule := 'must not be empty'; return next; return; end if;
    if octet_length(v) > 65536 then field := 'content'; rule := 'must have at most 65536 bytes'; return next; return; end if;
    if outbox_has_control(v) then field := 'content'; rule := 'must have no control character but line feed and tab'; return next; return; end if;

    if m ->> 'tier' not in ('short', 'mid', 'long') then field := 'tier'; rule := 'must be short, mid or long'; return next; return; end if;
    if m ->> 'source' not in ('user', 'nhi', 'claude', 'hook', 'api', 'cli', 'import', 'consolidation', 'system', 'chaos', 'notify') then
        field := 'source';
        rule := 'must be one of user, nhi, claude, hook, api, cli, import, consolidation, system, chaos, notify';
        return next; return;
    end if;
    if coalesce(m ->> 'memory_kind', 'observation') not in ('observation', 'reflection', 'persona', 'concept', 'entity', 'claim',
        'relation', 'event', 'conversation', 'decision') then
        field := 'memory_kind'; rule := 'is not a known kind of memory'; return next; return;
    end if;
    if coalesce(m ->> 'confidence_source', 'caller_provided') not in ('caller_provided', 'auto_derived', 'calibrated', 'decayed', 'curator_derived') then
        field := 'confidence_source'; rule := 'is not a known source of confidence'; return next; return;
    end if;

    foreach k in array array['priority', 'access_count', 'persona_version', 'reflection_depth', 'version'] loop
        if m -> k is not null and m -> k <> 'null' and (jsonb_typeof(m -> k) <> 'number' or m ->> k !~ '^-?[0-9]{1,18}$') then
            field := k; rule := 'must be an integer'; return next; return;
        end if;
    end loop;
    if (m ->> 'priority')::bigint not between 1 and 10 then field := 'priority'; rule := 'must be 1 to 10'; return next; return; end if;
    if (m ->> 'access_count')::bigint < 0 then field := 'access_count'; rule := 'must not be negative'; return next; return; end if;
    if (m ->> 'version')::bigint < 1 then field := 'version'; rule := 'must be at least 1'; return next; return; end if;
    if (m ->> 'reflection_depth')::bigint not between 0 and 2147483647 then
        field := 'reflection_depth'; rule := 'must be 0 to 2147483647'; return next; return;
    end if;
    if (m ->> 'persona_version')::bigint not between -2147483648 and 2147483647 then
        field := 'persona_version'; rule := 'must fit in 32 bits'; return next; return;
    end if;
    if m -> 'confidence' is not null and m -> 'confidence' <> 'null' and
        (jsonb_typeof(m -> 'confidence') <> 'number' or (m ->> 'confidence')::numeric not between 0 and 1) then
        field := 'confidence'; rule := 'must be a number from 0 to 1'; return next; return;
    end if;

    foreach k in array array['created_at', 'updated_at', 'last_accessed_at', 'expires_at', 'confidence_decayed_at'] loop
        t := m ->> k;
        if t is null then continue; end if;
        if not is_rfc3339(t) then field := k; rule := 'must be an RFC 3339 time'; return next; return; end if;
    end loop;

    if m -> 'tags' is not null and m -> 'tags' <> 'null' then
        if jsonb_typeof(m -> 'tags') <> 'array' then field := 'tags'; rule := 'must be an array of text'; return next; return; end if;
        if jsonb_array_length(m -> 'tags') > 50 then field := 'tags'; rule := 'must be at most 50'; return next; return; end if;
        if exists (select from jsonb_array_elements(m -> 'tags') e
                   where jsonb_typeof(e) <> 'string' or btrim(e #>> '{}') = '' or octet_length(e #>> '{}') > 128
                      or outbox_has_control(e #>> '{}')) then
            field := 'tags'; rule := 'each must be text of 1 to 128 bytes without control characters'; return next; return;
        end if;
    end if;
    if m -> 'metadata' is not null and m -> 'metadata' <> 'null' then
        if jsonb_typeof(m -> 'metadata') <> 'object' then field := 'metadata'; rule := 'must be a JSON object'; return next; return; end if;
        if octet_length((m -> 'metadata')::text) > 65536 then
            field := 'metadata'; rule := 'must have at most 65536 bytes'; return next; return;
        end if;
        if memory_json_depth(m -> 'metadata') > 32 then
            field := 'metadata'; rule := 'must nest at most 32 deep'; return next; return;
        end if;
    end if;
    if m -> 'citations' is not null and m -> 'citations' <> 'null' then
        if jsonb_typeof(m -> 'citations') <> 'array' or jsonb_array_length(m -> 'citations') > 64 then
            field := 'citations'; rule := 'must be an array of at most 64'; return next; return;
        end if;
        if exists (select from jsonb_array_elements(m -> 'citations') e
                   where jsonb_typeof(e) <> 'object' or jsonb_typeof(e -> 'uri') is distinct from 'string' or e ->> 'uri' = ''
                      or jsonb_typeof(e -> 'accessed_at') is distinct from 'string' or e ->> 'accessed_at' = '') then
            field := 'citations'; rule := 'each must be an object with uri and accessed_at'; return next; return;
        end if;
    end if;
    t := m ->> 'source_uri';
    if t is not null and (jsonb_typeof(m -> 'source_uri') <> 'string' or t !~ '^(uri|doc|file):' or char_length(t) > 4096) then
        field := 'source_uri'; rule := 'must start with uri:, doc: or file: and have at most 4096 characters'; return next; return;
    end if;
    if jsonb_typeof(m -> 'source_span') not in ('null', 'object') or (jsonb_typeof(m -> 'source_span') = 'object' and
        (coalesce(m -> 'source_span' ->> 'start', '') !~ '^[0-9]{1,18}$' or coalesce(m -> 'source_span' ->> 'end', '') !~ '^[0-9]{1,18}$')) then
        field := 'source_span'; rule := 'must be an object with the integers start and end'; return next; return;
    end if;
    if jsonb_typeof(m -> 'confidence_signals') not in ('null', 'object') then
        field := 'confidence_signals'; rule := 'must be a JSON object'; return next; return;
    end if;
    if jsonb_typeof(m -> 'entity_id') not in ('null', 'string') then
        field := 'entity_id'; rule := 'must be text'; return next; return;
    end if;
end $$;
-- +goose StatementEnd

-- How deep a JSON value nests: a scalar is 0, {} is 1.
-- +goose StatementBegin
create function memory_json_depth(j jsonb) returns integer
    language sql immutable strict parallel safe
as $$
    with recursive nodes (node, depth) as (
        select j, case when jsonb_typeof(j) in ('object', 'array') then 1 else 0 end
        union all
        select c.child, n.depth + case when jsonb_typeof(c.child) in ('object', 'array') then 1 else 0 end
        from nodes n
        cross join lateral (
            select value as child from jsonb_each(case when jsonb_typeof(n.node) = 'object' then n.node else '{}' end)
            union all
            select value from jsonb_array_elements(case when jsonb_typeof(n.node) = 'array' then n.node else '[]' end)
        ) c
        where n.depth <= 64 and jsonb_typeof(n.node) in ('object', 'array')
    )
    select max(depth) from nodes
$$;
-- +goose StatementEnd

-- memory_wire completes a checked memory to what is sent: defaults filled in, null fields left out, times in the protocol's form.
-- +goose StatementBegin
create function memory_wire(m jsonb, p_now timestamptz) returns jsonb
    language plpgsql stable
as $$
declare
    k text;
begin
    for k in select key from jsonb_each(m) where value = 'null' loop
        m := m - k;
    end loop;
    m := jsonb_build_object('tags', '[]'::jsonb, 'priority', 5, 'confidence', 1.0, 'access_count', 0, 'metadata', '{}'::jsonb,
        'reflection_depth', 0, 'memory_kind', 'observation', 'citations', '[]'::jsonb, 'confidence_source', 'caller_provided',
        'version', 1, 'created_at', memory_time(p_now), 'updated_at', memory_time(p_now)) || m;
    foreach k in array array['created_at', 'updated_at', 'last_accessed_at', 'expires_at', 'confidence_decayed_at'] loop
        if m ? k then m := jsonb_set(m, array[k], to_jsonb(memory_time((m ->> k)::timestamptz))); end if;
    end loop;
    return m;
end $$;
-- +goose StatementEnd

-- memory_write inserts or updates one memory that was checked before, and appends what its peers need: a store, or, where title or namespace
-- changed, a delete and a store (peers key memories by title and namespace and skip a rename).
-- p_body is the memory's JSON object without created_at, updated_at and version, which are decided here under the row's lock:
-- created_at never changes, updated_at always grows when something else changes (peers keep the row whose updated_at is larger).
-- +goose StatementBegin
create function memory_write(
    p_id text, p_namespace text, p_title text, p_tier text, p_content text, p_tags text[], p_priority integer, p_confidence double precision,
    p_source text, p_access_count bigint, p_created_at timestamptz, p_updated_at timestamptz, p_last_accessed_at timestamptz,
    p_expires_at timestamptz, p_entity_id text, p_persona_version integer, p_source_uri text, p_source_span jsonb,
    p_confidence_signals jsonb, p_confidence_decayed_at timestamptz, p_metadata jsonb, p_reflection_depth integer, p_memory_kind text,
    p_citations jsonb, p_confidence_source text, p_body text, p_model text default null, p_vector real[] default null,
    out entry bigint, out action text)
    language plpgsql
as $$
declare
    v_old         memories%rowtype;
    v_same        boolean;
    v_lane        smallint := outbox_lane(p_namespace);
    v_now         timestamptz := clock_timestamp();
    v_created_at  timestamptz := coalesce(p_created_at, p_updated_at, v_now);
    v_updated_at  timestamptz := coalesce(p_updated_at, greatest(v_now, v_created_at));
    v_version     bigint := 1;
    v_embedding   json;
    v_old_lane    smallint;
    v_delete      bigint;
begin
    if p_vector is not null then v_embedding := embedding_wire(p_id, p_model, p_vector); end if;
    loop
        insert into memories (id, namespace, title, tier, content, tags, priority, confidence, source, access_count, created_at,
            updated_at, last_accessed_at, expires_at, entity_id, persona_version, source_uri, source_span, confidence_signals,
            confidence_decayed_at, metadata, reflection_depth, memory_kind, citations, confidence_source, version)
        values (p_id, p_namespace, p_title, p_tier, p_content, p_tags, p_priority, p_confidence, p_source, p_access_count, v_created_at,
            v_updated_at, p_last_accessed_at, p_expires_at, p_entity_id, p_persona_version, p_source_uri, p_source_span,
            p_confidence_signals, p_confidence_decayed_at, p_metadata, p_reflection_depth, p_memory_kind, p_citations,
            p_confidence_source, v_version)
        on conflict (id) do nothing;
        if found then
            -- The row is locked, and a delete of the same id that the insert waited for is visible by now. One statement for the rest, because it
            -- costs much less than three.
            with buried as (
                delete from tombstones t where t.id = p_id returning t.lane, t.entry
            ), logged as (
                insert into outbox (lane, namespace, kind, key, payload, embedding)
                values (v_lane, p_namespace, 'store', p_id,
                    (left(p_body, -1) || ',"created_at":"' || memory_time(v_created_at) || '","updated_at":"' || memory_time(v_updated_at)
                        || '","version":' || v_version || '}')::json, v_embedding)
                returning id, octet_length(payload::text) + coalesce(octet_length(embedding::text), 0) + octet_length(key) + 16 as bytes
            )
            insert into undispatched as u (lane, entry, bytes, after_lanes, after_entries)
            select v_lane, logged.id, logged.bytes,
                   case when buried.lane is not null then array[buried.lane] end, case when buried.lane is not null then array[buried.entry] end
            from logged
            left join buried on buried.lane <> v_lane -- order within a lane is kept anyway
            returning u.entry into memory_write.entry;
            if p_vector is not null then
                insert into memory_embeddings (memory_id, model, dim, vector) values (p_id, p_model, cardinality(p_vector), p_vector);
            end if;
            action := 'inserted';
            return;
        end if;
        select * into v_old from memories m where m.id = p_id for update;
        exit when found;
        -- Deleted meanwhile by another transaction: it is an insert after all.
    end loop;

    if v_old.metadata ? 'agent_id' and v_old.metadata -> 'agent_id' is distinct from p_metadata -> 'agent_id' then
        perform outbox_refuse('memory', 'metadata.agent_id', 'must stay what it was when the memory was first stored');
    end if;
    v_same := (v_old.namespace, v_old.title, v_old.tier, v_old.content, v_old.tags, v_old.priority, v_old.confidence, v_old.source,
        v_old.access_count, v_old.last_accessed_at, v_old.expires_at, v_old.entity_id, v_old.persona_version, v_old.source_uri,
        v_old.source_span, v_old.confidence_signals, v_old.confidence_decayed_at, v_old.metadata, v_old.reflection_depth,
        v_old.memory_kind, v_old.citations, v_old.confidence_source)
        is not distinct from
        (p_namespace, p_title, p_tier, p_content, p_tags, p_priority, p_confidence, p_source, p_access_count, p_last_accessed_at,
        p_expires_at, p_entity_id, p_persona_version, p_source_uri, p_source_span, p_confidence_signals, p_confidence_decayed_at,
        p_metadata, p_reflection_depth, p_memory_kind, p_citations, p_confidence_source);
    v_created_at := v_old.created_at;
    if v_same then
        action := 'unchanged';
        v_updated_at := greatest(coalesce(p_updated_at, v_old.updated_at), v_old.updated_at);
        v_version := v_old.version;
    else
        action := 'updated';
        v_updated_at := greatest(coalesce(p_updated_at, v_now), v_old.updated_at + interval '1 microsecond');
        v_version := v_old.version + 1;
    end if;
    update memories m set
        namespace = p_namespace, title = p_title, tier = p_tier, content = p_content, tags = p_tags, priority = p_priority,
        confidence = p_confidence, source = p_source, access_count = p_access_count, updated_at = v_updated_at,
        last_accessed_at = p_last_accessed_at, expires_at = p_expires_at, entity_id = p_entity_id, persona_version = p_persona_version,
        source_uri = p_source_uri, source_span = p_source_span, confidence_signals = p_confidence_signals,
        confidence_decayed_at = p_confidence_decayed_at, metadata = p_metadata, reflection_depth = p_reflection_depth,
        memory_kind = p_memory_kind, citations = p_citations, confidence_source = p_confidence_source, version = v_version
    where m.id = p_id;

    if p_vector is not null then
        insert into memory_embeddings (memory_id, model, dim, vector) values (p_id, p_model, cardinality(p_vector), p_vector)
        on conflict (memory_id) do update set model = excluded.model, dim = excluded.dim, vector = excluded.vector, updated_at = now();
    elsif v_old.content is distinct from p_content then
        delete from memory_embeddings e where e.memory_id = p_id; -- it was made from the old content
    end if;

    if (v_old.namespace, v_old.title) is distinct from (p_namespace, p_title) then
        action := 'moved';
        v_old_lane := outbox_lane(v_old.namespace);
        v_delete := memory_take_away(p_id, v_old_lane, v_old.namespace, 'delete', json_build_object('title', v_old.title));
        if p_vector is null then -- the peers lose it with the row
            select embedding_wire(e.memory_id, e.model, e.vector) into v_embedding from memory_embeddings e where e.memory_id = p_id;
        end if;
    end if;
    entry := outbox_log(v_lane, p_namespace, 'store', p_id,
        (left(p_body, -1) || ',"created_at":"' || memory_time(v_created_at) || '","updated_at":"' || memory_time(v_updated_at)
            || '","version":' || v_version || '}')::json,
        case when v_old_lane <> v_lane then array[v_old_lane] end, case when v_old_lane <> v_lane then array[v_delete] end, v_embedding);
    if action = 'moved' then perform memory_resend_uses(p_id); end if;
end $$;
-- +goose StatementEnd

-- memory_store is memory_write for writers without the Go package: it checks a memory, fills in defaults, and stores and appends it.
-- Returns the entry's id.
-- +goose StatementBegin
create function memory_store(p_memory jsonb, p_embedding jsonb default null) returns bigint
    language plpgsql
as $$
declare
    v_found   record;
    v_problem text;
    v_vector  real[];
    v_entry   bigint;
    m         jsonb;
begin
    select field, rule into v_found from memory_problem(p_memory) limit 1;
    if found then perform outbox_refuse('memory', v_found.field, v_found.rule); end if;
    if p_embedding is not null then
        v_problem := embedding_problem(p_embedding, p_memory ->> 'id');
        if v_problem is not null then perform outbox_refuse('memory', 'embedding', v_problem); end if;
        v_vector := embedding_vector(p_embedding);
    end if;
    m := memory_wire(p_memory, clock_timestamp());
    select w.entry into v_entry from memory_write(
        m ->> 'id', m ->> 'namespace', m ->> 'title', m ->> 'tier', m ->> 'content',
        array(select jsonb_array_elements_text(m -> 'tags')), (m ->> 'priority')::integer, (m ->> 'confidence')::double precision,
        m ->> 'source', (m ->> 'access_count')::bigint,
        (p_memory ->> 'created_at')::timestamptz, (p_memory ->> 'updated_at')::timestamptz,
        (m ->> 'last_accessed_at')::timestamptz, (m ->> 'expires_at')::timestamptz, m ->> 'entity_id', (m ->> 'persona_version')::integer,
        m ->> 'source_uri', m -> 'source_span', m -> 'confidence_signals', (m ->> 'confidence_decayed_at')::timestamptz, m -> 'metadata',
        (m ->> 'reflection_depth')::integer, m ->> 'memory_kind', m -> 'citations', m ->> 'confidence_source',
        (m - 'created_at' - 'updated_at' - 'version')::text, p_embedding ->> 'model', v_vector) w;
    return v_entry;
end $$;
-- +goose StatementEnd

-- The rule that an embedding {"model", "vector"} of the memory p_id breaks, or null. It may name memory_id and dim, which must be right then.
-- +goose StatementBegin
create function embedding_problem(e jsonb, p_id text) returns text
    language plpgsql stable
as $$
begin
    if jsonb_typeof(e) <> 'object' then return 'must be a JSON object'; end if;
    if e - array['memory_id', 'model', 'dim', 'vector'] <> '{}' then return 'must have model and vector, and perhaps memory_id and dim'; end if;
    if jsonb_typeof(e -> 'model') is distinct from 'string' or octet_length(e ->> 'model') not between 1 and 128
        or outbox_has_control(e ->> 'model') then
        return 'model must be text of 1 to 128 bytes without control characters';
    end if;
    if jsonb_typeof(e -> 'vector') is distinct from 'array' or jsonb_array_length(e -> 'vector') not between 1 and 4096
        or exists (select from jsonb_array_elements(e -> 'vector') v where jsonb_typeof(v) <> 'number') then
        return 'vector must be 1 to 4096 numbers';
    end if;
    if e ? 'memory_id' and e -> 'memory_id' <> to_jsonb(p_id) then return 'memory_id must be the memory''s id'; end if;
    if e ? 'dim' and e -> 'dim' <> to_jsonb(jsonb_array_length(e -> 'vector')) then return 'dim must be the length of vector'; end if;
    begin
        perform embedding_vector(e);
    exception when numeric_value_out_of_range then
        return 'vector must be numbers of 32 bits';
    end;
    return null;
end $$;
-- +goose StatementEnd

-- The numbers of an embedding, in order.
-- +goose StatementBegin
create function embedding_vector(e jsonb) returns real[]
    language sql immutable parallel safe
as $$ select array_agg((v #>> '{}')::real order by i) from jsonb_array_elements(e -> 'vector') with ordinality a (v, i) $$;
-- +goose StatementEnd

-- An embedding as it travels.
-- +goose StatementBegin
create function embedding_wire(p_id text, p_model text, p_vector real[]) returns json
    language sql stable parallel safe
as $$ select json_build_object('memory_id', p_id, 'model', p_model, 'dim', cardinality(p_vector), 'vector', to_json(p_vector)) $$;
-- +goose StatementEnd

-- memory_take_away appends the entry that takes a memory away from the peers: it comes after everything of other lanes that needs the memory there.
-- The caller has locked the memory's row for update, so that nothing more of that kind can be added.
-- +goose StatementBegin
create function memory_take_away(p_id text, p_lane smallint, p_namespace text, p_kind text, p_payload json) returns bigint
    language plpgsql
as $$
declare
    v_lanes   smallint[];
    v_entries bigint[];
begin
    select array_agg(u.lane), array_agg(u.entry) into v_lanes, v_entries from memory_uses u where u.memory_id = p_id;
    if v_lanes is not null then
        select d.lanes, d.entries into v_lanes, v_entries from outbox_dependencies(p_lane, v_lanes, v_entries) d;
        delete from memory_uses u where u.memory_id = p_id;
    end if;
    return outbox_log(p_lane, p_namespace, p_kind, p_id, p_payload, v_lanes, v_entries);
end $$;
-- +goose StatementEnd

-- memory_bury notes the entry that took a memory away.
-- +goose StatementBegin
create function memory_bury(p_id text, p_lane smallint, p_entry bigint) returns void
    language plpgsql
as $$
begin
    insert into tombstones (id, lane, entry) values (p_id, p_lane, p_entry)
    on conflict (id) do update set lane = excluded.lane, entry = excluded.entry, deleted_at = excluded.deleted_at;
end $$;
-- +goose StatementEnd

-- memory_delete deletes one memory, with its links and the namespace standard that it is, and appends the delete. A memory that was deleted before
-- gives the entry of that delete again, so that a delete can be repeated; one that never was gives no entry (null).
-- +goose StatementBegin
create function memory_delete(p_id text, out entry bigint, out lane smallint, out deleted boolean)
    language plpgsql
as $$
declare
    v_namespace text;
    v_title     text;
begin
    select m.namespace, m.title into v_namespace, v_title from memories m where m.id = p_id for update;
    deleted := found;
    if not deleted then
        select t.entry, t.lane into memory_delete.entry, memory_delete.lane from tombstones t where t.id = p_id;
        return;
    end if;
    lane := outbox_lane(v_namespace);
    entry := memory_take_away(p_id, memory_delete.lane, v_namespace, 'delete', json_build_object('title', v_title));
    delete from memories m where m.id = p_id;
    perform memory_bury(p_id, memory_delete.lane, memory_delete.entry);
end $$;
-- +goose StatementEnd

-- +goose Down
drop function memory_delete, memory_bury, memory_take_away, embedding_wire, embedding_vector, embedding_problem, memory_store, memory_write,
    memory_wire, memory_json_depth, memory_problem, memory_id_problem, namespace_problem, outbox_has_control, is_rfc3339, outbox_log, outbox_missing,
    outbox_reject, outbox_dependencies, outbox_newest, outbox_refuse, memory_time, outbox_lane;
