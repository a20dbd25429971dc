-- The writer's trace context travels with its entry, so that the fan-out and the pushes to the peers belong to the writer's trace.

-- +goose Up

-- What the transaction, or else the session, of the writer says its span is: a W3C traceparent of version 00. Anything else is none: a writer is never
-- refused for its tracing. One expression, so that Postgres puts it into the plan of an insert in place of a call.
create function outbox_traceparent() returns text
    language sql stable parallel safe
as $$
    select case
        when octet_length(current_setting('quorumbox.traceparent', true)) = 55
             and current_setting('quorumbox.traceparent', true) ~ '^00-(?!0{32})[0-9a-f]{32}-(?!0{16})[0-9a-f]{16}-[0-9a-f]{2}$'
            then current_setting('quorumbox.traceparent', true)
    end
$$;

-- Three steps that each change the catalogue alone. A column of a domain that has rules already, or one with a default that is not the same for all rows, would
-- make Postgres write the whole table anew; and a rule that is not "not valid" would make it read the table. All old rows are null, which every rule takes.
create domain entry_traceparent as text;
alter table outbox add column traceparent entry_traceparent;
alter table outbox alter column traceparent set default outbox_traceparent();
alter domain entry_traceparent add constraint entry_traceparent_w3c
    check (value ~ '^00-(?!0{32})[0-9a-f]{32}-(?!0{16})[0-9a-f]{16}-[0-9a-f]{2}$') not valid;

-- +goose Down
alter table outbox drop column traceparent;
drop domain entry_traceparent;
drop function outbox_traceparent;
