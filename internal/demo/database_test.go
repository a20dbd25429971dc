package demo

import (
	"context"
	"fmt"
	"io"
	"strings"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"

	"quorumbox/internal/config"
	"quorumbox/internal/pgtest"
)

func exists(t *testing.T, conn *pgx.Conn, database string) bool {
	t.Helper()
	var found bool
	if err := conn.QueryRow(t.Context(), `select exists (select from pg_database where datname = $1)`, database).Scan(&found); err != nil {
		t.Fatal(err)
	}
	return found
}

func connect(t *testing.T, url string) *pgx.Conn {
	t.Helper()
	conn, err := pgx.Connect(t.Context(), url)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = conn.Close(context.WithoutCancel(t.Context())) })
	return conn
}

func testStage(url string) *stage {
	return &stage{cfg: Config{DatabaseURL: config.NewSecret(url)}, show: newScreen(io.Discard, Lines)}
}

func TestScratchDatabase(t *testing.T) {
	t.Parallel()
	url := pgtest.EmptyURL(t)
	admin := connect(t, url)
	old := fmt.Sprintf("%s%x_abandoned", databasePrefix, time.Now().Add(-2*abandonedAge).Unix())
	if _, err := admin.Exec(t.Context(), `create database `+old); err != nil {
		t.Fatal(err)
	}

	s := testStage(url)
	scratch, err := s.openDatabase(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	conn := connect(t, scratch) // left open: it must not keep the database from being dropped
	var name string
	if err := conn.QueryRow(t.Context(), `select current_database()`).Scan(&name); err != nil {
		t.Fatal(err)
	}
	if !strings.HasPrefix(name, databasePrefix) || !exists(t, admin, name) {
		t.Errorf("got database %q, want a new one", name)
	}
	if exists(t, admin, old) {
		t.Error("the database of a killed demo is still there")
	}
	if err := s.close(t.Context()); err != nil {
		t.Fatal(err)
	}
	if exists(t, admin, name) {
		t.Errorf("%s is still there", name)
	}
}

func TestScratchDatabaseRefusals(t *testing.T) {
	t.Parallel()
	url := pgtest.EmptyURL(t)
	admin := connect(t, url)
	role := fmt.Sprintf("demo_poor_%d", time.Now().UnixNano())
	if _, err := admin.Exec(t.Context(), `create role `+role+` login password 'poor'`); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _, _ = admin.Exec(context.WithoutCancel(t.Context()), `drop role `+role) })
	server := admin.Config()
	tests := map[string]struct{ url, want string }{
		"may not create databases": {
			fmt.Sprintf("postgres://%s:poor@%s:%d/%s?sslmode=disable", role, server.Host, server.Port, server.Database),
			"grant it CREATEDB, or unset DATABASE_URL",
		},
		"no server": {"postgres://127.0.0.1:1/x", "unset it, and the demo brings its own"},
	}
	for name, test := range tests {
		t.Run(name, func(t *testing.T) {
			s := testStage(test.url)
			_, err := s.openDatabase(t.Context())
			if err == nil || !strings.Contains(err.Error(), test.want) || strings.Contains(err.Error(), "poor@") {
				t.Errorf("got %v, want an error with %q and without the password", err, test.want)
			}
			if err := s.close(t.Context()); err != nil {
				t.Error(err)
			}
		})
	}
}

func TestWithDatabase(t *testing.T) {
	t.Parallel()
	tests := map[string]struct{ in, want string }{
		"URL":                         {"postgres://u:p@h:1/a?sslmode=disable", "postgres://u:p@h:1/new?sslmode=disable"},
		"URL without a database":      {"postgresql://h", "postgresql://h/new"},
		"URL with another name of it": {"postgres://h/a?dbname=b&x=y", "postgres://h/new?x=y"},
		"keywords":                    {"host=h dbname=a", "host=h dbname=a dbname=new"},
	}
	for name, test := range tests {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			got := withDatabase(test.in, "new")
			if got != test.want {
				t.Errorf("got %s, want %s", got, test.want)
			}
			parsed, err := pgx.ParseConfig(got)
			if err != nil {
				t.Fatal(err)
			}
			if parsed.Database != "new" {
				t.Errorf("pgx reads database %q, want new", parsed.Database)
			}
		})
	}
}

func TestIsAbandoned(t *testing.T) {
	t.Parallel()
	now := time.Unix(1_800_000_000, 0)
	tests := map[string]struct {
		name string
		want bool
	}{
		"old":                {fmt.Sprintf("quorumbox_demo_%x_abc", now.Add(-2*time.Hour).Unix()), true},
		"young":              {fmt.Sprintf("quorumbox_demo_%x_abc", now.Add(-time.Minute).Unix()), false},
		"without a time":     {"quorumbox_demo_mine", false},
		"with no such time":  {"quorumbox_demo_xyz_abc", false},
		"another database's": {fmt.Sprintf("other_%x_abc", now.Add(-2*time.Hour).Unix()), false},
	}
	for name, test := range tests {
		if got := isAbandoned(test.name, now); got != test.want {
			t.Errorf("%s: got %t, want %t", name, got, test.want)
		}
	}
}
