package integration

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"net/url"
	"os"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"
	"github.com/jackc/pgx/v5/pgxpool"

	"quorumbox/internal/localpg"
	"quorumbox/internal/pgtest"
)

// rolesFile is what an operator runs after each migration.
const rolesFile = "../deploy/postgres/roles.sql"

// rights are what the roles may do with each table: s(elect), i(nsert), u(pdate), d(elete). A role that is not named may do nothing. A table that a migration
// adds must be added here and in the file.
var rights = map[string]map[string]string{ //nolint:gochecknoglobals // a table, as a constant would be
	"memories":             {"quorumbox_writer": "siud", "quorumbox_worker": "s"},
	"archived_memories":    {"quorumbox_writer": "siud", "quorumbox_worker": "s"},
	"memory_embeddings":    {"quorumbox_writer": "siud", "quorumbox_worker": "s"},
	"memory_links":         {"quorumbox_writer": "siud", "quorumbox_worker": "s"},
	"memory_uses":          {"quorumbox_writer": "siud", "quorumbox_worker": "sd"},
	"namespace_meta":       {"quorumbox_writer": "siud", "quorumbox_worker": "s"},
	"pending_actions":      {"quorumbox_writer": "siud", "quorumbox_worker": "s"},
	"tombstones":           {"quorumbox_writer": "siud", "quorumbox_worker": "sd"},
	"outbox":               {"quorumbox_writer": "si", "quorumbox_worker": "sd"}, // the viewer: some columns
	"undispatched":         {"quorumbox_writer": "si", "quorumbox_worker": "sd", "quorumbox_viewer": "s"},
	"batches":              {"quorumbox_writer": "s", "quorumbox_worker": "siud", "quorumbox_viewer": "s"},
	"peers":                {"quorumbox_worker": "siud", "quorumbox_viewer": "s"},
	"lagging":              {"quorumbox_worker": "siud", "quorumbox_viewer": "s"},
	"doubts":               {"quorumbox_worker": "siud", "quorumbox_viewer": "s"},
	"repairs":              {"quorumbox_worker": "siud", "quorumbox_viewer": "s"},
	"refusals":             {"quorumbox_worker": "siud", "quorumbox_viewer": "s"},
	"snapshots":            {"quorumbox_worker": "siud", "quorumbox_viewer": "s"},
	"kept":                 {"quorumbox_worker": "siud"},
	"workers":              {"quorumbox_worker": "siud", "quorumbox_viewer": "s"},
	"xmin_holders":         {"quorumbox_worker": "s", "quorumbox_viewer": "s"},
	"quorumbox_migrations": {"quorumbox_worker": "s", "quorumbox_viewer": "s"},
	"river_migration":      {"quorumbox_worker": "s", "quorumbox_viewer": "s"},
	"river_job":            {"quorumbox_worker": "siud"}, // the viewer: some columns
	"river_leader":         {"quorumbox_worker": "siud", "quorumbox_viewer": "s"},
	"river_queue":          {"quorumbox_worker": "siud", "quorumbox_viewer": "s"},
	"river_notification":   {"quorumbox_worker": "siud"},
}

// Writers, workers and viewers do all that they are there for with the rights of their roles, and nothing else.
func TestRoles(t *testing.T) {
	t.Parallel()
	f, as := fleetWithRoles(t)
	wantRights(t, f.pool)

	// Workers replicate, catch up, repair and prune.
	f.file(t, "url", []byte(as["worker"]))
	f.worker(t, "")
	f.peers[2].setFaults(t, `[{"status":503,"probability":0.2},{"mode":"lose_answer","probability":0.2},{"mode":"refuse_id","id":"m-1"}]`)
	writing := *f
	writing.pool = openAs(t, as["writer"])
	o := &operations{fleet: &writing}
	var denied atomic.Pointer[error]
	l := startLoad(t, 3, func(ctx context.Context, rng *rand.Rand, writer, n int) error {
		err := o.step(ctx, rng, writer, n)
		if isDenied(err) {
			denied.Store(&err)
		}
		return err
	})
	l.reach(t, 300)
	o.reachAllKinds(t)
	l.stop(t)
	if err := denied.Load(); err != nil {
		t.Errorf("a writer was denied something: %v", *err)
	}
	f.peers[2].setFaults(t, "")
	until(t, "something was pruned", func() []string {
		return holds(f.count(t, `select coalesce(min(first_entry), 0) from batches where number > 0`) > 1, "it was not")
	})
	f.operate(t, "refusals", "retry", "--all")
	f.operate(t, "peers", "pause", "peer-1")
	f.operate(t, "peers", "resume", "peer-1")
	f.operate(t, "verify", "--peer", "peer-2")
	f.convergeAll(t, changes)
	for _, w := range f.workers {
		if bytes := w.output(); strings.Contains(string(bytes), "permission denied") {
			t.Errorf("%s was denied something:\n%s", w.name, grep(string(bytes), "permission denied"))
		}
	}

	f.file(t, "url", []byte(as["viewer"]))
	f.operate(t, "status", "--json")

	wantLimits(t, f.pool)
	pools := map[string]*pgxpool.Pool{}
	for who, url := range as {
		pools[who] = openAs(t, url)
	}
	for _, c := range roleStatements() {
		tx, err := pools[c.who].Begin(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		_, err = tx.Exec(t.Context(), c.sql, pgx.QueryExecModeSimpleProtocol)
		if c.may && err != nil {
			t.Errorf("%s: %s: %v", c.who, c.sql, err)
		}
		if !c.may && !isDenied(err) {
			t.Errorf("%s: %s: got %v, want no right to do that", c.who, c.sql, err)
		}
		if err := tx.Rollback(t.Context()); err != nil {
			t.Error(err)
		}
	}
}

// roleStatement is whether a role may run a statement. What it does is rolled back.
type roleStatement struct {
	who string
	may bool
	sql string
}

func roleStatements() []roleStatement {
	const may, not = true, false
	return []roleStatement{
		{"writer", may, `select memory_delete('m-1')`},
		{"writer", may, `select verdict from batches`},
		{"writer", may, `insert into tombstones select * from tombstones where false`},
		{"writer", not, `update outbox set key = 'other'`},
		{"writer", not, `delete from outbox`},
		{"writer", not, `update undispatched set entry = 1`},
		{"writer", not, `update batches set verdict = 'met'`},
		{"writer", not, `select from peers`},
		{"writer", not, `select from river_job`},
		{"writer", not, `delete from river_job`},
		{"writer", not, `create table own (n int)`},
		{"writer", not, `alter table outbox add column n int`},
		{"writer", not, `set role quorumbox_migrator`},
		{"writer", not, `set role quorumbox_worker`},
		{"worker", may, `select payload from outbox`},
		{"worker", may, `delete from tombstones where false`},
		{"worker", may, `update batches set reason = reason`},
		{"worker", may, `select args, errors from river_job`},
		{"worker", not, `update tombstones set deleted_at = now()`},
		{"worker", not, `insert into memories (id) values ('m')`},
		{"worker", not, `update memories set content = ''`},
		{"worker", not, `delete from memories`},
		{"worker", not, `select memory_delete('m-1')`},
		{"worker", not, `select outbox_append('n', 'delete', 'k', null, null, null)`},
		{"worker", not, `drop table kept`},
		{"worker", not, `truncate outbox`},
		{"worker", not, `truncate river_job`},
		{"worker", not, `create table own (n int)`},
		{"worker", not, `set role quorumbox_migrator`},
		{"viewer", may, `select id, lane, kind, created_at from outbox`},
		{"viewer", may, `select kind, state, count(*) from river_job group by 1, 2`},
		{"viewer", may, `select * from lagging`},
		{"viewer", not, `select payload from outbox`},
		{"viewer", not, `select from memories`},
		{"viewer", not, `select args from river_job`},
		{"viewer", not, `select errors from river_job`},
		{"viewer", not, `update river_queue set paused_at = null`},
		{"viewer", not, `delete from lagging`},
		{"viewer", not, `create table own (n int)`},
		{"viewer", not, `set role quorumbox_worker`},
		{"migrate", may, `alter table outbox add column n int`},
		{"migrate", may, `create table own (n int)`},
		{"migrate", may, `create index own on batches (reason)`},
		{"migrate", not, `create role other`},
		{"migrate", not, `alter role worker superuser`},
		{"migrate", not, `drop role worker`},
		{"migrate", not, `create schema other authorization postgres`},
		{"migrate", not, `select pg_read_file('postgresql.conf')`},
		{"migrate", not, `set role quorumbox_worker`},
	}
}

// wantLimits checks that every user has the limits of its role, but for what an operator had set.
func wantLimits(t *testing.T, pool *pgxpool.Pool) {
	t.Helper()
	rows, err := pool.Query(t.Context(), `
		select rolname || ': ' || rolconnlimit || ' ' || array_to_string(array(select unnest(coalesce(rolconfig, '{}')) order by 1), ' ')
		from pg_roles
		where rolname in ('migrate', 'writer', 'worker', 'viewer')
		order by rolname`)
	if err != nil {
		t.Fatal(err)
	}
	got, err := pgx.CollectRows(rows, pgx.RowTo[string])
	if err != nil {
		t.Fatal(err)
	}
	want := []string{
		"migrate: 8 idle_in_transaction_session_timeout=1min lock_timeout=10s role=quorumbox_migrator statement_timeout=5min",
		"viewer: 10 idle_in_transaction_session_timeout=15s lock_timeout=2s statement_timeout=15s",
		"worker: 100 idle_in_transaction_session_timeout=30s lock_timeout=10s statement_timeout=2min",
		"writer: 33 idle_in_transaction_session_timeout=30s lock_timeout=10s statement_timeout=7s", // set before the file was run
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("limits (-want +got):\n%s", diff)
	}
}

// fleetWithRoles returns a fleet on a server of its own, whose pool is the superuser's, and the URLs of a migrator, a writer, a worker and a viewer. The tables belong to
// the role of the migrator; who runs the file is a member of it and may make roles, and nothing more.
func fleetWithRoles(t *testing.T) (f *fleet, as map[string]string) {
	t.Helper()
	pgtest.URL(t) // skips where there is no server
	server, err := localpg.Start(t.Context(), localpg.Options{Durability: localpg.NoSync})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		ctx, cancel := context.WithTimeout(context.WithoutCancel(t.Context()), time.Minute)
		defer cancel()
		if err := server.Stop(ctx); err != nil {
			t.Error(err)
		}
	})
	admin := openAs(t, server.URL("postgres"))
	do := func(pool *pgxpool.Pool, sql string) {
		t.Helper()
		if _, err := pool.Exec(t.Context(), sql, pgx.QueryExecModeSimpleProtocol); err != nil {
			t.Fatalf("%s: %v", sql, err)
		}
	}
	do(admin, `create role operator login password 'operator-password' createrole`)
	operator := openAs(t, loginURL(t, server.URL("postgres"), "operator"))
	do(operator, `
		create role quorumbox_migrator nologin;
		grant quorumbox_migrator to operator;
		create role migrate login password 'migrate-password' in role quorumbox_migrator;
		alter role migrate set role = 'quorumbox_migrator'`)
	do(admin, `create database fleet owner quorumbox_migrator`)
	as = map[string]string{"migrate": loginURL(t, server.URL("fleet"), "migrate")}
	if err := migrate(t.Context(), as["migrate"]); err != nil {
		t.Fatal(err)
	}
	text, err := os.ReadFile(rolesFile)
	if err != nil {
		t.Fatal(err)
	}
	file := openAs(t, loginURL(t, server.URL("fleet"), "operator"))
	do(file, string(text))
	for _, who := range []string{"writer", "worker", "viewer"} {
		do(operator, fmt.Sprintf(`create role %s login password '%s-password' in role quorumbox_%s`, who, who, who))
		as[who] = loginURL(t, server.URL("fleet"), who)
	}
	do(operator, `alter role writer set statement_timeout = '7s'; alter role writer connection limit 33`)
	for range 2 { // it can be repeated
		do(file, string(text))
	}
	return newFleet(t, setup{url: server.URL("fleet"), settings: "retention: {history: 1s}\n"}), as
}

// loginURL is a server's URL for another user.
func loginURL(t *testing.T, server, user string) string {
	t.Helper()
	u, err := url.Parse(server)
	if err != nil {
		t.Fatal(err)
	}
	u.User = url.UserPassword(user, user+"-password")
	return u.String()
}

func openAs(t *testing.T, url string) *pgxpool.Pool {
	t.Helper()
	pool, err := pgxpool.New(t.Context(), url)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(pool.Close)
	return pool
}

// wantRights compares what the roles may do with [rights], for every table there is.
func wantRights(t *testing.T, pool *pgxpool.Pool) {
	t.Helper()
	rows, err := pool.Query(t.Context(), `
		select c.relname, r.rolname, coalesce(string_agg(p.short, '' order by p.place), '')
		from pg_class c
		cross join unnest('{quorumbox_writer,quorumbox_worker,quorumbox_viewer}'::name[]) r (rolname)
		join (values ('select', 's', 1), ('insert', 'i', 2), ('update', 'u', 3), ('delete', 'd', 4), ('truncate', 't', 5), ('references', 'r', 6), ('trigger', 'g', 7))
			p (name, short, place) on has_table_privilege(r.rolname, c.oid, p.name)
		where c.relnamespace = 'public'::regnamespace and c.relkind in ('r', 'v', 'p', 'm')
		group by c.relname, r.rolname`)
	if err != nil {
		t.Fatal(err)
	}
	got := map[string]map[string]string{}
	var table, role, may string
	if _, err := pgx.ForEachRow(rows, []any{&table, &role, &may}, func() error {
		if got[table] == nil {
			got[table] = map[string]string{}
		}
		got[table][role] = may
		return nil
	}); err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(rights, got); diff != "" {
		t.Errorf("what the roles may do with the tables (-want +got):\n%s", diff)
	}
	all, err := pool.Query(t.Context(), `
		select relname from pg_class where relnamespace = 'public'::regnamespace and relkind in ('r', 'v', 'p', 'm')`)
	if err != nil {
		t.Fatal(err)
	}
	tables, err := pgx.CollectRows(all, pgx.RowTo[string])
	if err != nil {
		t.Fatal(err)
	}
	for _, table := range tables {
		if rights[table] == nil {
			t.Errorf("table %s: no role has a right to it", table)
		}
	}
}

// operate runs a command of the program with the workers' settings to its end, which must be a success.
func (f *fleet) operate(t *testing.T, args ...string) {
	t.Helper()
	f.run(t, append(slices.Clone(args), "--config", f.config)...)
}

func isDenied(err error) bool {
	e, ok := errors.AsType[*pgconn.PgError](err)
	return ok && e.Code == "42501"
}

// grep is the lines that hold a text.
func grep(text, what string) string {
	return strings.Join(slices.DeleteFunc(strings.Split(text, "\n"), func(line string) bool { return !strings.Contains(line, what) }), "\n")
}
