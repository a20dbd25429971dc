//go:build unix

package bench

import (
	"context"
	"fmt"
	"strings"

	"github.com/jackc/pgx/v5"
)

// Statement is what the server spent on one statement, by the extension pg_stat_statements. Times of a function include those of the
// statements inside it, which are listed too.
type Statement struct {
	TotalMS float64 `json:"total_ms"`
	Calls   int64   `json:"calls"`
	MeanMS  float64 `json:"mean_ms"`
	Rows    int64   `json:"rows"`
	Hits    int64   `json:"shared_blocks_hit"`
	WAL     int64   `json:"wal_bytes"`
	Query   string  `json:"query"`
}

func (s *stack) resetStatements(ctx context.Context) error {
	if s.cfg.Statements == 0 {
		return nil
	}
	if _, err := s.pool.Exec(ctx, `create extension if not exists pg_stat_statements`); err != nil {
		return fmt.Errorf("count statements (Debian: the package postgresql-contrib): %w", err)
	}
	if _, err := s.pool.Exec(ctx, `select pg_stat_statements_reset()`); err != nil {
		return fmt.Errorf("count statements: %w", err)
	}
	return nil
}

func (s *stack) statements(ctx context.Context) ([]Statement, error) {
	if s.cfg.Statements == 0 {
		return nil, nil
	}
	rows, err := s.pool.Query(ctx, `
		select total_exec_time, calls, mean_exec_time, rows, shared_blks_hit, wal_bytes::bigint, query
		from pg_stat_statements
		order by total_exec_time desc
		limit $1`, s.cfg.Statements)
	if err != nil {
		return nil, fmt.Errorf("read statements: %w", err)
	}
	list, err := pgx.CollectRows(rows, pgx.RowToStructByPos[Statement])
	if err != nil {
		return nil, fmt.Errorf("read statements: %w", err)
	}
	for i := range list {
		list[i].Query = strings.Join(strings.Fields(list[i].Query), " ")
	}
	return list, nil
}
