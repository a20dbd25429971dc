package migrations_test

import (
	"context"
	"testing"

	"github.com/jackc/pgx/v5/pgxpool"

	"quorumbox/internal/pgtest"
	"quorumbox/migrations"
)

// Pending and Check say the same of a database.
func TestExpected(t *testing.T) {
	t.Parallel()
	expected, err := migrations.NewExpected()
	if err != nil {
		t.Fatal(err)
	}
	url := pgtest.EmptyURL(t)
	pool, err := pgxpool.New(t.Context(), url)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(pool.Close)
	all, err := migrations.List(t.Context(), url)
	if err != nil {
		t.Fatal(err)
	}
	for _, tt := range []struct {
		name, sql string // what makes the state
		want      int
	}{
		{"nothing", "", len(all)},
		{"migrated", "up", 0},
		{"one of ours lacks", `delete from quorumbox_migrations where version_id = 3`, 1},
		{"one of River's lacks, too", `delete from river_migration where version = 6`, 2},
		{"an old River", `alter table river_migration rename column line to other`, len(all)},
	} {
		switch tt.sql {
		case "":
		case "up":
			if _, err := migrations.Up(t.Context(), url); err != nil {
				t.Fatal(err)
			}
		default:
			if _, err := pool.Exec(t.Context(), tt.sql); err != nil {
				t.Fatal(err)
			}
		}
		if got, err := expected.Pending(t.Context(), pool); err != nil || got != tt.want {
			t.Errorf("%s: got %d, %v, want %d", tt.name, got, err, tt.want)
		}
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if _, err := expected.Pending(ctx, pool); err == nil {
		t.Error("a database that cannot be asked: got no error")
	}
}
