package refpeer

import (
	"context"
	"database/sql"
	"fmt"
)

// schema of the peer's file. A push is one transaction, so a killed peer never
// shows half a push; the reference applies item by item without one.
//
// What hangs on a live memory goes with it by foreign key, as in the
// reference: links at either end, the namespaces it is the standard of, its
// embedding.
//
// log has one row per push, because a row per item would double the work of a
// push: items holds them in the form of [appendLogItem], last_seq is the number
// of the last one.
const schema = `
create table if not exists memories (
	id text not null primary key,
	namespace text not null,
	title text not null,
	updated_at text not null,
	payload text not null,
	unique (namespace, title)
);
create table if not exists archived_memories (
	id text not null primary key,
	namespace text not null,
	title text not null,
	payload text not null,
	archived_at text not null,
	reason text not null
);
create table if not exists memory_links (
	source_id text not null references memories (id) on delete cascade,
	target_id text not null references memories (id) on delete cascade,
	relation text not null,
	created_at text not null,
	valid_from text,
	valid_until text,
	observed_by text,
	signature blob,
	attest_level text not null,
	primary key (source_id, target_id, relation)
) without rowid;
create index if not exists memory_links_target on memory_links (target_id); -- links of a memory, cascade
create table if not exists pending_actions (
	id text not null primary key,
	action_type text not null,
	memory_id text,
	namespace text not null,
	payload text not null,
	requested_by text not null,
	requested_at text not null,
	status text not null,
	decided_by text,
	decided_at text,
	approvals text not null
);
create table if not exists namespace_meta (
	namespace text not null primary key,
	standard_id text not null references memories (id) on delete cascade,
	parent_namespace text,
	updated_at text not null
);
create index if not exists namespace_meta_standard on namespace_meta (standard_id); -- cascade
create table if not exists embeddings (
	memory_id text not null primary key references memories (id) on delete cascade,
	model text not null,
	dim integer not null,
	vector blob not null
);
create table if not exists log (
	last_seq integer not null primary key,
	push integer not null,
	at integer not null,
	idempotency_key text not null,
	peer_id text not null,
	nonce text not null,
	items blob not null,
	credential text not null default '',
	traceparent text not null default ''
);
create table if not exists nonces (
	seq integer not null primary key,
	peer_id text not null,
	fingerprint blob not null
);
create table if not exists quota (
	day text not null,
	agent_id text not null,
	namespace text not null,
	used integer not null,
	bytes integer not null default 0,
	links integer not null default 0,
	primary key (day, agent_id, namespace)
) without rowid;
`

// laterColumns are those that files of earlier versions lack.
func laterColumns() []struct{ table, column, definition string } {
	return []struct{ table, column, definition string }{
		{"log", "credential", "text not null default ''"},
		{"log", "traceparent", "text not null default ''"},
		{"quota", "bytes", "integer not null default 0"},
		{"quota", "links", "integer not null default 0"},
	}
}

// createTables brings a new or an old file to the present schema, in one
// transaction.
func createTables(ctx context.Context, conn *sql.Conn) error {
	tx, err := conn.BeginTx(ctx, nil)
	if err != nil {
		return err
	}
	defer func() { _ = tx.Rollback() }() // after a commit it does nothing
	if _, err := tx.ExecContext(ctx, schema); err != nil {
		return err
	}
	for _, c := range laterColumns() {
		var there bool
		row := tx.QueryRowContext(ctx, `select count(*) > 0 from pragma_table_info(?) where name = ?`, c.table, c.column)
		if err := row.Scan(&there); err != nil {
			return fmt.Errorf("look for %s.%s: %w", c.table, c.column, err)
		}
		if there {
			continue
		}
		if _, err := tx.ExecContext(ctx, "alter table "+c.table+" add column "+c.column+" "+c.definition); err != nil {
			return fmt.Errorf("add %s.%s: %w", c.table, c.column, err)
		}
	}
	return tx.Commit()
}
