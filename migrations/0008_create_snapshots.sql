-- Peers that are brought the store's current state, because the log does not reach back to what they have (snapshots).

-- +goose Up

-- One row for each peer that is being brought the current state. Its rows in lagging, one for each lane, are parked meanwhile (retry null and nobody's): they
-- say from where it follows the log afterwards.
create table snapshots (
    peer         text        primary key references peers (id),
    reason       text        not null,
    -- What is being pushed, and from where it goes on: what is pushed goes by its key.
    phase        text        not null,
    after_key    text        not null default '',
    phase_at     timestamptz not null default clock_timestamp(),
    -- Whether the worker that takes it up first has noted how long something that was pushed before the start may still arrive.
    settled      boolean     not null,
    -- Until then a push of the snapshot, or one from before, may still arrive although nobody waits for its answer any more.
    doubt_until  timestamptz,
    -- Who may push it, until leased_until by the database's clock; null: nobody is.
    holder       bigint,
    leased_until timestamptz,
    -- The River job snapshot that carries this row names this number; null until the sweeper has made the first.
    retry        bigint,
    not_before   timestamptz not null default now(),
    failures     integer     not null default 0,
    last_class   text        not null default '',
    -- How much was pushed, of this phase and of all, and about how much there is to push; null until it has begun.
    phase_pushed bigint      not null default 0,
    pushed       bigint      not null default 0,
    total        bigint,
    started_at   timestamptz not null default now(),
    constraint snapshots_reason_known check (reason in ('new', 'overdue', 'asked')),
    constraint snapshots_phase_known check (phase in ('deletions', 'unarchive', 'archived', 'memories', 'links', 'namespaces', 'pendings', 'changes', 'end')),
    constraint snapshots_lease_whole check ((holder is null) = (leased_until is null))
);

-- What a peer refuses of a snapshot is tried again as a repair.
alter table repairs drop constraint repairs_reason_known;
alter table repairs add constraint repairs_reason_known check (reason in ('doubt', 'verify', 'snapshot'));

-- +goose Down
delete from repairs where reason = 'snapshot';
alter table repairs drop constraint repairs_reason_known;
alter table repairs add constraint repairs_reason_known check (reason in ('doubt', 'verify'));
drop table snapshots;
