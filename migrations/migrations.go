// Package migrations brings a database to the schema that this version of the program needs: River's tables and ours, under one lock.
package migrations

import (
	"context"
	"database/sql"
	"embed"
	"errors"
	"fmt"
	"io/fs"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgxpool"
	"github.com/jackc/pgx/v5/stdlib"
	"github.com/pressly/goose/v3"
	"github.com/pressly/goose/v3/database"
	"github.com/riverqueue/river/riverdriver/riverpgxv5"
	"github.com/riverqueue/river/rivermigrate"

	"quorumbox/internal/locks"
)

const (
	// lockTimeout bounds one wait for a table's lock behind a running transaction. Whoever comes meanwhile queues up behind the migration,
	// so this is how long writers can be held up; then the migration steps back, lets them pass, and tries again.
	lockTimeout = 200 * time.Millisecond

	// firstPause and longestPause are those between two such attempts: long enough for the writers to get through.
	firstPause   = 300 * time.Millisecond
	longestPause = 5 * time.Second

	// DefaultPatience is how long a migration is tried again behind transactions that hold what it needs.
	DefaultPatience = 10 * time.Minute

	// statementTimeout bounds one migration statement.
	statementTimeout = 5 * time.Minute

	// versionTable is where goose keeps which of our migrations have run.
	versionTable = "quorumbox_migrations"
)

//go:embed *.sql
var files embed.FS

// ErrPending says that the database is behind this program. [Check] wraps it with the command to run.
var ErrPending = errors.New("the database has pending migrations")

// Status is one migration and whether it has been applied.
type Status struct {
	Name    string    // "river 6" or "0001_create_memories.sql"
	Applied bool      // false: pending
	At      time.Time // zero for River's, which record no time we can rely on, and for pending ones
}

// Up is [Options.Up] with the defaults.
func Up(ctx context.Context, url string) (applied []string, err error) { return Options{}.Up(ctx, url) }

// Options say how to migrate. The zero value is good.
type Options struct {
	// Patience is how long a migration is tried again while a transaction holds what it needs. Defaults to [DefaultPatience].
	Patience time.Duration
	// Waiting is called when that is so, before each pause. Nil tells nobody.
	Waiting func(err error, pause time.Duration)
}

// Up applies all pending migrations to the database at url and returns the names of those that it applied. It is safe to run
// in several processes at once: one advisory lock, held on a connection of its own, lets them in one after the other.
// Each migration is a transaction of its own, so an interrupted run leaves a database that a second run completes.
//
// It is safe to run while writers write. A migration waits for a lock for a fifth of a second at a time, and then steps back: writers never
// queue up behind it for longer.
func (o Options) Up(ctx context.Context, url string) (applied []string, err error) {
	err = withDatabase(ctx, url, func(pool *pgxpool.Pool, provider *goose.Provider, river *rivermigrate.Migrator[pgx.Tx]) error {
		if err := checkEncoding(ctx, pool); err != nil {
			return err
		}
		unlock, err := lock(ctx, pool)
		if err != nil {
			return err
		}
		defer unlock()

		return o.patiently(ctx, func() error {
			result, err := river.Migrate(ctx, rivermigrate.DirectionUp, nil)
			if err != nil {
				return fmt.Errorf("apply River's migrations: %w", err)
			}
			for _, v := range result.Versions {
				applied = append(applied, riverName(v.Version))
			}
			results, err := provider.Up(ctx)
			if partial, ok := errors.AsType[*goose.PartialError](err); ok {
				results = partial.Applied
			}
			for _, r := range results {
				applied = append(applied, r.Source.Path)
			}
			if err != nil {
				return fmt.Errorf("apply migrations: %w", err)
			}
			return nil
		})
	})
	return applied, err
}

// List returns every migration of this program in the order in which they run.
func List(ctx context.Context, url string) (list []Status, err error) {
	err = withDatabase(ctx, url, func(_ *pgxpool.Pool, provider *goose.Provider, river *rivermigrate.Migrator[pgx.Tx]) error {
		existing, err := river.ExistingVersions(ctx)
		if err != nil {
			return fmt.Errorf("read River's migrations: %w", err)
		}
		have := make(map[int]bool, len(existing))
		for _, v := range existing {
			have[v.Version] = true
		}
		for _, v := range river.AllVersions() {
			list = append(list, Status{Name: riverName(v.Version), Applied: have[v.Version]})
		}
		ours, err := provider.Status(ctx)
		if err != nil {
			return fmt.Errorf("read migrations: %w", err)
		}
		for _, s := range ours {
			list = append(list, Status{Name: s.Source.Path, Applied: s.State == goose.StateApplied, At: s.AppliedAt})
		}
		return nil
	})
	return list, err
}

// Check returns nil if the database at url is ready for this program, an error that wraps [ErrPending] and names the command to run
// if it is behind, and any other error if it cannot be read.
func Check(ctx context.Context, url string) error {
	list, err := List(ctx, url)
	if err != nil {
		return err
	}
	pending := 0
	for _, s := range list {
		if !s.Applied {
			pending++
		}
	}
	if pending > 0 {
		return fmt.Errorf("%w (%d of %d): run `worker migrate up`", ErrPending, pending, len(list))
	}
	return nil
}

func riverName(version int) string { return fmt.Sprintf("river %d", version) }

func withDatabase(ctx context.Context, url string, do func(*pgxpool.Pool, *goose.Provider, *rivermigrate.Migrator[pgx.Tx]) error) error {
	cfg, err := pgxpool.ParseConfig(url)
	if err != nil {
		return fmt.Errorf("parse the database URL: %w", err)
	}
	cfg.MaxConns = 4 // the lock's, goose's, and two for River
	cfg.ConnConfig.RuntimeParams["application_name"] = "quorumbox migrate"
	cfg.ConnConfig.RuntimeParams["lock_timeout"] = milliseconds(lockTimeout)
	cfg.ConnConfig.RuntimeParams["statement_timeout"] = milliseconds(statementTimeout)
	pool, err := pgxpool.NewWithConfig(ctx, cfg)
	if err != nil {
		return fmt.Errorf("open the database: %w", err)
	}
	defer pool.Close()
	if err := pool.Ping(ctx); err != nil {
		return fmt.Errorf("connect to the database: %w", err)
	}

	db := stdlib.OpenDBFromPool(pool)
	defer func() { _ = db.Close() }()
	provider, err := newProvider(db)
	if err != nil {
		return err
	}
	river, err := rivermigrate.New(riverpgxv5.New(pool), nil)
	if err != nil {
		return fmt.Errorf("load River's migrations: %w", err)
	}
	return do(pool, provider, river)
}

func newProvider(db *sql.DB) (*goose.Provider, error) {
	store, err := database.NewStore(database.DialectPostgres, versionTable)
	if err != nil {
		return nil, fmt.Errorf("load migrations: %w", err)
	}
	sqlFiles, err := fs.Sub(files, ".")
	if err != nil {
		return nil, fmt.Errorf("load migrations: %w", err)
	}
	provider, err := goose.NewProvider("", db, sqlFiles, goose.WithStore(store), goose.WithDisableGlobalRegistry(true))
	if err != nil {
		return nil, fmt.Errorf("load migrations: %w", err)
	}
	return provider, nil
}

// lock waits for the advisory lock without the lock timeout: another process that migrates is waited for as long as ctx allows.
func lock(ctx context.Context, pool *pgxpool.Pool) (unlock func(), err error) {
	conn, err := pool.Acquire(ctx)
	if err != nil {
		return nil, fmt.Errorf("lock: %w", err)
	}
	if _, err := conn.Exec(ctx, `set lock_timeout = 0; set statement_timeout = 0`); err != nil {
		conn.Release()
		return nil, fmt.Errorf("lock: %w", err)
	}
	if _, err := conn.Exec(ctx, `select pg_advisory_lock($1)`, locks.Migrate); err != nil {
		conn.Release()
		return nil, fmt.Errorf("lock: %w", err)
	}
	return func() {
		// Closing the connection releases the lock whatever state ctx is in.
		_ = conn.Conn().Close(context.WithoutCancel(ctx))
		conn.Release()
	}, nil
}

// checkEncoding refuses a database that does not speak UTF-8: lanes hash the namespace's bytes, and peers get them as JSON.
func checkEncoding(ctx context.Context, pool *pgxpool.Pool) error {
	var encoding string
	if err := pool.QueryRow(ctx, `show server_encoding`).Scan(&encoding); err != nil {
		return fmt.Errorf("read the database's encoding: %w", err)
	}
	if encoding != "UTF8" {
		return fmt.Errorf("the database's encoding is %s: create it with encoding 'UTF8'", encoding)
	}
	return nil
}

func milliseconds(d time.Duration) string { return fmt.Sprintf("%d", d.Milliseconds()) }
