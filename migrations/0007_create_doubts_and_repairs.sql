-- What may still arrive at a peer although nobody waits for its answer any more (doubts), and what of a peer's copy is to be brought to the store's state
-- (repairs).

-- +goose Up

-- A push whose sender gave it up, or was killed, may be applied later, after newer ones ("zombie"). A row says which batches of a lane such pushes
-- to a peer carried: those after from_number, up to to_number. None of them is alive after until; then what they touched becomes repairs.
-- until is rounded up, so that many doubts share few rows.
create table doubts (
    peer        text        not null references peers (id),
    lane        smallint    not null,
    from_number bigint      not null,
    to_number   bigint      not null,
    until       timestamptz not null,
    primary key (peer, lane, until),
    constraint doubts_not_empty check (to_number > from_number)
);

-- One row for each thing of which a peer's copy is to be made equal to the store's: because a push that was in doubt has touched it, or because the
-- two were compared and differ.
create table repairs (
    peer     text        not null references peers (id),
    subject  text        not null,
    key      text        not null,
    -- Where the subject's entries go: the job holds this lane of the peer meanwhile.
    lane     smallint    not null,
    -- store: what is there is only written again; renew: it is deleted first, so that nothing of a former life is left.
    method   text        not null,
    reason   text        not null,
    -- For a memory that is in no table of ours: its state is that of the log from this entry on.
    entry    bigint      not null default 0,
    -- Of a memory: [namespace, title] of each store of it that may have arrived late. Another memory that has such a title now may have been merged into the
    -- late row, and would go with it.
    places   jsonb       not null default '[]',
    due_at   timestamptz not null default now(),
    -- Once more, when a push that carried the repair and got no answer cannot arrive any more.
    again_at timestamptz,
    attempts integer     not null default 0,
    class    text        not null default '',
    since    timestamptz not null default now(),
    primary key (peer, subject, key),
    constraint repairs_subject_known check (subject in ('memory', 'pending', 'namespace')),
    constraint repairs_method_known check (method in ('store', 'renew')),
    constraint repairs_reason_known check (reason in ('doubt', 'verify'))
);

-- For the sweeper, which gives a job to what is due.
create index repairs_due on repairs (due_at);

-- +goose Down
drop table repairs, doubts;
