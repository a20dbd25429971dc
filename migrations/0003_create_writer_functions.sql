-- What writers call, in any language: outbox_append, memory_store, memory_delete. The Go package "outbox" calls the same functions.

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

-- outbox_log writes one entry without looking at it.
-- +goose StatementBegin
create function outbox_log(
    p_lane smallint, p_namespace text, p_kind text, p_key text, p_payload json, p_after_lane smallint, p_after_entry bigint)
    returns bigint language plpgsql
as $$
declare
    v_id bigint;
begin
    insert into outbox (lane, namespace, kind, key, payload)
    values (p_lane, p_namespace, p_kind, p_key, p_payload)
    returning id into v_id;

    insert into undispatched (lane, entry, bytes, after_lane, after_entry)
    values (p_lane, v_id, coalesce(octet_length(p_payload::text), 0) + octet_length(p_key) + 16, p_after_lane, p_after_entry);
    return v_id;
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
        if t !~ '^[0-9]{4}-[0-9]{2}-[0-9]{2}[Tt][0-9]{2}:[0-9]{2}:[0-9]{2}(\.[0-9]+)?([Zz]|[+-][0-9]{2}:[0-9]{2})$' then
            field := k; rule := 'must be an RFC 3339 time'; return next; return;
        end if;
        begin
            perform t::timestamptz;
        exception when others then
            field := k; rule := 'must be an RFC 3339 time'; return next; return;
        end;
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

-- outbox_append adds one entry for an application that keeps its rows in tables of its own. The caller must hold the lock of the row that the
-- entry describes (insert, update or select for update), because that is what puts the entries of one memory in order.
-- p_after names an earlier entry, of any namespace, that every peer must have before this one.
-- +goose StatementBegin
create function outbox_append(p_namespace text, p_kind text, p_key text, p_payload jsonb default null, p_after bigint default null)
    returns bigint language plpgsql
as $$
declare
    v_problem    text;
    v_found      record;
    v_lane       smallint := outbox_lane(p_namespace);
    v_after_lane smallint;
    v_payload    jsonb := p_payload;
begin
    v_problem := namespace_problem(p_namespace);
    if v_problem is not null then perform outbox_refuse('outbox entry', 'namespace', v_problem); end if;
    v_problem := memory_id_problem(p_key);
    if v_problem is not null then perform outbox_refuse('outbox entry', 'key', v_problem); end if;

    case p_kind
    when 'store' then
        select field, rule into v_found from memory_problem(p_payload) limit 1;
        if found then perform outbox_refuse('outbox entry: payload', v_found.field, v_found.rule); end if;
        if p_payload ->> 'id' <> p_key then perform outbox_refuse('outbox entry', 'key', 'must be the payload''s id'); end if;
        if p_payload ->> 'namespace' <> p_namespace then
            perform outbox_refuse('outbox entry', 'namespace', 'must be the payload''s namespace');
        end if;
        v_payload := memory_wire(p_payload, clock_timestamp());
    when 'delete' then
        if p_payload is not null and (jsonb_typeof(p_payload) <> 'object' or p_payload - 'title' <> '{}') then
            perform outbox_refuse('outbox entry', 'payload', 'of a delete must be null or {"title": the deleted memory''s title}');
        end if;
    else
        perform outbox_refuse('outbox entry', 'kind', 'must be store or delete');
    end case;

    if p_after is not null then
        select lane into v_after_lane from outbox where id = p_after;
        if not found then perform outbox_refuse('outbox entry', 'after', 'must be the id of an entry in the outbox'); end if;
        if v_after_lane = v_lane then
            return outbox_log(v_lane, p_namespace, p_kind, p_key, v_payload::json, null, null); -- order within a lane is kept anyway
        end if;
    end if;
    return outbox_log(v_lane, p_namespace, p_kind, p_key, v_payload::json, v_after_lane, p_after);
end $$;
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
    p_citations jsonb, p_confidence_source text, p_body text,
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
    v_after_lane  smallint;
    v_after_entry bigint;
begin
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
                insert into outbox (lane, namespace, kind, key, payload)
                values (v_lane, p_namespace, 'store', p_id,
                    (left(p_body, -1) || ',"created_at":"' || memory_time(v_created_at) || '","updated_at":"' || memory_time(v_updated_at)
                        || '","version":' || v_version || '}')::json)
                returning id, octet_length(payload::text) + octet_length(key) + 16 as bytes
            )
            insert into undispatched as u (lane, entry, bytes, after_lane, after_entry)
            select v_lane, logged.id, logged.bytes, buried.lane, buried.entry
            from logged
            left join buried on buried.lane <> v_lane -- order within a lane is kept anyway
            returning u.entry into memory_write.entry;
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

    if (v_old.namespace, v_old.title) is distinct from (p_namespace, p_title) then
        action := 'moved';
        v_after_lane := outbox_lane(v_old.namespace);
        v_after_entry := outbox_log(v_after_lane, v_old.namespace, 'delete', p_id, json_build_object('title', v_old.title), null, null);
        if v_after_lane = v_lane then -- order within a lane is kept anyway
            v_after_lane := null;
            v_after_entry := null;
        end if;
    end if;
    entry := outbox_log(v_lane, p_namespace, 'store', p_id,
        (left(p_body, -1) || ',"created_at":"' || memory_time(v_created_at) || '","updated_at":"' || memory_time(v_updated_at)
            || '","version":' || v_version || '}')::json,
        v_after_lane, v_after_entry);
end $$;
-- +goose StatementEnd

-- memory_store is memory_write for writers without the Go package: it checks a memory, fills in defaults, and stores and appends it.
-- Returns the entry's id.
-- +goose StatementBegin
create function memory_store(p_memory jsonb) returns bigint
    language plpgsql
as $$
declare
    v_found record;
    v_entry bigint;
    m       jsonb;
begin
    select field, rule into v_found from memory_problem(p_memory) limit 1;
    if found then perform outbox_refuse('memory', v_found.field, v_found.rule); end if;
    m := memory_wire(p_memory, clock_timestamp());
    select w.entry into v_entry from memory_write(
        m ->> 'id', m ->> 'namespace', m ->> 'title', m ->> 'tier', m ->> 'content',
        array(select jsonb_array_elements_text(m -> 'tags')), (m ->> 'priority')::integer, (m ->> 'confidence')::double precision,
        m ->> 'source', (m ->> 'access_count')::bigint,
        (p_memory ->> 'created_at')::timestamptz, (p_memory ->> 'updated_at')::timestamptz,
        (m ->> 'last_accessed_at')::timestamptz, (m ->> 'expires_at')::timestamptz, m ->> 'entity_id', (m ->> 'persona_version')::integer,
        m ->> 'source_uri', m -> 'source_span', m -> 'confidence_signals', (m ->> 'confidence_decayed_at')::timestamptz, m -> 'metadata',
        (m ->> 'reflection_depth')::integer, m ->> 'memory_kind', m -> 'citations', m ->> 'confidence_source',
        (m - 'created_at' - 'updated_at' - 'version')::text) w;
    return v_entry;
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
    delete from memories m where m.id = p_id returning m.namespace, m.title into v_namespace, v_title;
    deleted := v_namespace is not null;
    if v_namespace is null then
        select t.entry, t.lane into memory_delete.entry, memory_delete.lane from tombstones t where t.id = p_id;
        return;
    end if;
    lane := outbox_lane(v_namespace);
    entry := outbox_log(lane, v_namespace, 'delete', p_id, json_build_object('title', v_title), null, null);
    insert into tombstones (id, lane, entry) values (p_id, memory_delete.lane, memory_delete.entry)
    on conflict (id) do update set lane = excluded.lane, entry = excluded.entry, deleted_at = excluded.deleted_at;
end $$;
-- +goose StatementEnd

-- +goose Down
drop function memory_delete, memory_store, memory_write, memory_wire, outbox_append, memory_json_depth, memory_problem, memory_id_problem,
    namespace_problem, outbox_has_control, outbox_log, outbox_refuse, memory_time, outbox_lane;
