// Package pgtest gives each test a fresh Postgres database of its own.
//
// The databases are on the server that TEST_DATABASE_URL names (its user must be allowed to create databases), else on a
// server that the test binary starts when the first test asks for a database and stops at its end. A package that uses it
// has a TestMain:
//
//	func TestMain(m *testing.M) {
//		pgtest.Main(m, pgtest.Migrated(), pgtest.WithLeakCheck())
//	}
//
// Where no server can be had, tests are skipped, with what to do about it; where the variable CI is "true", they fail.
package pgtest

import (
	"context"
	"errors"
	"fmt"
	"os"
	"testing" //nolint:depguard // only tests import this package
	"time"

	"github.com/jackc/pgx/v5/pgxpool"
	"go.uber.org/goleak"

	"quorumbox/migrations"
)

const (
	// ServerVariable names the environment variable with the connection string of a server to use.
	ServerVariable = "TEST_DATABASE_URL"

	// PoolConns is the size of the pools that New returns: enough for a test's own use beside a River client, and for 20
	// such tests at once within the server's 200 connections.
	PoolConns = 10

	// setupTimeout bounds the start of the server with the preparation of the template, and each clone or drop.
	setupTimeout = 3 * time.Minute

	// closeTimeout bounds how long a test's pool may take to close: longer means a connection that was never released.
	closeTimeout = 15 * time.Second
)

// Option changes what Main does.
type Option func(*options)

type options struct {
	templateName string
	prepare      func(ctx context.Context, url string) error
	leakCheck    bool
	leakOptions  []goleak.Option
}

// WithTemplate makes every database that New and URL return a copy of one that prepare has filled. prepare is called once per test binary, when the first test asks for a database, and must leave no connection
// open. The name appears in the names of the databases.
func WithTemplate(name string, prepare func(ctx context.Context, url string) error) Option {
	return func(o *options) { o.templateName, o.prepare = name, prepare }
}

// Migrated makes every database that New and URL return a copy of one with all migrations.
func Migrated() Option {
	return WithTemplate("migrated", func(ctx context.Context, url string) error {
		_, err := migrations.Up(ctx, url)
		return err
	})
}

// WithLeakCheck makes Main fail the run when goroutines are left after all tests have passed.
func WithLeakCheck(opts ...goleak.Option) Option {
	return func(o *options) { o.leakCheck, o.leakOptions = true, opts }
}

// The one server of a test binary. Tests reach their package's TestMain by no parameter, so it has to stand here.
var shared server //nolint:gochecknoglobals // see above

// Main runs the tests, stops the server if one was started, and exits the process. Call it last in TestMain.
func Main(m *testing.M, opts ...Option) {
	shared.configure(opts)
	code := m.Run()
	if err := shared.stop(); err != nil {
		fmt.Fprintln(os.Stderr, "pgtest:", err)
		code = max(code, 1)
	}
	if shared.options.leakCheck && code == 0 {
		if err := goleak.Find(shared.options.leakOptions...); err != nil {
			fmt.Fprintln(os.Stderr, "pgtest: goroutines left after the tests:", err)
			code = 1
		}
	}
	os.Exit(code)
}

// New returns a pool of connections to a fresh database: a copy of the template, or an empty one where [Main] was given none.
// When the test ends the pool is closed and the database dropped. It may be called several times, and by parallel tests.
func New(tb testing.TB) *pgxpool.Pool {
	tb.Helper()
	config, err := pgxpool.ParseConfig(URL(tb))
	if err != nil {
		tb.Fatalf("pgtest: %v", err)
	}
	config.MaxConns = PoolConns
	pool, err := pgxpool.NewWithConfig(tb.Context(), config)
	if err != nil {
		tb.Fatalf("pgtest: open a pool: %v", err)
	}
	tb.Cleanup(func() { closePool(tb, pool, closeTimeout) })
	return pool
}

// URL returns the connection string of a fresh database like that of New, for child processes and for pools with settings
// of their own. The database is dropped when the test ends, with whatever connections it still has.
func URL(tb testing.TB) string {
	tb.Helper()
	return newDatabase(tb, fromTemplate)
}

// EmptyURL returns the connection string of a fresh, empty database, whatever template there is: for tests of migrations.
func EmptyURL(tb testing.TB) string {
	tb.Helper()
	return newDatabase(tb, empty)
}

func newDatabase(tb testing.TB, what content) string {
	tb.Helper()
	if err := shared.start(tb.Context()); err != nil {
		refuse(tb, err)
	}
	ctx, cancel := context.WithTimeout(tb.Context(), setupTimeout)
	defer cancel()
	name, err := shared.create(ctx, what)
	if err != nil {
		tb.Fatalf("pgtest: %v", err)
	}
	tb.Cleanup(func() {
		// The test's own context has ended by now.
		ctx, cancel := context.WithTimeout(context.WithoutCancel(tb.Context()), setupTimeout)
		defer cancel()
		if err := shared.drop(ctx, name); err != nil {
			tb.Errorf("pgtest: %v", err)
		}
	})
	return shared.url(name)
}

// refuse skips the test where there is no server, and fails it where one is expected.
func refuse(tb testing.TB, err error) {
	tb.Helper()
	if os.Getenv("CI") == "true" || !errors.Is(err, errNoServer) {
		tb.Fatalf("pgtest: %v", err)
	}
	tb.Skipf("SKIPPED, NOT TESTED: %v\n"+
		"Install Postgres 14 or newer (Debian: apt-get install postgresql), or set %s to the connection string of a server "+
		"whose user may create databases.", err, ServerVariable)
}

// closePool reports connections that the test has not released instead of waiting for them for ever.
func closePool(tb testing.TB, pool *pgxpool.Pool, patience time.Duration) {
	tb.Helper()
	closed := make(chan struct{})
	go func() {
		pool.Close()
		close(closed)
	}()
	timer := time.NewTimer(patience)
	defer timer.Stop()
	select {
	case <-closed:
	case <-timer.C:
		tb.Errorf("pgtest: %d connections of the pool were not released within %s after the test",
			pool.Stat().AcquiredConns(), patience)
	}
}
