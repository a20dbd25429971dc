package verify

import (
	"context"
	"fmt"
	"slices"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgxpool"
)

// store reads the writer's tables, on one connection.
type store struct {
	conn *pgxpool.Conn
	peer string
}

// prepare makes the temporary tables: which keys the peer has shown, and what was found to differ. They keep this process's memory bounded, however
// much there is to compare.
func (s *store) prepare(ctx context.Context) error {
	var known bool
	if err := s.conn.QueryRow(ctx, `select exists (select from peers p where p.id = $1)`, s.peer).Scan(&known); err != nil {
		return fmt.Errorf("look the peer up: %w", err)
	}
	if !known {
		return ErrUnknownPeer
	}
	_, err := s.conn.Exec(ctx, `
		drop table if exists pg_temp.verify_shown, pg_temp.verify_found;
		create temp table verify_shown (key text primary key);
		create temp table verify_found (
			subject text, key text, kind text, matter text, namespace text, agent text, repaired boolean, primary key (subject, key, kind, matter)
		)`)
	if err != nil {
		return fmt.Errorf("make temporary tables: %w", err)
	}
	return nil
}

// forget starts a new list of keys that the peer has shown.
func (s *store) forget(ctx context.Context) error {
	if _, err := s.conn.Exec(ctx, `truncate verify_shown`); err != nil {
		return fmt.Errorf("forget what was shown: %w", err)
	}
	return nil
}

// show notes keys that the peer has shown and returns those that are new.
func (s *store) show(ctx context.Context, keys []string) ([]string, error) {
	return collect(ctx, s.conn, pgx.RowTo[string], "note what was shown", `
		insert into verify_shown (key) select unnest($1::text[]) on conflict do nothing returning key`, keys)
}

// analyze lets the planner know how much was shown: nothing else does that for a temporary table.
func (s *store) analyze(ctx context.Context) error {
	if _, err := s.conn.Exec(ctx, `analyze verify_shown`); err != nil {
		return fmt.Errorf("analyze what was shown: %w", err)
	}
	return nil
}

// count is how many memories there are to compare.
func (s *store) count(ctx context.Context, namespaces []string) (n int64, err error) {
	err = s.conn.QueryRow(ctx, `select count(*) from memories where cardinality($1::text[]) = 0 or namespace = any ($1)`, filled(namespaces)).Scan(&n)
	if err != nil {
		return 0, fmt.Errorf("count memories: %w", err)
	}
	return n, nil
}

// filled is list, not nil: a nil slice is null to Postgres.
func filled(list []string) []string { return append([]string{}, list...) }

// namespaces are those that any table of the store names. The first part walks the index instead of reading all memories.
func (s *store) namespaces(ctx context.Context) ([]string, error) {
	return collect(ctx, s.conn, pgx.RowTo[string], "list namespaces", `
		with recursive live (namespace) as (
			(select m.namespace::text from memories m order by m.namespace limit 1)
			union all
			select (select m.namespace::text from memories m where m.namespace > l.namespace order by m.namespace limit 1)
			from live l
			where l.namespace is not null
		)
		select l.namespace from live l where l.namespace is not null
		union select a.namespace::text from archived_memories a
		union select p.namespace from pending_actions p
		union select n.namespace from namespace_meta n
		union select o.namespace::text from tombstones t join outbox o on o.id = t.entry`)
}

// author is an agent with how many of its private memories are in a namespace.
type author struct {
	Agent   string
	Private int64
}

// authors returns the agents that have private memories in a namespace, and how many memories there are in all.
func (s *store) authors(ctx context.Context, namespace string) ([]author, int64, error) {
	var total int64
	if err := s.conn.QueryRow(ctx, `select count(*) from memories m where m.namespace = $1`, namespace).Scan(&total); err != nil {
		return nil, 0, fmt.Errorf("count memories: %w", err)
	}
	list, err := collect(ctx, s.conn, pgx.RowToStructByPos[author], "list authors", `
		select m.metadata ->> 'agent_id', count(*)
		from memories m
		where m.namespace = $1 and coalesce(m.metadata ->> 'scope', 'private') = 'private' and m.metadata ->> 'agent_id' <> ''
		group by 1
		order by 2 desc, 1`, namespace)
	return list, total, err
}

// row is what the store knows of one memory's id.
type row struct {
	ID        string
	Live      bool
	Namespace string
	Title     string
	Content   []byte // its SHA-256
	Tags      []byte // JSON
	Source    string
	UpdatedAt string
	Metadata  []byte // JSON, without what receivers add
	Agent     string // author
	Private   bool
	Expired   bool // or about to: clocks differ
	Archived  bool
	Buried    bool // it was deleted or archived
	Lane      int16
	Repairing bool
	Stamp     string // changes when any of it does
}

func (r row) known() known { return known{Stamp: r.Stamp, Lane: r.Lane, Repairing: r.Repairing} }

// rows reads what the store knows of the ids. namespaces, as many, are where those are that it does not know.
func (s *store) rows(ctx context.Context, ids, namespaces []string) (map[string]row, error) {
	list, err := collect(ctx, s.conn, pgx.RowToStructByPos[row], "read memories", `
		select i.id, m.id is not null, coalesce(m.namespace, ''), coalesce(m.title, ''), coalesce(sha256(convert_to(m.content, 'UTF8')), ''),
		       coalesce(to_jsonb(m.tags::text[])::text, ''), coalesce(m.source, ''), coalesce(memory_time(m.updated_at), ''),
		       coalesce((m.metadata - 'reflection_origin')::text, ''), coalesce(m.metadata ->> 'agent_id', ''),
		       coalesce(m.metadata ->> 'scope', 'private') = 'private', `+expired+`, a.id is not null, t.id is not null,
		       coalesce(outbox_lane(m.namespace), t.lane, outbox_lane(a.namespace), outbox_lane(i.namespace)),
		       exists (select from repairs r where r.peer = $3 and r.subject = 'memory' and r.key = i.id`+notOurs+`),
		       jsonb_build_array(m.namespace, md5(m.title), m.updated_at, m.version, t.entry, a.archived_at)::text
		from unnest($1::text[], $2::text[]) i (id, namespace)
		left join memories m on m.id = i.id
		left join archived_memories a on a.id = i.id
		left join tombstones t on t.id = i.id`, ids, namespaces, s.peer)
	if err != nil {
		return nil, err
	}
	found := make(map[string]row, len(list))
	for _, r := range list {
		found[r.ID] = r
	}
	return found, nil
}

// expired is whether the memory m counts as expired at a peer whose clock is ahead a little.
const expired = `coalesce(coalesce(m.expires_at, m.created_at + case m.tier when 'short' then interval '6 hours' when 'mid' then interval '7 days' end)
	<= now() + interval '5 minutes', false)`

// notOurs leaves those of the repairs r out that this comparison has asked for.
const notOurs = `
	and not exists (select from verify_found f where f.subject = r.subject and f.key = r.key and f.repaired)`

// hidden is a memory that the peer has not shown in a list.
type hidden struct {
	ID      string
	Title   string // its hash, by which they are ordered
	Agent   string
	Private bool
	Expired bool
}

// hidden returns memories of a namespace that the peer has not shown, after a hash of the title, at most limit.
func (s *store) hidden(ctx context.Context, namespace, after string, limit int) ([]hidden, error) {
	return collect(ctx, s.conn, pgx.RowToStructByPos[hidden], "look for what was not shown", `
		select m.id, md5(m.title), coalesce(m.metadata ->> 'agent_id', ''), coalesce(m.metadata ->> 'scope', 'private') = 'private', `+expired+`
		from memories m
		where m.namespace = $1 and md5(m.title) > $2 and not exists (select from verify_shown s where s.key = m.id)
		order by md5(m.title)
		limit $3`, namespace, after, limit)
}

// known is what tells whether the store's side of a subject has changed.
type known struct {
	Stamp     string
	Lane      int16
	Repairing bool
}

// mark is the end of a lane at one moment.
type mark struct {
	Lane    int16
	Waiting int64 // the largest entry that waits for its dispatch, 0 if none
	Head    int64 // the number of the last batch
}

// marks are the ends of lanes now.
func (s *store) marks(ctx context.Context, lanes []int16) ([]mark, error) {
	return collect(ctx, s.conn, pgx.RowToStructByPos[mark], "look at the lanes", `
		select l.lane, coalesce((select max(u.entry) from undispatched u where u.lane = l.lane), 0),
		       coalesce((select max(b.number) from batches b where b.lane = l.lane), 0)
		from unnest($1::smallint[]) l (lane)`, lanes)
}

// reached returns those of the marks up to which the peer has everything, for certain: nothing that may still arrive is left either.
func (s *store) reached(ctx context.Context, marks []mark) (map[int16]bool, error) {
	lanes, waiting, heads := make([]int16, len(marks)), make([]int64, len(marks)), make([]int64, len(marks))
	for i, m := range marks {
		lanes[i], waiting[i], heads[i] = m.Lane, m.Waiting, m.Head
	}
	list, err := collect(ctx, s.conn, pgx.RowTo[int16], "look how far the peer is", `
		select k.lane
		from unnest($2::smallint[], $3::bigint[], $4::bigint[]) k (lane, waiting, head)
		where not exists (select from undispatched u where u.lane = k.lane and u.entry <= k.waiting)
		  and not exists (select from batches b where b.lane = k.lane and b.verdict = 'pending' and (b.number <= k.head or b.first_entry <= k.waiting))
		  and not exists (
			select from lagging g
			where g.peer = $1 and g.lane = k.lane
			  and (g.cursor < k.head or exists (
				select from batches b where b.lane = g.lane and b.number > g.cursor and b.first_entry <= k.waiting)))
		  and not exists (select from doubts d where d.peer = $1 and d.lane = k.lane)`, s.peer, lanes, waiting, heads)
	if err != nil {
		return nil, err
	}
	found := make(map[int16]bool, len(list))
	for _, lane := range list {
		found[lane] = true
	}
	return found, nil
}

// collect reads all rows of a query.
func collect[T any](ctx context.Context, conn *pgxpool.Conn, to pgx.RowToFunc[T], what, sql string, args ...any) ([]T, error) {
	rows, err := conn.Query(ctx, sql, args...)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", what, err)
	}
	list, err := pgx.CollectRows(rows, to)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", what, err)
	}
	return slices.Clip(list), nil
}
