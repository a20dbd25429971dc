-- The log (outbox, undispatched), what is pushed and judged together (batches), and where each peer stands (peers, lagging, refusals).

-- +goose Up

-- An entry is written once, by its writer, and never updated: what still has to be dispatched is a row of "undispatched", and what was
-- dispatched is named by a batch. Ids order the entries of a lane: sequence cache 1, and a writer locks the row it describes first.
create domain entry_kind as text
    constraint entry_kind_known check (value in ('store', 'delete', 'archive', 'restore', 'link', 'consolidate', 'pending', 'decision',
        'namespace_set', 'namespace_clear'));
create domain entry_key as text
    constraint entry_key_1_to_2048_bytes check (octet_length(value) between 1 and 2048); -- a namespace has 512 characters
create domain entry_payload as json
    constraint entry_payload_at_most_1_mib check (octet_length(value::text) <= 1048576);
create domain entry_embedding as json
    constraint entry_embedding_at_most_256_kib check (octet_length(value::text) <= 262144);
create domain lane as smallint
    constraint lane_0_to_31 check (value between 0 and 31);

create table outbox (
    id         bigint           generated always as identity (cache 1) primary key,
    lane       lane             not null,
    namespace  memory_namespace not null,
    kind       entry_kind       not null,
    key        entry_key        not null,
    payload    entry_payload,
    -- The vector that travels with a store or a consolidate: {"memory_id", "model", "dim", "vector"}.
    embedding  entry_embedding,
    created_at timestamptz      not null default clock_timestamp()
);

-- One row for each entry that no batch names yet; the relay deletes it in the transaction that makes the batch.
-- after_*: entries of other lanes that every peer must have before this one (a move between namespaces, a link to a memory of another one). Both
-- are null where there are none; else they have the same length, one entry a lane, the last of that lane to be dispatched. No check says so, because
-- it would be prepared anew for each insert: the functions that write here build both together.
create table undispatched (
    lane          smallint not null,
    entry         bigint   not null,
    bytes         integer  not null,
    after_lanes   smallint[],
    after_entries bigint[],
    primary key (lane, entry)
) with (autovacuum_vacuum_scale_factor = 0.0, autovacuum_vacuum_threshold = 5000, autovacuum_vacuum_cost_delay = 0);

-- Tokens name who may record: a fan-out (batches.fan_out) or the holder of a lagging lane (lagging.holder). Never used twice.
create sequence tokens;

create table batches (
    lane         smallint    not null,
    number       bigint      not null,
    entries      bigint[]    not null,
    first_entry  bigint      not null,
    last_entry   bigint      not null,
    bytes        bigint      not null,
    -- Entries of the lane up to and including this batch, so that a backlog is a difference of two numbers.
    position     bigint      not null,
    -- The fan-out that may push and record this batch, until leased_until by the database's clock: written before the first byte is sent.
    fan_out      bigint      not null,
    leased_until timestamptz not null,
    -- Batches of other lanes that a peer must have before this one, at most one a lane.
    after_lanes   smallint[],
    after_numbers bigint[],
    verdict      text        not null default 'pending',
    reason       text        not null default '',
    needed       smallint,
    members      smallint,
    acked        text[]      not null default '{}',
    dispatched_at timestamptz not null default clock_timestamp(),
    deadline     timestamptz,
    decided_at   timestamptz,
    primary key (lane, number),
    constraint batches_verdict_known check (verdict in ('pending', 'met', 'not_met')),
    constraint batches_reason_known check (reason in ('', 'unreachable', 'timeout', 'id_drift', 'refused')),
    -- I2: met only with the local commit and W-1 distinct peers.
    constraint batches_met_with_acks check (verdict <> 'met' or cardinality(acked) + 1 >= needed),
    constraint batches_after_whole check (
        (after_lanes is null) = (after_numbers is null) and cardinality(after_lanes) = cardinality(after_numbers))
);

-- Order: at most one undecided batch in a lane. Also serves the relay, a fan-out and the sweeper (at most 32 rows).
create unique index batches_undecided on batches (lane) where verdict = 'pending';

-- From an entry to its batch (Await).
create index batches_last_entry on batches (lane, last_entry);

create table peers (
    id               text        primary key,
    state            text        not null default 'active',
    last_error_class text        not null default '',
    last_error_at    timestamptz,
    added_at         timestamptz not null default now(),
    constraint peers_state_known check (state in ('active', 'paused', 'absent'))
);

-- One row for each (peer, lane) that misses dispatched batches; none for a peer in step.
create table lagging (
    peer         text        not null references peers (id),
    lane         smallint    not null,
    -- The number of the last batch that the peer acknowledged in order.
    cursor       bigint      not null,
    -- The number of the last batch that may have been pushed to it: written before the first byte is sent. A push starts at the cursor and reaches
    -- at least to here, because a part of what was pushed before can only be pushed again together with the rest.
    pushed_to    bigint      not null,
    -- Who may push this lane to this peer, until leased_until by the database's clock; null: nobody is.
    holder       bigint,
    leased_until timestamptz,
    -- The River job peer_retry that carries this row names this number; null while a fan-out still waits for the peer's answer.
    retry        bigint,
    not_before   timestamptz not null default now(),
    failures     integer     not null default 0,
    last_class   text        not null default '',
    since        timestamptz not null default now(),
    primary key (peer, lane),
    constraint lagging_pushed_behind_cursor check (pushed_to >= cursor),
    constraint lagging_lease_whole check ((holder is null) = (leased_until is null))
) with (fillfactor = 50);

-- An entry that one peer refuses for good: the peer's cursor is past it, and it is tried again now and then (the River job redeliver).
create table refusals (
    peer       text        not null references peers (id),
    entry      bigint      not null,
    lane       smallint    not null,
    class      text        not null,
    attempts   integer     not null default 1,
    first_at   timestamptz not null default now(),
    last_at    timestamptz not null default now(),
    next_at    timestamptz not null default now(),
    primary key (peer, entry)
);

-- For the sweeper, which gives a job to what is due.
create index refusals_due on refusals (next_at);

-- Where a deleted memory's last entry is: a memory stored again in another namespace must follow it.
create table tombstones (
    id         text        primary key,
    lane       smallint    not null,
    entry      bigint      not null,
    deleted_at timestamptz not null default now()
);

-- The last entry of each other lane that needs a memory to be there (a link to it, a namespace whose standard it is): the entry that takes the memory
-- away must come after it, or a peer could get that first and would skip the other for ever. The link and the standard themselves cannot say it:
-- they may be gone by then. A writer locks the row before it takes the entry's id, so that the last id is the last one dispatched.
create table memory_uses (
    memory_id text     not null references memories (id) on delete cascade,
    lane      smallint not null,
    entry     bigint   not null,
    primary key (memory_id, lane)
);

-- +goose Down
drop table memory_uses, tombstones, refusals, lagging, peers, batches, undispatched, outbox;
drop sequence tokens;
drop domain entry_kind, entry_key, entry_payload, entry_embedding, lane;
