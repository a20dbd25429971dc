package pgtest_test

import (
	"context"
	"errors"
	"os"
	"testing"

	"github.com/jackc/pgx/v5"

	"quorumbox/internal/pgtest"
)

func TestMain(m *testing.M) {
	pgtest.Main(m, pgtest.WithTemplate("Numbers 1..3", fill), pgtest.WithLeakCheck())
}

// fill stands for migrations.
func fill(ctx context.Context, url string) error {
	conn, err := pgx.Connect(ctx, url)
	if err != nil {
		return err
	}
	_, err = conn.Exec(ctx, `create table numbers (n int primary key); insert into numbers values (1), (2), (3)`)
	return errors.Join(err, conn.Close(ctx))
}

func usesOwnServer() bool { return os.Getenv(pgtest.ServerVariable) == "" }
