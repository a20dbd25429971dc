-- How often pushes of a lane have broken its peer, so that an entry at which it breaks is found.

-- +goose Up

-- How often, since the cursor last moved, a push of the lane was answered with a server error or not at all, its connection being closed. After a few the entry that does
-- it is looked for. A constant default: no row is rewritten.
alter table lagging add column suspicions integer not null default 0;

-- +goose Down
alter table lagging drop column suspicions;
