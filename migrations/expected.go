package migrations

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"strconv"
	"strings"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"
	"github.com/riverqueue/river/riverdriver/riverpgxv5"
	"github.com/riverqueue/river/rivermigrate"
)

// Expected are the migrations that this program needs, in a form that can be compared with a database again and again. It never changes.
type Expected struct {
	ours  []int64
	river []int64
}

// DB is a *pgxpool.Pool, a *pgx.Conn or a pgx.Tx.
type DB interface {
	QueryRow(ctx context.Context, sql string, args ...any) pgx.Row
}

// NewExpected returns the migrations of this program.
func NewExpected() (Expected, error) {
	var e Expected
	names, err := fs.Glob(files, "*.sql")
	if err != nil {
		return e, fmt.Errorf("list migrations: %w", err)
	}
	for _, name := range names {
		number, _, _ := strings.Cut(name, "_")
		version, err := strconv.ParseInt(number, 10, 64)
		if err != nil {
			return e, fmt.Errorf("migration %s has no number: %w", name, err)
		}
		e.ours = append(e.ours, version)
	}
	river, err := rivermigrate.New(riverpgxv5.New(nil), nil)
	if err != nil {
		return e, fmt.Errorf("load River's migrations: %w", err)
	}
	for _, v := range river.AllVersions() {
		e.river = append(e.river, int64(v.Version))
	}
	return e, nil
}

// Pending is what [Check] does, in one query of two small tables: it returns how many of the migrations the database lacks. One that knows further ones, of a
// later release, lacks nothing.
func (e Expected) Pending(ctx context.Context, db DB) (pending int, err error) {
	err = db.QueryRow(ctx, `
		select (select count(*) from unnest($1::bigint[]) v where not exists (
			select from quorumbox_migrations m where m.version_id = v and m.is_applied))
		     + (select count(*) from unnest($2::bigint[]) v where not exists (
			select from river_migration m where m.line = 'main' and m.version = v))`, e.ours, e.river).Scan(&pending)
	const undefinedTable, undefinedColumn = "42P01", "42703" // not migrated at all, or by a River of long ago
	if pgErr, ok := errors.AsType[*pgconn.PgError](err); ok && (pgErr.Code == undefinedTable || pgErr.Code == undefinedColumn) {
		return len(e.ours) + len(e.river), nil
	}
	if err != nil {
		return 0, fmt.Errorf("read migrations: %w", err)
	}
	return pending, nil
}
