-- The writer's domain tables: the shapes of the federation protocol (memory, link, pending action, namespace standard).
-- Rules that a peer would answer with "skipped" are refused here, in the writer's own transaction.

-- +goose Up
-- The rules are domains rather than table checks: Postgres prepares a table's checks anew for each insert, a domain's once a session.
create domain memory_id as text
    constraint memory_id_grammar check (value ~ '^[A-Za-z0-9_:.@-]{1,128}$' and position('..' in value) = 0);
create domain memory_namespace as text
    constraint memory_namespace_1_to_512_characters check (char_length(value) between 1 and 512);
create domain memory_title as text
    constraint memory_title_1_to_512_characters check (char_length(value) between 1 and 512);
create domain memory_content as text
    constraint memory_content_1_to_65536_bytes check (octet_length(value) between 1 and 65536);
create domain memory_tier as text
    constraint memory_tier_known check (value in ('short', 'mid', 'long'));
create domain memory_tags as text[]
    constraint memory_tags_at_most_50 check (cardinality(value) <= 50);
create domain memory_priority as integer
    constraint memory_priority_1_to_10 check (value between 1 and 10);
create domain memory_confidence as double precision
    constraint memory_confidence_0_to_1 check (value between 0 and 1);
create domain memory_count as bigint
    constraint memory_count_not_negative check (value >= 0);
create domain jsonb_map as jsonb
    constraint jsonb_map_is_object check (jsonb_typeof(value) = 'object');
create domain jsonb_list as jsonb
    constraint jsonb_list_is_array check (jsonb_typeof(value) = 'array');
create domain embedding_model as text
    constraint embedding_model_1_to_128_bytes check (octet_length(value) between 1 and 128);
create domain embedding_vector as real[]
    constraint embedding_vector_1_to_4096_numbers check (cardinality(value) between 1 and 4096);

create table memories (
    id                    memory_id         primary key,
    namespace             memory_namespace  not null,
    title                 memory_title      not null,
    tier                  memory_tier       not null default 'mid',
    content               memory_content    not null,
    tags                  memory_tags       not null default '{}',
    priority              memory_priority   not null default 5,
    confidence            memory_confidence not null default 1,
    source                text              not null default 'api',
    access_count          memory_count      not null default 0,
    created_at            timestamptz       not null,
    updated_at            timestamptz       not null,
    last_accessed_at      timestamptz,
    expires_at            timestamptz,
    entity_id             text,
    persona_version       integer,
    source_uri            text,
    source_span           jsonb_map,
    confidence_signals    jsonb_map,
    confidence_decayed_at timestamptz,
    metadata              jsonb_map       not null default '{}',
    reflection_depth      integer           not null default 0,
    memory_kind           text              not null default 'observation',
    citations             jsonb_list        not null default '[]',
    confidence_source     text              not null default 'caller_provided',
    version               bigint            not null default 1
);

-- The peers' conflict key. The title is hashed because a title and a namespace of the longest legal
-- lengths do not fit into one index entry.
create unique index memories_title_namespace on memories (namespace, md5(title));

create table archived_memories (
    like memories including defaults,
    archived_at    timestamptz not null default now(),
    archive_reason text        not null default '',
    primary key (id)
);

create table memory_links (
    source_id    text        not null references memories (id) on delete cascade,
    target_id    text        not null references memories (id) on delete cascade,
    relation     text        not null,
    created_at   timestamptz not null,
    signature    bytea,
    observed_by  text,
    -- RFC 3339, as they were given: the signature covers the text.
    valid_from   text,
    valid_until  text,
    attest_level text,
    primary key (source_id, target_id, relation),
    constraint memory_links_two_ends check (source_id <> target_id),
    constraint memory_links_relation_known check
        (relation in ('related_to', 'supersedes', 'contradicts', 'derived_from', 'reflects_on', 'derives_from')),
    constraint memory_links_signature_64_bytes check (octet_length(signature) = 64)
);

-- For the cascade from the target's side; the primary key serves the source's.
create index memory_links_target on memory_links (target_id);

-- The vector of a memory's content, as some model of the writer's made it.
create table memory_embeddings (
    memory_id  text             primary key references memories (id) on delete cascade,
    model      embedding_model  not null,
    dim        integer          not null,
    vector     embedding_vector not null,
    updated_at timestamptz      not null default now(),
    constraint memory_embeddings_dim_is_length check (dim = cardinality(vector))
);

create table pending_actions (
    id           text        primary key,
    action_type  text        not null,
    memory_id    text,
    namespace    text        not null,
    payload      jsonb       not null,
    requested_by text        not null,
    requested_at timestamptz not null,
    status       text        not null,
    decided_by   text,
    decided_at   timestamptz,
    approvals    jsonb_list  not null default '[]',
    constraint pending_actions_status_known check (status in ('pending', 'approved', 'rejected'))
);

create table namespace_meta (
    namespace        text        primary key,
    standard_id      text        not null references memories (id) on delete cascade,
    parent_namespace text,
    updated_at       timestamptz not null
);

-- For the cascade of a deleted standard.
create index namespace_meta_standard on namespace_meta (standard_id);

-- +goose Down
drop table namespace_meta, pending_actions, memory_embeddings, memory_links, archived_memories, memories;
drop domain memory_id, memory_namespace, memory_title, memory_content, memory_tier, memory_tags, memory_priority, memory_confidence,
    memory_count, jsonb_map, jsonb_list, embedding_model, embedding_vector;
