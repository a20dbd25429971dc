package demo

import (
	"context"
	"fmt"
	"io"
	"strings"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"

	"quorumbox/internal/pgtest"
	"quorumbox/internal/secret"
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
	return &stage{cfg: Config{DatabaseURL: secret.New(url)}, show: newScreen(io.Discard, Lines)}
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
