package refpeer

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"net/url"
	"path/filepath"

	_ "modernc.org/sqlite" // the database/sql driver "sqlite"
)

// store is the durable state: one file, one writing connection, and a few
// reading ones that never wait for it (WAL).
//
// The goroutine of [store.write], which openStore starts and close ends, owns
// the writing connection and everything marked below. It takes what waits
// together into one transaction (group commit), so that a push is never half
// applied and many small ones cost little.
//
// Commits survive a kill of the process. They are not synced one by one, so a
// crash of the machine may lose the last ones.
type store struct {
	readers *sql.DB
	writers *sql.DB
	lock    *sql.DB // keeps other peers out of the folder

	jobs    chan *job     // unbuffered: a job that was taken is done
	closing chan struct{} // closed by close
	stopped chan struct{} // closed by write

	// Owned by write:
	conn     *sql.Conn
	stmts    statements
	lastSeq  int64
	lastPush int64
	items    []byte // scratch of the log row being written
	// mayEmbed is false while there is no embedding for sure.
	mayEmbed bool
}

// statements are prepared once on the writing connection.
type statements struct {
	begin, commit, rollback          *sql.Stmt
	insertMemory, byTitle            *sql.Stmt
	updateMemory, deleteMemory       *sql.Stmt
	insertLog                        *sql.Stmt
	insertNonce, deleteNonce         *sql.Stmt
	quotaUsed, setQuota, forgetQuota *sql.Stmt

	namespaceOf                            *sql.Stmt
	archiveMemory, readArchived, unarchive *sql.Stmt
	insertLink, reachable                  *sql.Stmt
	upsertPending, readPending, decide     *sql.Stmt
	setStandard, hasStandard, clear        *sql.Stmt
	upsertEmbedding, dropEmbedding         *sql.Stmt
}

// openStore opens or creates the file refpeer.db in dir.
func openStore(ctx context.Context, dir string, sync Switch) (_ *store, err error) {
	dir, err = filepath.Abs(dir) // a URL's path must not be relative
	if err != nil {
		return nil, fmt.Errorf("data folder: %w", err)
	}
	path := filepath.Join(dir, "refpeer.db")
	s := &store{jobs: make(chan *job), closing: make(chan struct{}), stopped: make(chan struct{})}
	defer func() {
		if err != nil {
			err = errors.Join(err, s.closeFile())
		}
	}()
	synchronous := "synchronous(normal)"
	if !sync.isOn(true) {
		synchronous = "synchronous(off)"
	}
	if s.lock, err = lockFolder(ctx, dir); err != nil {
		return nil, err
	}
	if s.writers, err = openDB(path, 1, synchronous, "cache_size(-16384)", "foreign_keys(1)"); err != nil {
		return nil, err
	}
	if s.conn, err = s.writers.Conn(ctx); err != nil {
		return nil, fmt.Errorf("open %s: %w", path, err)
	}
	if err = createTables(ctx, s.conn); err != nil {
		return nil, fmt.Errorf("create tables in %s: %w", path, err)
	}
	if err = s.stmts.prepare(ctx, s.conn); err != nil {
		return nil, err
	}
	row := s.conn.QueryRowContext(ctx,
		`select coalesce(max(last_seq), 0), coalesce(max(push), 0), exists (select 1 from embeddings) from log`)
	if err = row.Scan(&s.lastSeq, &s.lastPush, &s.mayEmbed); err != nil {
		return nil, fmt.Errorf("read the log's end: %w", err)
	}
	if s.readers, err = openDB(path, 4, "query_only(1)"); err != nil {
		return nil, err
	}
	go s.write(context.WithoutCancel(ctx))
	return s, nil
}

// lockFolder keeps every other peer out of dir, in this process or another,
// until the database it returns is closed or the process ends. The lock is
// SQLite's own, on an empty file beside the peer's.
func lockFolder(ctx context.Context, dir string) (*sql.DB, error) {
	dsn := url.URL{Scheme: "file", Path: filepath.Join(dir, "refpeer.lock"), RawQuery: "_pragma=busy_timeout(2000)"}
	db, err := sql.Open("sqlite", dsn.String())
	if err != nil {
		return nil, fmt.Errorf("lock %s: %w", dir, err)
	}
	db.SetMaxOpenConns(1) // it stays open and holds the lock
	if _, err := db.ExecContext(ctx, `begin exclusive`); err != nil {
		return nil, errors.Join(
			fmt.Errorf("lock %s (does another peer use it? stop that one, or choose another folder): %w", dir, err), db.Close())
	}
	return db, nil
}

func openDB(path string, conns int, pragmas ...string) (*sql.DB, error) {
	query := url.Values{}
	for _, pragma := range append([]string{
		"busy_timeout(10000)",
		"journal_mode(wal)",
		"temp_store(memory)",
		"wal_autocheckpoint(4000)", // pages of 4 KiB: few syncs, a log of about 16 MiB
	}, pragmas...) {
		query.Add("_pragma", pragma)
	}
	dsn := url.URL{Scheme: "file", Path: path, RawQuery: query.Encode()}
	db, err := sql.Open("sqlite", dsn.String())
	if err != nil {
		return nil, fmt.Errorf("open %s: %w", path, err)
	}
	db.SetMaxOpenConns(conns)
	return db, nil
}

func (st *statements) prepare(ctx context.Context, conn *sql.Conn) error {
	for _, s := range []struct {
		stmt **sql.Stmt
		text string
	}{
		{&st.begin, `begin immediate`},
		{&st.commit, `commit`},
		{&st.rollback, `rollback`},
		{&st.insertMemory, `insert into memories (id, namespace, title, updated_at, payload) values (?, ?, ?, ?, ?)
			on conflict do nothing`},
		{&st.byTitle, `select rowid, payload from memories where namespace = ? and title = ?`},
		{&st.updateMemory, `update memories set updated_at = ?, payload = ? where rowid = ?`},
		{&st.deleteMemory, `delete from memories where id = ?`},
		{&st.insertLog, `insert into log (last_seq, push, at, idempotency_key, peer_id, nonce, credential, traceparent, items)
			values (?, ?, ?, ?, ?, ?, ?, ?, ?)`},
		{&st.insertNonce, `insert into nonces (seq, peer_id, fingerprint) values (?, ?, ?)`},
		{&st.deleteNonce, `delete from nonces where seq = ?`},
		{&st.quotaUsed, `select used, bytes, links from quota where day = ? and agent_id = ? and namespace = ?`},
		{&st.setQuota, `insert into quota (day, agent_id, namespace, used, bytes, links) values (?, ?, ?, ?, ?, ?)
			on conflict do update set used = excluded.used, bytes = excluded.bytes, links = excluded.links`},
		{&st.forgetQuota, `delete from quota where day < ?`},
		{&st.namespaceOf, `select namespace from memories where id = ?`},
		{&st.archiveMemory, `insert or replace into archived_memories (id, namespace, title, payload, archived_at, reason)
			select id, namespace, title, payload, ?, ? from memories where id = ?`},
		{&st.readArchived, `select payload from archived_memories where id = ?`},
		{&st.unarchive, `delete from archived_memories where id = ?`},
		{&st.insertLink, `insert into memory_links (source_id, target_id, relation, created_at, valid_from, valid_until,
			observed_by, signature, attest_level) values (?, ?, ?, ?, ?, ?, ?, ?, ?) on conflict do nothing`},
		{&st.reachable, `with recursive reached (id) as (
				values (?)
				union
				select l.target_id from memory_links l join reached r on l.source_id = r.id where l.relation = ?)
			select 1 from reached where id = ?`},
		{&st.upsertPending, `insert or replace into pending_actions (id, action_type, memory_id, namespace, payload, requested_by,
			requested_at, status, decided_by, decided_at, approvals) values (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)`},
		{&st.readPending, `select status, action_type, memory_id, payload from pending_actions where id = ?`},
		{&st.decide, `update pending_actions set status = ?, decided_by = ?, decided_at = ? where id = ?`},
		{&st.setStandard, `insert or replace into namespace_meta (namespace, standard_id, parent_namespace, updated_at)
			values (?, ?, ?, ?)`},
		{&st.hasStandard, `select 1 from namespace_meta where namespace = ?`},
		{&st.clear, `delete from namespace_meta where namespace = ?`},
		{&st.upsertEmbedding, `insert or replace into embeddings (memory_id, model, dim, vector) values (?, ?, ?, ?)`},
		{&st.dropEmbedding, `delete from embeddings where memory_id = ?`},
	} {
		var err error
		*s.stmt, err = conn.PrepareContext(ctx, s.text) //nolint:sqlclosecheck // they live as long as conn
		if err != nil {
			return fmt.Errorf("prepare %q: %w", s.text, err)
		}
	}
	return nil
}

// close waits for the running transaction and closes the file.
func (s *store) close() error {
	close(s.closing)
	<-s.stopped
	return s.closeFile()
}

func (s *store) closeFile() error {
	var errs []error
	if s.conn != nil {
		errs = append(errs, s.conn.Close())
	}
	if s.writers != nil {
		errs = append(errs, s.writers.Close())
	}
	if s.readers != nil {
		errs = append(errs, s.readers.Close())
	}
	if s.lock != nil {
		errs = append(errs, s.lock.Close())
	}
	return errors.Join(errs...)
}
