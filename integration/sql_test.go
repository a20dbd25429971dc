package integration

import (
	"context"
	"testing"

	"github.com/jackc/pgx/v5"
)

// strings returns the one column of a query.
func (f *fleet) strings(ctx context.Context, sql string, args ...any) ([]string, error) {
	rows, err := f.pool.Query(ctx, sql, args...)
	if err != nil {
		return nil, err
	}
	return pgx.CollectRows(rows, pgx.RowTo[string])
}

// count returns the one number of a query.
func (f *fleet) count(t *testing.T, sql string, args ...any) int {
	t.Helper()
	var n int
	if err := f.pool.QueryRow(t.Context(), sql, args...).Scan(&n); err != nil {
		t.Fatalf("%s: %v", sql, err)
	}
	return n
}
