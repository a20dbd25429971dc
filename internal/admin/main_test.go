package admin_test

import (
	"context"
	"testing"

	"quorumbox/internal/pgtest"
	"quorumbox/migrations"
)

func TestMain(m *testing.M) {
	pgtest.Main(m, pgtest.WithTemplate("migrated", func(ctx context.Context, url string) error {
		_, err := migrations.Up(ctx, url)
		return err
	}), pgtest.WithLeakCheck())
}
