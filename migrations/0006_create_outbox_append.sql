-- outbox_append, for applications that keep their memories in tables of their own.

-- +goose Up

-- entry_checked refuses an entry that a receiver would refuse, naming field and rule, and returns its payload completed to what is sent.
-- +goose StatementBegin
create function entry_checked(p_namespace text, p_kind text, p_key text, p_payload jsonb) returns jsonb
    language plpgsql stable
as $$
declare
    v_problem text;
    v_field   text;
    v_rule    text;
    v_key     text; -- what the payload says the key is
    v_of      text; -- and the namespace
    v_now     timestamptz := clock_timestamp();
begin
    v_problem := namespace_problem(p_namespace);
    if v_problem is not null then perform outbox_refuse('outbox entry', 'namespace', v_problem); end if;
    v_of := p_namespace;

    case p_kind
    when 'store', 'archive', 'restore' then
        select p.field, p.rule into v_field, v_rule from memory_problem(p_payload) p limit 1;
        v_key := p_payload ->> 'id';
        v_of := p_payload ->> 'namespace';
    when 'delete' then
        v_problem := memory_id_problem(p_key);
        if v_problem is not null then perform outbox_refuse('outbox entry', 'key', v_problem); end if;
        if p_payload is not null and (jsonb_typeof(p_payload) <> 'object' or p_payload - 'title' <> '{}') then
            perform outbox_refuse('outbox entry', 'payload', 'of a delete must be null or {"title": the deleted memory''s title}');
        end if;
        return p_payload;
    when 'link' then
        select p.field, p.rule into v_field, v_rule from link_problem(p_payload) p limit 1;
        v_key := (p_payload ->> 'source_id') || (p_payload ->> 'target_id');
    when 'consolidate' then
        if jsonb_typeof(p_payload) is distinct from 'object' or p_payload - array['memory', 'sources'] <> '{}' then
            perform outbox_refuse('outbox entry', 'payload', 'of a consolidate must be {"memory", "sources"}');
        end if;
        select p.field, p.rule into v_field, v_rule from memory_problem(p_payload -> 'memory') p limit 1;
        if v_field is null then
            select p.field, p.rule into v_field, v_rule from sources_problem(p_payload -> 'sources', p_payload -> 'memory' ->> 'id') p;
        end if;
        v_key := p_payload -> 'memory' ->> 'id';
        v_of := p_payload -> 'memory' ->> 'namespace';
    when 'pending' then
        select p.field, p.rule into v_field, v_rule from pending_problem(p_payload) p limit 1;
        v_key := p_payload ->> 'id';
        v_of := p_payload ->> 'namespace';
    when 'decision' then
        select p.field, p.rule into v_field, v_rule from decision_problem(p_payload) p limit 1;
        v_key := p_payload ->> 'id';
    when 'namespace_set' then
        select p.field, p.rule into v_field, v_rule from namespace_entry_problem(p_payload) p limit 1;
        v_key := p_payload ->> 'namespace';
        v_of := v_key;
    when 'namespace_clear' then
        if p_payload is not null then perform outbox_refuse('outbox entry', 'payload', 'of a namespace_clear must be null'); end if;
        v_key := p_namespace;
    else
        perform outbox_refuse('outbox entry', 'kind', 'must be store, delete, archive, restore, link, consolidate, pending, decision, '
            'namespace_set or namespace_clear');
    end case;
    if v_field is not null then perform outbox_refuse('outbox entry: payload', v_field, v_rule); end if;
    if p_key is distinct from v_key then perform outbox_refuse('outbox entry', 'key', format('must be the payload''s: %s', v_key)); end if;
    if p_namespace <> v_of then perform outbox_refuse('outbox entry', 'namespace', 'must be the payload''s namespace'); end if;

    return case p_kind
        when 'link' then
            jsonb_strip_nulls(p_payload) || wire_time(p_payload, v_now, 'created_at')
        when 'consolidate' then
            jsonb_set(p_payload, array['memory'], memory_wire(p_payload -> 'memory', v_now))
        when 'pending' then
            case when p_payload ->> 'memory_id' is null then p_payload - 'memory_id' else p_payload end
                || jsonb_build_object('status', 'pending', 'approvals', coalesce(nullif(p_payload -> 'approvals', 'null'), '[]'))
                || wire_time(p_payload, v_now, 'requested_at')
        when 'decision' then p_payload
        when 'namespace_set' then jsonb_strip_nulls(p_payload) || wire_time(p_payload, v_now, 'updated_at')
        when 'namespace_clear' then null
        else memory_wire(p_payload, v_now)
    end;
end $$;
-- +goose StatementEnd

-- One time of an object as the protocol writes it, now where it is not given.
-- +goose StatementBegin
create function wire_time(p jsonb, p_now timestamptz, p_field text) returns jsonb
    language sql stable
as $$ select jsonb_build_object(p_field, memory_time(coalesce((p ->> p_field)::timestamptz, p_now))) $$;
-- +goose StatementEnd

-- Field and rule of the first thing that is wrong with the sources in a consolidate's payload, or nulls.
-- +goose StatementBegin
create function sources_problem(s jsonb, p_new text, out field text, out rule text)
    language plpgsql immutable
as $$
begin
    field := 'sources';
    if jsonb_typeof(s) is distinct from 'array' or exists (
        select from jsonb_array_elements(s) e
        where jsonb_typeof(e) <> 'object' or e - array['id', 'namespace', 'title'] <> '{}' or namespace_problem(e ->> 'namespace') is not null
           or jsonb_typeof(e -> 'title') is distinct from 'string') then
        rule := 'must be an array of {"id", "namespace", "title"}';
        return;
    end if;
    rule := source_ids_problem(array(select e ->> 'id' from jsonb_array_elements(s) e), p_new);
    if rule is null then field := null; end if;
end $$;
-- +goose StatementEnd

-- outbox_append adds one entry for an application that keeps its rows in tables of its own. The caller must hold the lock of the row that the
-- entry describes (insert, update or select for update), because that is what puts the entries of one memory in order.
-- p_after names earlier entries, of any namespace, that every peer must have before this one; p_embedding is the vector {"model", "vector"} of the memory
-- that a store or a consolidate carries.
-- +goose StatementBegin
create function outbox_append(
    p_namespace text, p_kind text, p_key text, p_payload jsonb default null, p_after bigint[] default null, p_embedding jsonb default null)
    returns bigint language plpgsql
as $$
declare
    v_payload   jsonb := entry_checked(p_namespace, p_kind, p_key, p_payload);
    v_lane      smallint := outbox_lane(p_namespace);
    v_problem   text;
    v_embedding json;
    v_lanes     smallint[];
    v_after     record;
begin
    if p_embedding is not null then
        v_problem := embedding_problem(p_embedding, p_key);
        if p_kind not in ('store', 'consolidate') then v_problem := 'goes with a store or a consolidate'; end if;
        if v_problem is not null then perform outbox_refuse('outbox entry', 'embedding', v_problem); end if;
        v_embedding := embedding_wire(p_key, p_embedding ->> 'model', embedding_vector(p_embedding));
    end if;
    select array_agg(o.lane order by a.i) into v_lanes from unnest(p_after) with ordinality a (id, i) left join outbox o on o.id = a.id;
    if array_position(v_lanes, null) is not null then
        perform outbox_refuse('outbox entry', 'after', 'must be ids of entries in the outbox');
    end if;
    select d.lanes, d.entries into v_after from outbox_dependencies(v_lane, v_lanes, p_after) d;
    return outbox_log(v_lane, p_namespace, p_kind, p_key, v_payload::json, v_after.lanes, v_after.entries, v_embedding);
end $$;
-- +goose StatementEnd

-- +goose Down
drop function outbox_append, sources_problem, wire_time, entry_checked;
