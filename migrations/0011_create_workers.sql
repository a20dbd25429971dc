-- Which workers run: for people who look at a fleet. Nothing depends on it; leases are what work is taken over by.

-- +goose Up

-- One row for each `worker run`, written every few seconds and removed when it stops. That of a worker that was killed stays for an hour.
create table workers (
    -- That of its River client, which River writes beside each job that it works (river_job.attempted_by).
    id         text        primary key,
    host       text        not null,
    version    text        not null,
    started_at timestamptz not null default clock_timestamp(),
    seen_at    timestamptz not null default clock_timestamp(),
    constraint workers_id_1_to_200_bytes check (octet_length(id) between 1 and 200),
    constraint workers_host_at_most_255_bytes check (octet_length(host) <= 255),
    constraint workers_version_at_most_200_bytes check (octet_length(version) <= 200)
) with (fillfactor = 50);

-- +goose Down
drop table workers;
